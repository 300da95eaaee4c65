"""What a training run writes down: a folder of files, each the whole state at one step.

A file is an `.npz` archive (arrays, with a checksum each) that also holds JSON. It is
written under another name and renamed, so a kill leaves the old files or the new one.
"""

import contextlib
import json
import os
import re
import warnings

import keras
import numpy as np
from keras import ops

_NAME = re.compile(r"epoch_(\d+)_batch_(\d+)\.npz")


class Folder:
    """Checkpoints of one training run.

    Args:
        path: The folder; it is created if there is none.
        keep: How many of the newest checkpoints to keep.
    """

    def __init__(self, path, keep):
        """Removes what a killed process had not finished writing."""
        self.path = os.path.abspath(path)
        self.keep = keep
        os.makedirs(self.path, exist_ok=True)
        for name in os.listdir(self.path):
            if _NAME.fullmatch(name.removesuffix(".tmp")) and name.endswith(".tmp"):
                os.remove(os.path.join(self.path, name))

    def names(self):
        """File names, oldest first."""
        names = [n for n in os.listdir(self.path) if _NAME.fullmatch(n)]
        return sorted(
            names, key=lambda n: [int(x) for x in _NAME.fullmatch(n).groups()]
        )

    def write(self, epoch, batch, groups, data):
        """Writes a checkpoint, then removes those beyond `keep`.

        Args:
            epoch: Number of finished epochs.
            batch: Number of batches done in the epoch after those.
            groups: A dict from a name to a list of arrays.
            data: What else to store; JSON-able, arrays as lists.
        """
        path = os.path.join(self.path, f"epoch_{epoch:05d}_batch_{batch:08d}.npz")
        counts = {group: len(values) for group, values in groups.items()}
        data = {**data, "epoch": epoch, "batch": batch, "counts": counts}
        text = json.dumps(data, default=_as_list).encode()
        arrays = {
            f"{group}/{i}": array
            for group, values in groups.items()
            for i, array in enumerate(values)
        }
        with open(f"{path}.tmp", "wb") as file:
            np.savez(file, json=np.frombuffer(text, "uint8"), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{path}.tmp", path)
        for name in self.names()[: -self.keep]:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.path, name))

    def read(self):
        """Reads the newest checkpoint that is intact.

        Returns:
            A pair (groups, data) as given to `write`, with "file", "epoch" and "batch"
            added to the data; or None if there is no checkpoint.

        Raises:
            ValueError: There are checkpoints, and none is intact.
        """
        names = self.names()
        problems = []
        for name in reversed(names):
            path = os.path.join(self.path, name)
            try:
                groups, data = _read(path)
            # A damaged archive raises nearly anything; each is one answer here.
            except Exception as error:
                problems.append(f"{name} ({type(error).__name__}: {error})")
                continue
            for problem in problems:
                warnings.warn(
                    f"Skipped a damaged checkpoint in {self.path}: {problem}. "
                    f"Training goes on from {name}.",
                    stacklevel=2,
                )
            return groups, {**data, "file": path}
        if problems:
            raise ValueError(
                f"No checkpoint in {self.path} can be read: {'; '.join(problems)}. "
                "Restore one from a copy, or remove these files to start training from "
                "the beginning."
            )
        return None


def _read(path):
    # Opened here, as np.load leaves a file open that it cannot read.
    with open(path, "rb") as file, np.load(file) as archive:
        wrong = archive.zip.testzip()
        if wrong is not None:
            raise ValueError(f"wrong checksum of {wrong}")
        data = json.loads(archive["json"].tobytes())
        groups = {
            group: [archive[f"{group}/{i}"] for i in range(count)]
            for group, count in data.pop("counts").items()
        }
    return groups, data


def as_stored(value):
    """Returns a value as it is read again: arrays and their numbers become plain."""
    return json.loads(json.dumps(value, default=_as_list))


def _as_list(value):
    if not hasattr(value, "dtype"):
        raise TypeError(
            "Expected numbers, texts or arrays in logs and states, which are saved. "
            f"Received: {value!r}"
        )
    return np.asarray(ops.convert_to_numpy(value)).tolist()


def values_of(variables):
    """The values of variables as a list of arrays."""
    return [np.asarray(ops.convert_to_numpy(v)) for v in variables]


def assign(variables, arrays):
    """Sets variables to arrays."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(with_dtype(array, variable.dtype))


def with_dtype(array, dtype):
    """Gives an array that was read the type it had."""
    if array.dtype.kind == "V":  # bfloat16, which NumPy cannot name in a file.
        return array.view(keras.backend.standardize_dtype(dtype))
    return array
