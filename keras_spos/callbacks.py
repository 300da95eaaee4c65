"""Callbacks: training that survives a kill, and accuracy of sampled paths.

Example:
    >>> resume = callbacks.Resume("checkpoints", data=train)           # doctest: +SKIP
    >>> net.fit(train, epochs=100, callbacks=[resume])                 # doctest: +SKIP
"""

import json
import os
import re
import warnings
import zipfile

import keras
import numpy as np
from keras import ops


class Resume(keras.callbacks.Callback):
    """Keeps a checkpoint of each epoch, and goes on from the newest.

    Keras' `BackupAndRestore` writes weights and epoch as two files; a kill between the
    two repeats an epoch on trained weights. Here a checkpoint is one file that is
    complete or absent. It holds every variable, optimizer slots and random seeds
    included, and the logs so far.

    A run that was killed and is started again by the same command ends as if it had not
    been, if its data is a function of the epoch.

    Args:
        directory: Folder of the checkpoints.
        data: Training data with ``set_epoch(epoch)``, which is called as each epoch
            begins. Optional.
        keep: Number of checkpoints kept.
    """

    def __init__(self, directory, data=None, keep=2):
        super().__init__()
        if keep < 1:
            raise ValueError(f"Expected keep >= 1. Received: keep={keep}")
        self.directory = str(directory)
        self.data = data
        self.keep = keep
        self.history = {}

    def on_train_begin(self, logs=None):
        """Restores the newest complete checkpoint."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        os.makedirs(self.directory, exist_ok=True)
        problems = []
        for path in reversed(self._files()):
            try:
                metadata, arrays = _read(path)
            except (
                OSError,
                ValueError,
                KeyError,
                zipfile.BadZipFile,
                EOFError,
            ) as error:
                problems.append(f"{path}: {type(error).__name__}: {error}")
                continue
            for problem in problems:
                warnings.warn(
                    f"Unreadable checkpoint passed over: {problem}", stacklevel=2
                )
            self._restore(path, metadata, arrays)
            return
        if problems:
            raise ValueError(
                "No readable checkpoint is left. Delete the folder to start again. "
                f"Received: {'; '.join(problems)}"
            )

    def on_epoch_begin(self, epoch, logs=None):
        """Tells the data which epoch begins."""
        if self.data is not None:
            self.data.set_epoch(epoch)

    def on_epoch_end(self, epoch, logs=None):
        """Writes a checkpoint."""
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        path = os.path.join(self.directory, f"epoch_{epoch + 1:05d}.npz")
        metadata = {
            "epoch": epoch + 1,
            "history": self.history,
            "model": _describe(self.model),
        }
        arrays = {
            f"v{i}": ops.convert_to_numpy(v.value)
            for i, v in enumerate(_variables(self.model))
        }
        with open(f"{path}.tmp", "wb") as file:
            np.savez(file, metadata=json.dumps(metadata), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.tmp", path)
        for old in self._files()[: -self.keep]:
            os.remove(old)

    def _restore(self, path, metadata, arrays):
        expected = _describe(self.model)
        for key, value in expected.items():
            found = metadata["model"].get(key)
            if found != value:
                raise ValueError(
                    f"{path} is a checkpoint of something else: {key} differs. "
                    f"Expected: {_short(value)}. Received: {_short(found)}."
                )
        for variable, array in zip(_variables(self.model), arrays, strict=True):
            variable.assign(array)
        self.history = metadata["history"]
        self.model._initial_epoch = metadata["epoch"]

    def _files(self):
        names = sorted(n for n in os.listdir(self.directory) if _NAME.fullmatch(n))
        return [os.path.join(self.directory, n) for n in names]


class SampledAccuracy(keras.callbacks.Callback):
    """Scores the same random paths as training goes on (SPOS, Figure 1).

    Adds ``sampled_accuracy_mean``, ``_min`` and ``_max`` to each epoch's logs; put it
    before `Resume`, which keeps them.

    Args:
        evaluator: An `Evaluator`.
        paths: Paths to score, or their number.
        every: Epochs between evaluations; the last value is repeated in between.
        seed: Seed of the paths, if a number is given.
    """

    def __init__(self, evaluator, paths=10, every=1, seed=0):
        super().__init__()
        self.evaluator = evaluator
        if isinstance(paths, int):
            paths = evaluator.net.space.sample(paths, seed)
        self.paths = evaluator.net.space.validate(paths)
        self.every = every
        self.scores = None

    def on_epoch_end(self, epoch, logs=None):
        """Scores the paths."""
        if self.scores is None or (epoch + 1) % self.every == 0:
            self.scores = self.evaluator(self.paths)
        if logs is not None:
            logs["sampled_accuracy_mean"] = float(self.scores.mean())
            logs["sampled_accuracy_min"] = float(self.scores.min())
            logs["sampled_accuracy_max"] = float(self.scores.max())


_NAME = re.compile(r"epoch_\d{5}\.npz")


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _describe(model):
    """What a checkpoint must agree on with the model that it is read into."""
    description = {
        "variables": [[list(v.shape), v.dtype] for v in _variables(model)],
        "optimizer": type(model.optimizer).__name__,
    }
    if hasattr(model, "space"):
        description["space"] = model.space.to_json()
        description["seed"] = model.seed
    return description


def _read(path):
    with np.load(path, allow_pickle=False) as file:
        metadata = json.loads(str(file["metadata"]))
        count = sum(name.startswith("v") for name in file.files)
        return metadata, [file[f"v{i}"] for i in range(count)]


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
