"""MixPath's recipes train, measure and report."""

import argparse
import types

import keras
import numpy as np
import pytest
from keras import layers

import keras_spos as ks
from keras_spos import search
from recipes import (
    common,
    mixpath,
    mixpath_figure3,
    mixpath_figure5,
    mixpath_figure6,
    mixpath_figure7,
    mixpath_table1,
    mixpath_table2,
    mixpath_table3,
    mixpath_table4,
    mnasnet,
)

not_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="a minute of compiling; the steps are tested one by one",
)


@not_on_jax
def test_one_supernet_for_two_recipes(smoke, monkeypatch):
    monkeypatch.setattr(mixpath_table4, "IMAGES", 1)
    folder, ratios = smoke(mixpath_figure5, "--recompute")
    assert (folder / "figure5.png").stat().st_size > 1000
    assert set(ratios["first block"]) == {"mean", "variance", "scale", "offset"}
    supernet = str(folder / "m2_sbn.keras")
    assert keras.saving.load_model(supernet).recompute
    # As a kill while it is written leaves it.
    (folder / "m2_sbn.keras").write_bytes(b"half a file")
    _, again = smoke(mixpath_figure5, "--recompute", "--resume")
    assert again == ratios
    # Its checkpoint is of another seed.
    (folder / "runs.json").unlink()
    with pytest.raises(ValueError, match="another training.*seed: 0 there, 1 here"):
        smoke(mixpath_figure5, "--recompute", "--resume", "--seed", "1")
    _, similar = smoke(mixpath_table4, "--supernet", supernet)
    alike = similar["feature map, block output"]
    assert 0 < alike["mean"] <= 1
    # Two groups, one pair each.
    assert np.shape(alike["per_pair"]) == (2, 1) and similar["pairs"] == [[0, 1]]


@pytest.mark.parametrize("begun_with_file", [True, False])
def test_parts_of_a_recipe_are_of_one_supernet(begun_with_file, tmp_path, monkeypatch):
    settings = mixpath.PRESETS["smoke"]
    args = {"preset": "smoke", "seed": 0, "data_dir": None, "recompute": False}

    def supernet(resume, file=None):
        folder = argparse.Namespace(output_dir=str(tmp_path / "out"), resume=resume)
        folder.__dict__.update(args)
        output = common.Output("mixpath_table4", folder)
        return mixpath.Experiment(settings, output, folder).supernet(2, file=file)

    def train(experiment, net, *_):
        net.set_weights([w + 1 for w in net.get_weights()])

    monkeypatch.setattr(mixpath.Experiment, "train", train)
    elsewhere = common.Output(
        "mixpath_figure5",
        argparse.Namespace(output_dir=str(tmp_path / "other"), resume=False, **args),
    )
    net = mixpath.Experiment(settings, elsewhere, elsewhere.args).new_supernet(2)
    net.save(file := str(tmp_path / "untrained.keras"))
    files = (file, None) if begun_with_file else (None, file)
    first = common.checksum(supernet(False, files[0]))
    # What goes on with the same one does.
    assert common.checksum(supernet(True, files[0])) == first
    with pytest.raises(SystemExit, match=f"m2_sbn of weights {first}. Received: "):
        supernet(True, files[1])


@not_on_jax
def test_networks_found_are_as_reported(smoke):
    folder, found = smoke(mixpath_table2)
    assert list(found) == ["S2_m2", "S3_m2"]
    for name, network in found.items():
        model = keras.saving.load_model(folder / f"{name}.keras")
        assert network["flops"] == ks.count_flops(model)
        assert network["params"] == ks.count_params(model)
        assert 0 <= network["top1"] <= network["top5"] <= 1
        # m = 2: of each block at most two paths.
        assert all(label.count("+") <= 1 for label in network["description"].values())
        # The preset is a thousandth of the published networks.
        assert "multiply-adds, M: expected 3" in network["differences"][0]
    table = (folder / "table.md").read_text()
    assert all(f"| {name} |" in table for name in ["MixPath-A (paper)", *found])


def test_the_network_to_train_costs_what_was_published():
    costs = {0.7: 200e6, 0.8: 340e6, 0.9: 360e6}
    front = [search.result.Candidate((0,), s, {"flops": f}) for s, f in costs.items()]
    found = types.SimpleNamespace(front=front, best=front[-1])

    def chosen(published, **preset):
        experiment = types.SimpleNamespace(settings=types.SimpleNamespace(**preset))
        return mixpath.Experiment.to_train(experiment, found, published).score

    assert chosen(349, match_flops=True) == 0.8
    assert chosen(378, match_flops=True) == 0.9
    # As without a limit, where the front has none so cheap.
    assert chosen(150, match_flops=True) == 0.9
    assert chosen(349, match_flops=False) == 0.9


def test_directional_derivatives():
    dense = layers.Dense(3, use_bias=False)
    dense.build((None, 2))
    kernel = keras.ops.convert_to_numpy(dense.kernel)
    x, tangents = np.ones((2, 2), "float32"), np.eye(2, dtype="float32")
    columns = mixpath_table4.jvp(lambda x: dense(x) ** 2, x, tangents)
    np.testing.assert_allclose(columns, 2 * kernel.sum(0) * kernel, 1e-5)


def test_mnasnet_rates():
    # 100 steps an epoch: 5 epochs up to 0.256, then down by 0.97 every 240 steps.
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    mnasnet.compile_network(model, 35_000, 4096)
    optimizer = keras.saving.serialize_keras_object(model.optimizer)
    schedule = keras.saving.deserialize_keras_object(optimizer)._learning_rate
    steps = np.array([0, 250, 499, 501, 735, 745, 985])
    rates = [keras.ops.convert_to_numpy(schedule(step)) for step in steps]
    expected = [0, 0.5, 499 / 500, 1, 1, 0.97, 0.97**2]
    np.testing.assert_allclose(rates, 0.256 * np.array(expected), 1e-5)
    # A quarter of the images, half the length: a quarter of the rate, twice as soon.
    mnasnet.compile_network(model, 17_500, 1024)
    rate = model.optimizer._learning_rate(125)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(rate), 0.032, 1e-5)


@pytest.mark.parametrize(
    ("recipe", "images", "epochs"),
    [
        (mixpath, 50_000, 600),
        (mixpath_figure3, 1_281_167, 120),
        (mixpath_table2, 1_281_167, 120),
        (mixpath_table3, 50_000, 100),
    ],
)
def test_paper_presets_have_the_papers_steps(recipe, images, epochs):
    """Though images are held out that the paper trains on."""
    paper = recipe.PRESETS["paper"]
    classes = 10 if paper.dataset == "cifar10" else 1000
    left = images - classes * paper.validation_per_class
    steps = left // paper.batch_size * paper.epochs
    assert steps == pytest.approx(images / paper.batch_size * epochs, rel=0.005)


def test_a_row_of_table_3_by_hand():
    cells = [[0], [1], [2]]
    truth, params = {(0,): 0.1, (1,): 0.2, (2,): 0.3}, {(0,): 3, (1,): 2, (2,): 1}
    runs = [
        {
            "m": 4,
            "shadow": True,
            "cells": cells,
            "learned": {"accuracy": [3, 2, 1], "loss": [1, 3, 2]},
            "calibrated": {"accuracy": accuracies, "loss": [1, 2, 3]},
        }
        # Of three pairs, one is out of order; none is.
        for accuracies in ([1, 3, 2], [1, 2, 3])
    ]
    row = mixpath_table3._judge(runs, True, truth, params)
    assert mixpath_table3._cells(row) == [
        *(4, "shadow", "yes", "0.667 (0.471)", "1.000 (0.000)"),
        *("-1.000", "3/3", "0.597 (0.037)"),
    ]
    row = mixpath_table3._cells(mixpath_table3._judge(runs, False, truth, params))
    assert row[2:5] == ["no", "-1.000 (0.000)", "0.333 (0.000)"]
    assert row[-1] == "0.393 (0.017)"


def test_similarities_are_those_of_features_and_of_jacobian_matrices():
    """All is linear, so an image of one pixel shows a column of the matrix."""
    inputs = keras.Input(shape := (12, 12, 1))
    x = layers.Conv2D(2, 1)(inputs)
    paths = [layers.DepthwiseConv2D(k, padding="same") for k in (1, 3)]
    norm = ks.ShadowBatchNormalization(2)
    before, after = layers.Conv2D(3, 1), layers.Conv2D(2, 1)
    group = ks.PathGroup(paths, before=before, after=after, norm=norm)
    block = ks.MultiPathBlock([group], 2)
    net = ks.Supernet(inputs, block(x))
    rng = np.random.default_rng(0)
    for weight in net.weights:
        if weight.dtype == "float32":
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    images = rng.normal(size=(2, *shape)).astype("float32")
    found = mixpath_table4._similarities(net, block, 0, [(0, 1)], images)

    def functions(images):
        x = before(keras.Model(inputs, x_of_stem)(images))
        sums = after(paths[0](x)), after(paths[0](x) + paths[1](x))
        normed = [norm(y, num_paths=k) for k, y in enumerate(sums, 1)]
        return np.array([[keras.ops.convert_to_numpy(y) for y in sums], normed])

    def cosine(a, b):
        return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())

    x_of_stem = block.input
    features = functions(images)
    # More pixels than are differentiated at once.
    pixels = np.eye(144, dtype="float32").reshape(144, *shape)
    columns = functions(pixels) - functions(np.zeros((1, *shape), "float32"))
    for kind in range(2):
        of_features, of_jacobians = found[kind]
        expected = [cosine(*features[kind][:, i]) for i in range(2)]
        np.testing.assert_allclose(of_features, [expected], 1e-4)
        np.testing.assert_allclose(of_jacobians, [[cosine(*columns[kind])] * 2], 1e-4)


def test_ratios_of_shadow_batch_norms_by_hand():
    norm = ks.ShadowBatchNormalization(2)
    norm.build((None, 3))
    # As Keras orders them: scale, offset, mean and variance.
    for one, factor in zip(norm.norms, (1, 2), strict=True):
        one.set_weights([factor * i * np.array([1.0, 2, 4]) for i in (1, 2, 3, 4)])
    parts = mixpath_figure5.parameters(norm)
    firsts = {part: pair[0][0] for part, pair in parts.items()}
    assert firsts == {"mean": 3, "variance": 4, "scale": 1, "offset": 2}
    assert all(r["median"] == 0.5 for r in mixpath_figure5.ratios(parts).values())
    # Ratios of 0.5, 0.5 and -1.5; of magnitudes 6 to 8.
    pair = np.array([1.0, 2, -3]), np.array([2.0, 4, 2])
    result = mixpath_figure5.ratios({"mean": pair})["mean"]
    assert (result["median"], result["quartiles"]) == (0.5, [-0.5, 0.5])
    assert result["of_sums"] == 0.75
    assert result["correlation"] == pytest.approx(np.sqrt(3 / 7))


def test_figures_of_tables_by_hand():
    result = {"params": 5.34e6, "flops": 473e6, "top1": 0.974}
    assert mixpath_table1._cells(result) == ["5.34", "473", "2.60"]
    result = {"learned": [0.1, 0.3], "recalibrated": [0.5, 0.9]}
    cells = ["20.00", "10.00", "70.00", "20.00"]
    assert mixpath_figure6._row("m2_sbn", result) == ["m = 2, shadow", *cells]
    assert mixpath_figure6._row("m3_bn", result)[0] == "m = 3, one batch norm"
    # The last one's share of all that there is to dominate.
    shares = mixpath_figure7._shares({"a": [1, 3.0], "b": [1.5]}, (0.0, 6.0))
    assert shares == ["0.5000", "0.2500"]
    band = mixpath_figure3._band({"mean": [0.5], "std": [0.125]})
    np.testing.assert_array_equal(band, [[0.5], [0.375], [0.625]])
