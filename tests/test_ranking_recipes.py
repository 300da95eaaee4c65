"""The ranking recipes read no truth before their scores are final, and resume."""

import dataclasses
import json
import sys
import types

import keras
import numpy as np
from keras import layers
from tables import nasbench_macro as write_table

from keras_spos import ChoiceBlock, Supernet, data, ranking
from keras_spos.tabular.archive import Archive
from keras_spos.tabular.paths import MACRO_OPTIONS
from recipes import nasbench_macro, ranking_report, spos_table8
from recipes import ranking as ranking_recipe


def equal_blocks(input_shape, l2, sampler, seed, **others):
    """Eight blocks of one shape, which are compiled once: the space's decisions."""
    x = inputs = keras.Input(input_shape)
    x = layers.Conv2D(4, 3, strides=2, use_bias=False)(x)
    for i in range(8):
        options = [
            layers.Identity(),
            layers.DepthwiseConv2D(3, padding="same"),
            [layers.Conv2D(4, 1), layers.BatchNormalization()],
        ]
        x = ChoiceBlock(options, labels=MACRO_OPTIONS, name=f"block_{i}")(x)
    outputs = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    return Supernet(inputs, outputs, sampler=sampler, seed=seed)


def write_images(file, size, classes, train, test):
    """A data set of random images, whose classes take turns."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (train + test, size, size, 3)).astype("uint8")
    labels = np.arange(train + test) % classes
    arrays = {"x_train": images[:train], "y_train": labels[:train]}
    np.savez(file, **arrays, x_test=images[train:], y_test=labels[train:])


def test_no_image_is_both_trained_and_scored_on(tmp_path):
    write_images(tmp_path / "cifar10.npz", 32, 10, train=300, test=100)
    settings = dataclasses.replace(
        nasbench_macro.PRESETS["small"],
        train_per_class=12,
        validation_per_class=3,
        more_validation_per_class=9,
    )
    splits, more = nasbench_macro.ranking._load(settings, tmp_path)
    train, validation, scored = (
        {image.tobytes() for image in each.images}
        for each in (splits.train, splits.validation, more)
    )
    assert (len(train), len(validation), len(scored)) == (120, 30, 120)
    assert not train & scored and validation < scored
    assert np.bincount(more.labels).tolist() == [12] * 10


def test_other_images_are_read_from_their_file(tmp_path):
    write_images(tmp_path / "imagenet16_120.npz", 16, 120, train=720, test=120)
    # As many images of 120 classes as the preset has of 10.
    preset = dataclasses.replace(
        spos_table8.PRESETS["small"],
        train_per_class=24,
        validation_per_class=12,
        more_validation_per_class=12,
    )
    settings = spos_table8._with_images_of("imagenet16_120", preset)
    assert settings.space["num_classes"] == 120
    splits, more = ranking_recipe._load(settings, tmp_path)
    assert splits.train.images.shape == (240, 16, 16, 3)
    assert (len(splits.validation), len(more)) == (120, 240)
    paper = spos_table8._with_images_of("imagenet16_120", spos_table8.PRESETS["paper"])
    assert paper.space == {"input_shape": (16, 16, 3), "num_classes": 120}
    assert paper.train_per_class is None and paper.validation_per_class == 41
    # Digits stay digits.
    smoke = spos_table8.PRESETS["smoke"]
    assert spos_table8._with_images_of("cifar100", smoke) == smoke


def test_truth_is_read_when_all_scores_are_final(tmp_path, monkeypatch):
    write_table(tmp_path)
    out = tmp_path / "out"
    reads, scored = [], []
    accuracy = Archive.accuracy

    def watched(table, name, rows=None):
        parts = sorted(out.glob("parts/Macro*.json"))
        reads.append([json.loads(part.read_text())["scores"] for part in parts])
        return accuracy(table, name, rows)

    evaluate = nasbench_macro.ranking.Study.evaluator

    def noted(*arguments):
        scored.append(len(reads))
        return evaluate(*arguments)

    monkeypatch.setattr(Archive, "accuracy", watched)
    monkeypatch.setattr(nasbench_macro.ranking.Study, "evaluator", noted)
    monkeypatch.setattr(nasbench_macro.spaces, "nasbench_macro", equal_blocks)
    settings = dataclasses.replace(
        nasbench_macro.PRESETS["smoke"], architectures=6, tracked=3
    )
    monkeypatch.setitem(nasbench_macro.PRESETS, "smoke", settings)
    command = ["nasbench_macro", "--preset", "smoke", "--tables", str(tmp_path)]
    command += ["--trainings", "plain SPOS"]
    monkeypatch.setattr(sys, "argv", [*command, "--output-dir", str(out)])
    nasbench_macro.main()
    report = json.loads((out / "report.json").read_text())["result"]
    (run,) = report["runs"]
    # The first read found every score that the report has; none was made after it.
    assert reads and reads[0] == [run["scores"]]
    assert scored and not any(scored)

    # What is reported is the tau of those scores against the file's rows.
    with np.load(tmp_path / "nasbench_macro.npz") as table:
        truth = table["mean_acc"][run["rows"]]
        flops = table["flops"][run["rows"]]
    for row in report["rows"]:
        (each,) = row["each"]
        scores = run["scores"][row["scoring"]]
        assert each["kendall_tau"]["value"] == ranking.kendall_tau(scores, truth)
        assert each["flops_tau"]["value"] == ranking.kendall_tau(flops, truth)
    assert len(report["rows"]) == 6 and len(run["tracked"]["taus"]) == 1
    for picture in ("ranks.png", "tau_by_epoch.png"):
        assert (out / picture).stat().st_size > 1000

    # Resumed, nothing is trained or scored again.
    scored.clear()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--resume"])
    nasbench_macro.main()
    assert not scored
    assert json.loads((out / "report.json").read_text())["result"] == report


def test_spaces_of_an_earlier_run_are_reported_with_those_of_a_later_one(
    tmp_path, monkeypatch
):
    def run(study, label, training, seed, scorings, reduction=0):
        name = ranking_recipe._name(label, training, seed)
        result = [label, reduction, training]
        return study.output.done(name) or study.output.finish(name, result)

    def spaces_of_a_run(*words):
        command = ["spos_table8", "--preset", "smoke", "--output-dir", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [*command, *words])
        spos_table8.main()
        return reported.pop()

    reported = []
    monkeypatch.setattr(spos_table8.tabular, "nasbench201", lambda _: None)
    monkeypatch.setattr(spos_table8.Study, "run", run)
    monkeypatch.setattr(spos_table8, "judge", lambda *_: [])
    monkeypatch.setattr(
        spos_table8, "finish", lambda study, runs, *_: reported.append(runs)
    )
    plain = ["Original", 0, "plain SPOS"]
    words = ["--trainings", "plain SPOS", "--spaces"]
    reduced = spaces_of_a_run(*words, "Reduce-3", "Reduce-3")
    assert reduced == [["Reduce-3", 3, "plain SPOS"]]
    both = [plain, *reduced]
    assert spaces_of_a_run(*words, "Original", "--resume") == both
    three = [plain, ["Reduce-1", 1, "plain SPOS"], *reduced]
    assert spaces_of_a_run("--spaces", "Reduce-1", "--resume") == three


def test_scores_are_judged_by_the_truth_of_their_rows():
    """Accuracy grows with the multiply-adds and falls with the parameters."""
    flops = np.array([1.0, 5, 2, 4, 3, 6, 9, 8, 7, 0])
    columns = {"f": flops, "p": -flops}
    study = types.SimpleNamespace(
        settings=types.SimpleNamespace(resamples=2),
        table=types.SimpleNamespace(read=columns.get, accuracy=lambda _: flops**2),
    )
    rows = [7, 1, 5, 3, 9]
    runs = [
        {"label": "a", "training": "b", "rows": rows, "scores": {"c": scores.tolist()}}
        for scores in (flops[rows], -flops[rows])
    ]
    (row,) = ranking_report.judge(study, runs, "t", "f", "p")
    costs = [row["each"][0][f"{name}_tau"]["value"] for name in ("flops", "params")]
    np.testing.assert_allclose(costs, [1, -1])
    # Of 1 and -1: the mean, and the root of 2.
    assert row["seeds"] == 2
    np.testing.assert_allclose([row["tau_mean"], row["tau_sd"]], [0, np.sqrt(2)])


def test_each_scoring_has_its_images(monkeypatch):
    counts = []
    monkeypatch.setattr(
        ranking_recipe.ks,
        "Evaluator",
        lambda net, images, validation, recalibrate, **options: counts.append(
            (len(images), len(validation[0]), recalibrate)
        ),
    )

    def images(n):
        return data.ArrayData(np.zeros((n, 2, 2, 3), np.uint8), np.arange(n) % 2)

    study = ranking_recipe.Study.__new__(ranking_recipe.Study)
    study.settings = types.SimpleNamespace(calibration_images=4, memory=1)
    study.splits = types.SimpleNamespace(train=images(20), validation=images(6))
    study.more_validation = images(10)
    for scoring in ranking_recipe.SCORINGS:
        study.evaluator(None, scoring)
    assert counts == [(4, 6, True), (4, 10, True), (4, 6, False), (16, 6, True)]


def test_images_are_shrunk_to_the_means_of_squares():
    values = np.array([[0, 1, 4, 8], [1, 1, 8, 9], [9, 9, 0, 0], [9, 9, 1, 2]])
    images = np.repeat(values.astype(np.uint8)[None, :, :, None], 3, axis=3)
    shrunk = ranking_recipe._shrunk(data.ArrayData(images, [0]), 2)
    # Means 0.75, 7.25, 9 and 0.75.
    assert shrunk.images[0, :, :, 1].tolist() == [[1, 7], [9, 1]]


def test_rates_fall_along_a_cosine_to_the_last(tmp_path):
    settings = ranking_recipe.Settings("digits", {}, 3, 4, 2, augment=None)
    images = data.ArrayData(np.zeros((10, 2, 2, 3), np.uint8), np.arange(10))
    study = types.SimpleNamespace(
        settings=settings,
        args=types.SimpleNamespace(seed=0),
        splits=types.SimpleNamespace(train=images, mean=None, std=None),
        output=types.SimpleNamespace(path=tmp_path.joinpath),
    )
    inputs = keras.Input((2, 2, 3))
    net = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(inputs)))
    ranking_recipe.Study.train(study, net, "a", "plain SPOS", 0)
    schedule = net.optimizer._learning_rate
    # Two epochs of two batches.
    assert int(net.optimizer.iterations) == 4
    rates = [float(schedule(step)) for step in (0, 2, 4)]
    np.testing.assert_allclose(rates, [0.025, 0.013, 0.001], 1e-5)
