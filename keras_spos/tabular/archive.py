"""Where is a benchmark's file, and which of its arrays may be read freely?"""

import numpy as np

from keras_spos.data.locate import data_directory
from keras_spos.data.npz_file import open_npz


class Archive:
    """An `.npz` file whose accuracies are read on demand, and noted.

    Args:
        file: The file's name.
        folder: The folder it is in. Default: the variable `KERAS_SPOS_DATA`.
        required: Names of the arrays that it must hold.
        is_accuracy: A function of an array's name: whether it is a truth.

    Attributes:
        path: Where the file was found.
        reads: Names of the accuracies that were read, in order.

    Raises:
        FileNotFoundError: The folder does not hold the file.
        ValueError: The file is damaged or misses an array.
    """

    def __init__(self, file, folder, required, is_accuracy):
        self.path = _find(file, folder)
        self.is_accuracy = is_accuracy
        self.reads = []
        with open_npz(self.path) as arrays:
            self.names = list(arrays.files)
        missing = sorted(set(required) - set(self.names))
        if missing:
            raise ValueError(f"{self.path} must hold {required}. Missing: {missing}")

    def read(self, name):
        """An array that is no accuracy."""
        if name not in self.names or self.is_accuracy(name):
            known = [n for n in self.names if not self.is_accuracy(n)]
            raise ValueError(f"{self.path} holds {known}. Received: {name!r}.")
        return self._load(name)

    def accuracy(self, name, rows=None):
        """Accuracies; from here on the truth is known.

        Args:
            name: The array's name.
            rows: Row numbers. Defaults to all.

        Returns:
            A float64 array ``[n]``, or ``[n, trainings]``.
        """
        if name not in self.names or not self.is_accuracy(name):
            known = [n for n in self.names if self.is_accuracy(n)]
            raise ValueError(
                f"{self.path} holds the accuracies {known}. Received: {name!r}."
            )
        self.reads.append(name)
        values = self._load(name).astype(np.float64)
        return values if rows is None else values[rows]

    def _load(self, name):
        with open_npz(self.path) as arrays:
            return arrays[name]


def _find(file, folder):
    directory = data_directory(folder)
    if directory is None:
        raise FileNotFoundError(
            f"{file} is needed. Name its folder, or set KERAS_SPOS_DATA."
        )
    if not (directory / file).is_file():
        raise FileNotFoundError(
            f"{file} is not in {directory}. keras_spos.tabular describes its arrays."
        )
    return directory / file
