"""What is a set of labelled images? In memory, as files, or as a record stream.

Every kind of set has `labels` (int64 ``[n]``), `len()` and `subset(indices)`, which
is all that splitting needs; see `keras_spos.data.tfds_stream` for the third kind.

Example:
    >>> images = np.zeros([4, 32, 32, 3], "uint8")
    >>> len(ArrayData(images, [0, 0, 1, 1]).subset([0, 2]))
    2
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayData:
    """Labelled images in memory.

    Args:
        images: uint8 ``[n, height, width, 3]``, RGB, 0 to 255.
        labels: Integers ``[n]``, stored as int64.

    Raises:
        ValueError: If shapes or types are others.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        """Checks shapes and types."""
        images = self.images
        if (
            not isinstance(images, np.ndarray)
            or images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[3] != 3
        ):
            raise ValueError(
                "Expected images of shape [n, height, width, 3] and type uint8. "
                f"Received: {_describe(images)}"
            )
        object.__setattr__(self, "labels", _labels(self.labels, len(images)))

    def __len__(self):
        """Returns the number of images."""
        return len(self.labels)

    def subset(self, indices):
        """Returns the images at `indices` (int ``[m]``), in that order, copied."""
        return ArrayData(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class FileData:
    """Labelled image files (JPEG or PNG), decoded when they are read.

    Args:
        paths: File names ``[n]``.
        labels: Integers ``[n]``, stored as int64.

    Raises:
        ValueError: If the lengths differ.
    """

    paths: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        """Checks shapes and types."""
        paths = np.asarray([str(path) for path in self.paths], dtype=str)
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "labels", _labels(self.labels, len(paths)))

    def __len__(self):
        """Returns the number of images."""
        return len(self.labels)

    def subset(self, indices):
        """Returns the files at `indices` (int ``[m]``), in that order."""
        return FileData(self.paths[indices], self.labels[indices])

    def encoded(self, shuffle_seed=None):
        """Streams the files' bytes through TensorFlow.

        Args:
            shuffle_seed: Integer tensor ``[2]``; the order is a uniform permutation
                that depends on it alone. None keeps the order.

        Returns:
            A `tf.data.Dataset` of (bytes, label int64).
        """
        import tensorflow as tf

        order = tf.range(len(self), dtype=tf.int64)
        if shuffle_seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed=shuffle_seed)
        # A million names are no constant to write into a traced function.
        with tf.init_scope(), tf.device("CPU:0"):
            paths, labels = tf.constant(self.paths), tf.constant(self.labels)
        return tf.data.Dataset.from_tensor_slices(order).map(
            lambda i: (tf.io.read_file(paths[i]), labels[i]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """A data set, split as the paper splits ImageNet (SPOS, section 4).

    Args:
        train: The training set without the validation images.
        validation: Held-out *training* images, the same number of each class. The
            search ranks architectures on it.
        test: The official validation or test set, for final numbers only.
        num_classes: The number of classes.
        mean: Channel means of the training pixels, as fractions of 255, ``(3,)``.
        std: Channel standard deviations, likewise.
    """

    train: object
    validation: object
    test: object
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _labels(labels, n):
    labels = np.asarray(labels)
    # An empty list arrives as float64 and is a legal set of no images.
    if labels.shape != (n,) or (n and labels.dtype.kind not in "iu"):
        raise ValueError(
            f"Expected one integer label per image ({n}). Received: {_describe(labels)}"
        )
    return labels.astype(np.int64)


def _describe(value):
    if isinstance(value, np.ndarray):
        return f"shape {list(value.shape)}, type {value.dtype}"
    return f"{type(value).__name__}"
