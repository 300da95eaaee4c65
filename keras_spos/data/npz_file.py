"""How does an `.npz` file become `Splits`? Four arrays, as Keras names them.

Example:
    >>> np.savez("mine.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    >>> splits = npz("mine.npz", validation_per_class=50)
"""

import contextlib
import zipfile
import zlib

import numpy as np

from keras_spos.data.pixels import channel_statistics
from keras_spos.data.sets import ArrayData, Splits
from keras_spos.data.split import hold_out


def npz(path, validation_per_class=50, seed=0):
    """Reads images and labels from an `.npz` file.

    Args:
        path: The file. It holds `x_train` and `x_test`, uint8
            ``[n, height, width, 3]`` or grey ``[n, height, width]`` (repeated to
            three channels), and `y_train` and `y_test`, integers ``[n]`` or
            ``[n, 1]``.
        validation_per_class: Training images of each class held out.
        seed: Which ones.

    Returns:
        `Splits` of `ArrayData`; the mean and standard deviation are those of the
        training images that are left.

    Raises:
        ValueError: If an array is missing or has another shape or type, a label is
            negative, or a class has too few images.
    """
    train, test = read_npz(path)
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    train, validation = hold_out(train, validation_per_class, seed)
    mean, std = channel_statistics(train.images)
    return Splits(train, validation, test, num_classes, mean, std)


@contextlib.contextmanager
def open_npz(path):
    """Opens an `.npz` file whose arrays are read on demand; a damaged one is named."""
    # Opened here, as np.load leaves a file open that it cannot read.
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is truncated or no .npz archive.")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                yield arrays
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error


def read_npz(path):
    """Returns the training and the test set (`ArrayData`) of an `.npz` file."""
    with open_npz(path) as arrays:
        missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays.files)
        if missing:
            raise ValueError(
                f"{path} must hold x_train, y_train, x_test and y_test. "
                f"Missing: {sorted(missing)}"
            )
        sets = []
        for name in ("train", "test"):
            try:
                sets.append(_read_set(arrays[f"x_{name}"], arrays[f"y_{name}"]))
            except ValueError as error:
                raise ValueError(f"x_{name} or y_{name} in {path}: {error}") from error
    train, test = sets
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"Expected x_train and x_test of one size in {path}. Received: "
            f"{train.images.shape} and {test.images.shape}"
        )
    return train, test


def _read_set(images, labels):
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    data = ArrayData(images, labels)
    if not len(data):
        raise ValueError("Expected at least one image. Received: none")
    if data.labels.min() < 0:
        raise ValueError(f"Expected labels from 0. Received: {data.labels.min()}")
    return data
