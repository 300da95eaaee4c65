"""The recipes run from their command line, and go on where they were stopped."""

import argparse
import dataclasses
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

import keras_spos as ks
from keras_spos import data
from keras_spos.costs import Block, CostTable
from recipes import experiment, memory, spos, spos_table3
from recipes.common import (
    Output,
    _without_folders,
    checksum,
    checksum_of,
    existing_file,
    parser_for,
)

ROOT = pathlib.Path(__file__).parents[1]


def run(recipe, folder, *words):
    command = [sys.executable, "-m", f"recipes.{recipe}", "--preset", "smoke"]
    return subprocess.run(
        [*command, "--output-dir", str(folder), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    done = run("quickstart", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_quickstart_ends_with_everything_it_promises(quickstart):
    folder, printed = quickstart
    report = json.loads((folder / "report.json").read_text())
    result = report["result"]
    assert result["best"]["costs"]["flops"] <= result["limit"]
    assert result["onnx_max_abs_difference"] < 1e-3
    assert report["provenance"]["command"] == (
        "python -m recipes.quickstart --preset smoke --output-dir DIR"
    )
    for name in ("best.onnx", "search.png", "architecture.png", "supernet.keras"):
        assert (folder / name).stat().st_size > 1000
    assert "random legal" in printed


def test_a_finished_recipe_resumes_to_the_same_result(quickstart):
    folder, _ = quickstart
    before = json.loads((folder / "report.json").read_text())
    done = run("quickstart", folder, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    after = json.loads((folder / "report.json").read_text())
    assert after["result"] == before["result"]
    first, second = after["provenance"]["runs"]
    assert [first] == before["provenance"]["runs"]
    minutes = first["minutes"] + second["minutes"]
    assert after["provenance"]["minutes"] == pytest.approx(minutes, abs=0.06)


def test_a_used_folder_is_not_overwritten(quickstart):
    folder, _ = quickstart
    with pytest.raises(SystemExit, match=f"{folder} is not empty. Pass --resume"):
        output(folder)


def output(folder, recipe="quickstart", **changed):
    args = {"preset": "smoke", "seed": 0, "resume": False, **changed}
    return Output(recipe, argparse.Namespace(output_dir=str(folder), **args))


def test_parts_made_from_something_else_are_refused(tmp_path):
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    weights = checksum(net)
    first, *others = net.get_weights()
    assert checksum_of([first, *others]) == weights != checksum_of([first + 1, *others])
    output(tmp_path).agree("weights", weights)
    again = output(tmp_path, resume=True)
    again.agree("weights", checksum(net))
    net.layers[0].bias.assign([1.0, 0.0])
    with pytest.raises(SystemExit, match=f"weights {weights}. Received: "):
        again.agree("weights", checksum(net))


def test_parts_made_from_other_images_are_refused(tmp_path):
    splits = data.digits(8, validation_per_class=2)
    experiment.agree_on_data(output(tmp_path), splits)
    again = output(tmp_path, resume=True)
    experiment.agree_on_data(again, splits)
    # As many, of which one pixel is another; and in another order.
    images = splits.train.images.copy()
    images[-1, -1, -1, -1] += 1
    backwards = np.arange(len(splits.validation))[::-1]
    for part, other in (
        ("train", data.ArrayData(images, splits.train.labels)),
        ("validation", splits.validation.subset(backwards)),
    ):
        changed = dataclasses.replace(splits, **{part: other})
        with pytest.raises(SystemExit, match="data {'train'.*Received: {'train'"):
            experiment.agree_on_data(again, changed)
    # Of photographs, the labels tell.
    photos = data.FileData(["a", "b"], [0, 1])
    splits = dataclasses.replace(splits, train=photos, validation=photos, test=photos)
    experiment.agree_on_data(output(tmp_path / "photos"), splits)
    again = output(tmp_path / "photos", resume=True)
    splits = dataclasses.replace(splits, test=photos.subset([1, 0]))
    with pytest.raises(SystemExit, match="Received: {'train': '2 images, "):
        experiment.agree_on_data(again, splits)


def test_an_experiment_scores_on_images_that_are_held_out(tmp_path):
    settings = types.SimpleNamespace(
        dataset="digits",
        space={"input_shape": (8, 8, 3)},
        train_per_class=3,
        validation_per_class=2,
        batch_size=5,
        calibration_images=20,
    )
    args = types.SimpleNamespace(data_dir=None, seed=1)
    one = experiment.BaseExperiment(settings, output(tmp_path), args)
    splits, calibration = one.splits, one.calibration()
    train, validation, test = splits.train, splits.validation, splits.test
    assert (len(train), len(validation), len(calibration)) == (30, 20, 20)
    assert np.bincount(calibration.labels).tolist() == [2] * 10
    in_training = {image.tobytes() for image in train.images}
    assert all(image.tobytes() in in_training for image in calibration.images)

    def prepared(images):
        return data.standardise(images, splits.mean, splits.std)

    x, y = next(iter(one.test_data()))
    np.testing.assert_allclose(x, prepared(test.images[:500]), 1e-5, 1e-6)
    np.testing.assert_array_equal(y, test.labels[:500])
    x, y = next(iter(one.training_data()))
    known = prepared(train.images).reshape(30, -1)
    for image, label in zip(np.array(x).reshape(5, -1), np.array(y), strict=True):
        place = np.argmin(np.abs(known - image).max(axis=1))
        np.testing.assert_allclose(image, known[place], 1e-5, 1e-6)
        assert label == train.labels[place]
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Flatten()(inputs))
    block = ks.ChoiceBlock([keras.layers.Dense(10), keras.layers.Dense(10)])
    net = ks.Supernet(inputs, block(x))
    held_out = prepared(validation.images), validation.labels
    expected = ks.Evaluator(net, prepared(calibration.images), held_out)
    np.testing.assert_allclose(
        one.evaluator(net).predict((0,)), expected.predict((0,)), 1e-4, 1e-5
    )
    assert one.evaluator(net)([(0,), (1,)]).tolist() == expected([(0,), (1,)]).tolist()
    # Another seed draws other images, from the data that is loaded already.
    args.seed = 2
    two = experiment.BaseExperiment(settings, one.output, args, splits)
    assert two.splits is splits
    assert not np.array_equal(two.calibration().images, calibration.images)
    labels = [list(next(iter(e.training_data()))[1]) for e in (one, two)]
    assert labels[0] != labels[1]


def test_an_output_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit, match="Expected an --output-dir .*/file"):
            output(folder)
    # Not even for the superuser: a folder is in the file's place.
    (tmp_path / "out" / "runs.json.tmp").mkdir(parents=True)
    with pytest.raises(SystemExit, match="Received: .*runs.json.tmp"):
        output(tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    "name, begun, other", [("seed", 0, 1), ("preset", "smoke", "small")]
)
def test_a_folder_goes_on_with_what_it_was_begun(name, begun, other, tmp_path):
    output(tmp_path)
    before = (tmp_path / "runs.json").read_text()
    message = f"Expected --{name} {begun}, .*Received: --{name} {other}"
    with pytest.raises(SystemExit, match=message):
        output(tmp_path, resume=True, **{name: other})
    assert (tmp_path / "runs.json").read_text() == before
    assert len(output(tmp_path, resume=True).runs) == 2
    # Entries of earlier versions told neither.
    (tmp_path / "runs.json").write_text('[{"minutes": 1.0}]')
    again = output(tmp_path, resume=True, **{name: other})
    assert len(again.runs) == 2
    again.report({}, None)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["provenance"]["minutes"] == 1.0


def test_a_folder_is_of_one_recipe(tmp_path):
    output(tmp_path)
    before = (tmp_path / "runs.json").read_text()
    with pytest.raises(SystemExit, match="quickstart. .*Received: recipes.spos_table3"):
        output(tmp_path, "spos_table3", resume=True)
    assert (tmp_path / "runs.json").read_text() == before


def test_what_ended_before_it_did_anything_is_begun_anew(tmp_path):
    """As where its data is missing: the command that is right need not resume."""
    output(tmp_path, "spos_table3", seed=1)
    begun = output(tmp_path)
    assert [run["seed"] for run in begun.runs] == [0]
    begun.finish("part", 1)
    before = (tmp_path / "runs.json").read_text()
    with pytest.raises(SystemExit, match="is not empty"):
        output(tmp_path)
    assert (tmp_path / "runs.json").read_text() == before


def test_a_folder_is_of_one_process_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    code = f"""
import argparse
from recipes.common import Output
args = {{"preset": "smoke", "seed": 0, "resume": False}}
Output("quickstart", argparse.Namespace(output_dir={str(tmp_path)!r}, **args))
print("begun", flush=True)
input()
"""
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as other:
        assert other.stdout.readline() == b"begun\n"
        before = (tmp_path / "runs.json").read_text()
        with pytest.raises(SystemExit, match=f"{tmp_path} is in use"):
            output(tmp_path, resume=True)
        assert (tmp_path / "runs.json").read_text() == before
        other.kill()
    # It ended without a word.
    assert len(output(tmp_path, resume=True).runs) == 2


def test_a_kill_while_a_model_is_saved_leaves_the_last(tmp_path):
    class Model:
        def save(self, path):
            pathlib.Path(path).write_text("half")
            raise KeyboardInterrupt

    begun = output(tmp_path / "out")
    file = tmp_path / "out" / "supernet.keras"
    file.write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        begun.save(Model(), "supernet")
    assert file.read_text() == "whole"


def test_missing_data_is_explained(smoke, monkeypatch):
    # As where tensorflow-datasets is not installed: it would try to download.
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delenv("KERAS_SPOS_DATA", raising=False)
    with pytest.raises(Exception, match="cifar10"):
        smoke(spos_table3, "--preset", "small")


def test_a_mistyped_data_folder_is_refused_and_not_made(
    smoke, tmp_path, monkeypatch, capsys
):
    missing = tmp_path / "missing"
    with pytest.raises(SystemExit, match="2"):
        smoke(spos_table3, "--data-dir", str(missing))
    error = capsys.readouterr().err
    assert "Expected a folder that exists" in error and f"Received: {missing}" in error
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("KERAS_SPOS_DATA", str(missing))
    with pytest.raises(SystemExit, match="2"):
        smoke(spos_table3)
    assert f"Received: {missing}" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "4294967", "one"])
def test_a_seed_that_cannot_be_is_refused_before_a_folder_is_made(seed, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser_for("", ["smoke"]).parse_args([f"--seed={seed}"])
    error = capsys.readouterr().err
    assert "argument --seed" in error and seed in error


def test_folders_are_of_the_user_and_not_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--data-dir=~", "--output-dir=~/out", "--seed=1", "--network", "~/a.keras"]
    args, _ = parser_for("", ["smoke"]).parse_known_args(words)
    assert (args.data_dir, args.output_dir) == (str(tmp_path), f"{tmp_path}/out")
    expected = "--data-dir=DIR --output-dir=DIR --seed=1 --network DIR"
    assert _without_folders(words) == expected.split()
    (tmp_path / "a.keras").touch()
    assert existing_file("~/a.keras") == f"{tmp_path}/a.keras"
    # A variable that is empty is as good as none.
    monkeypatch.setenv("KERAS_SPOS_DATA", "")
    assert not parser_for("", ["smoke"]).parse_args([]).data_dir


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit_of_copy(folder):
    """What a copy of the recipes' code in a folder says is its commit."""
    file = shutil.copy(ROOT / "recipes" / "common.py", folder)
    spec = importlib.util.spec_from_file_location("copied_common", file)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy._commit()


def test_the_commit_is_of_the_code(tmp_path, monkeypatch):
    for name in ("code", "started_from"):
        (tmp_path / name / ".venv").mkdir(parents=True)
        git(tmp_path / name, "init")
        git(tmp_path / name, "commit", "--allow-empty", "-m", name)
    code = tmp_path / "code"
    monkeypatch.chdir(tmp_path / "started_from")
    # Installed within a repository, of which it is no part.
    assert commit_of_copy(code / ".venv") == "unknown"
    assert commit_of_copy(code) == "unknown"
    git(code, "add", "common.py")
    git(code, "commit", "-m", "recipes")
    head = git(code, "rev-parse", "--short=12", "HEAD")
    assert commit_of_copy(code) == head
    git(code, "rm", "--cached", "common.py")
    git(code, "add", "--intent-to-add", "common.py")
    assert commit_of_copy(code) == f"{head}+changes"
    git(code, "reset")
    monkeypatch.setenv("PATH", "")
    assert commit_of_copy(code) == "unknown"


def test_ranges_that_are_sampled_end_at_the_limits():
    space = ks.SearchSpace([ks.Decision("a", tuple("pqrs")), ks.Decision("b", ("t",))])
    block = Block("a", (0,), np.array([0.0, 100.0, 200.0, 300.0]))
    table = CostTable(space, 100.0, [block])
    # From 100 to 400: of the ranges 320 to 330, 330 to 340 and so on, and of those
    # between limits 120 apart, what is within reach.
    one = spos.range_sampler(table, [330.0])
    np.testing.assert_allclose(one.bins[:, 1], np.arange(270, 331, 10))
    three = spos.range_sampler(table, [370.0, 310.0, 250.0])
    np.testing.assert_allclose(three.bins[0], (230, 250))
    np.testing.assert_allclose(three.bins[-1], (350, 370))
    above = spos.range_sampler(table, [130.0, 430.0])
    np.testing.assert_allclose(above.bins[[0, -1]], [(100, 130), (380, 400)])
    assert isinstance(spos.range_sampler(table, [99.0]), ks.UniformSampler)
    path = three.draw(space, np.random.default_rng(0))
    assert table(path)[0] in (200, 300, 400)


@pytest.mark.parametrize("platform, expected", [("darwin", 5), ("freebsd", 5 * 1024)])
def test_peak_of_memory_without_proc(platform, expected, monkeypatch):
    resource = types.SimpleNamespace(
        RUSAGE_SELF=0, getrusage=lambda who: types.SimpleNamespace(ru_maxrss=5)
    )
    monkeypatch.setitem(sys.modules, "resource", resource)
    monkeypatch.setattr(memory, "_status", lambda name: None)
    monkeypatch.setattr(sys, "platform", platform)
    assert memory.peak_bytes() == expected
    # Windows has no such module.
    monkeypatch.setitem(sys.modules, "resource", None)
    assert np.isnan(memory.peak_bytes())
