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
