"""Killed and resumed equals never killed: weights, optimizer, statistics and logs."""

import os
import random
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from models import convolution, cross_entropy, values
from trainings import (
    BATCH,
    EPOCHS,
    STEPS,
    Stop,
    assert_same,
    names,
    stock,
)

import keras_spos as ks
from keras_spos import data
from keras_spos.callbacks.checkpoints import Folder
from keras_spos.data.sets import ArrayData

X = np.random.default_rng(0).integers(0, 256, (STEPS * BATCH + 1, 8, 8, 3), np.uint8)
Y = np.arange(len(X)) % 4


def supernet():
    """Three choice blocks on 8 x 8 images, with dropout."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    for i in range(3):
        options = [convolution(f"b{i}_k{k}", k) for k in (1, 3)]
        x = ks.ChoiceBlock(options, labels=("k1", "k3"))(x)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return ks.Supernet(inputs, layers.Dense(4)(x), seed=3)


def fit(model, directory=None, stop=None, epochs=EPOCHS, optimizer=None, **options):
    """The command that is killed and run again.

    Returns:
        The history, and all that training changes.
    """
    train = data.training(ArrayData(X, Y), BATCH, seed=5, augment=None)
    if not model.compiled:
        schedule = keras.optimizers.schedules.CosineDecay(0.1, EPOCHS * STEPS)
        model.compile(
            optimizer or keras.optimizers.SGD(schedule, momentum=0.9),
            cross_entropy(),
            metrics=["accuracy"],
        )
    resume = ks.callbacks.Resume(directory, data=train, **options)
    callbacks = [Stop(*stop), resume] if stop else [resume]
    validation = (X[:8] / np.float32(255), Y[:8])
    history = model.fit(
        train,
        epochs=epochs,
        validation_data=validation,
        verbose=0,
        callbacks=callbacks,
    )
    assert resume.history == history.history
    assert history.epoch == list(range(epochs))
    return history.history, values([*model.variables, *model.optimizer.variables])


def build_and_kill(directory, steps):
    """What the test below runs in a process of its own."""
    keras.utils.set_random_seed(7)
    fit(supernet(), directory, (int(steps), True))


def test_a_killed_supernet(tmp_path):
    """SIGKILL at a random step, then the same command: equal to the bit."""
    steps = random.SystemRandom().randint(1, EPOCHS * STEPS)
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, conftest, test_resume; "
            "test_resume.build_and_kill(*sys.argv[1:])",
            str(tmp_path / "killed"),
            str(steps),
        ],
        cwd=os.path.dirname(os.path.abspath(__file__)),
        env={
            **os.environ,
            "PYTHONPATH": os.path.dirname(os.path.dirname(ks.__file__)),
        },
    )
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path / "killed")
    results = []
    for name in ("killed", "never"):
        # After a kill nothing may depend on what the seeds were at the start.
        keras.utils.set_random_seed(8 if name == "killed" else 7)
        results.append(fit(supernet(), tmp_path / name))
    print(f"Killed after {steps} steps.")  # pytest shows it if this fails.
    assert_same(*results)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished training of the stock model: its folder, and how it ended."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, fit(stock(), folder)


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished[0], tmp_path / "copy")


@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_a_stopped_stock_model(tmp_path, finished, save_freq):
    """Dropout's seeds and the metrics of the epoch go on as well."""
    # In the second epoch, twice, and in the third; skipped batches count as steps.
    for steps in (STEPS + 3, STEPS, STEPS + 2):
        with pytest.raises(KeyboardInterrupt):
            fit(stock(), tmp_path, (steps,), save_freq=save_freq)
    middle = [] if save_freq == "epoch" else ["epoch_00001_batch_00000004.npz"]
    assert middle == [n for n in names(tmp_path) if "batch_00000000" not in n]
    assert_same(fit(stock(), tmp_path, save_freq=save_freq), finished[1])


def test_a_finished_training_returns_at_once(folder, finished):
    before = names(folder)
    assert before == [f"epoch_0000{e}_batch_00000000.npz" for e in (2, 3)]
    assert_same(fit(stock(), folder, stop=(1,)), finished[1])
    assert names(folder) == before
    history, _ = fit(stock(), folder, epochs=EPOCHS + 1, keep=1)
    assert history["loss"][:EPOCHS] == finished[1][0]["loss"]
    assert names(folder) == ["epoch_00004_batch_00000000.npz"]
    with pytest.raises(ValueError, match="more than the 3 epochs"):
        fit(stock(), folder)


def test_a_damaged_checkpoint_is_passed_over(folder, finished):
    old, new = names(folder)
    with open(folder / new, "r+b") as file:
        file.truncate(os.path.getsize(folder / new) // 2)
    with pytest.warns(UserWarning, match=f"damaged .* {new} .* goes on from {old}"):
        result = fit(stock(), folder)
    assert_same(result, finished[1])
    for name in names(folder):
        (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match="No checkpoint .* can be read.*remove these"):
        fit(stock(), folder)


def test_every_changed_byte_is_noticed(tmp_path):
    arrays = {"model": [np.arange(5.0), np.zeros((0, 2)), np.array(7)]}
    folder = Folder(tmp_path, keep=1)
    folder.write(1, 0, arrays, {"logs": [{"loss": 0.1}]})
    (path,) = tmp_path.iterdir()
    intact = path.read_bytes()
    noticed = 0
    for position in range(0, len(intact), 3):
        changed = bytearray(intact)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            groups, found = folder.read()
        except ValueError:
            noticed += 1
            continue
        # Some bytes mean nothing, such as a member's date.
        assert found["logs"] == [{"loss": 0.1}]
        for a, b in zip(groups["model"], arrays["model"], strict=True):
            np.testing.assert_array_equal(a, b)
    assert noticed > len(intact) / 6


def test_a_kill_while_writing(folder, monkeypatch):
    """What is half written is not read, and cleared away."""

    def kill(source, target):
        raise KeyboardInterrupt

    (folder / "notes.tmp").write_text("not of this class")
    before = names(folder)
    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        Folder(folder, keep=2).write(9, 0, {"model": []}, {})
    assert {*names(folder)} == {*before, "epoch_00009_batch_00000000.npz.tmp"}
    Folder(folder, keep=2)
    assert names(folder) == before
