"""What real images does a bare installation have? scikit-learn's digits.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998; shipped with scikit-learn.
"""

import numpy as np

from keras_spos.data.pixels import channel_statistics
from keras_spos.data.sets import ArrayData, Splits
from keras_spos.data.split import hold_out
from keras_spos.optional import require


def digits(size=32, validation_per_class=30, test_per_class=30, seed=0):
    """Loads 1,797 handwritten digits (10 classes, 174 to 183 images each).

    Each 8 x 8 grey image is enlarged by the largest whole factor that fits, padded
    with black to `size` and repeated to three channels.

    Args:
        size: Height and width in pixels, at least 8.
        validation_per_class: Training images of each class held out.
        test_per_class: Test images of each class; there is no official test set. They
            do not depend on `seed`.
        seed: Which validation images.

    Returns:
        `Splits` of `ArrayData`.

    Raises:
        ValueError: If `size` is below 8 or a class has too few images.
        ImportError: If scikit-learn is not installed.
    """
    if size < 8:
        raise ValueError(f"Expected size >= 8. Received: size={size}")
    scans = require("sklearn.datasets", "scikit-learn").load_digits()
    everything = ArrayData(_enlarge(scans.images, size), scans.target)
    train, test = hold_out(everything, test_per_class, seed=0)
    train, validation = hold_out(train, validation_per_class, seed)
    mean, std = channel_statistics(train.images)
    return Splits(train, validation, test, 10, mean, std)


def _enlarge(images, size):
    """Makes [n, 8, 8] values 0..16 into uint8 [n, size, size, 3]."""
    factor = size // 8
    images = np.rint(images * (255 / 16)).astype(np.uint8)
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    before = (size - 8 * factor) // 2
    after = size - 8 * factor - before
    images = np.pad(images, [(0, 0), (before, after), (before, after)])
    return np.repeat(images[..., None], 3, axis=3)
