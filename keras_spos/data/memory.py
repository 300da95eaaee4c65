"""How is a fixed subset of photographs read thousands of times? From memory.

A search evaluates each candidate on the same validation images, and recomputes its
batch-normalisation statistics on the same training images. Decoding them once saves
that, and for a record stream it saves reading the whole training set: 10,000 images of
224 x 224 are 1.5 GB.

Example:
    >>> validation = in_memory(splits.validation)
    >>> calibration = in_memory(balanced_subset(splits.train, n=20000))
"""

import numpy as np

from keras_spos.data.feed import evaluation
from keras_spos.data.sets import ArrayData


def in_memory(data, size=224, short_side=256, *, engine=None, workers=None):
    """Decodes a set of photographs as `evaluation` does, and keeps it.

    Args:
        data: `FileData` or a set that `imagenet` opened.
        size: Height and width in pixels.
        short_side: What the short side becomes before the centre is cropped.
        engine: As in `training`.
        workers: As in `training`.

    Returns:
        `ArrayData`, in the order that `evaluation` has.
    """
    images = np.empty((len(data), size, size, 3), np.uint8)
    labels = np.empty(len(data), np.int64)
    batches = evaluation(
        data,
        64,
        size=size,
        short_side=short_side,
        engine=engine,
        workers=workers,
        finish_on="host",
    )
    start = 0
    for pixels, label in batches:
        rows = slice(start, start + len(label))
        # Back from fractions to the whole numbers they came from.
        images[rows] = np.rint(pixels * 255)
        labels[rows] = label
        start = rows.stop
    return ArrayData(images, labels)
