"""How are image files read without TensorFlow? With Pillow, in threads.

Pillow and numpy let other threads run while they decode, resize and multiply, so
threads are enough.
"""

import concurrent.futures

import numpy as np

from keras_spos.data import photo
from keras_spos.data.locate import require
from keras_spos.data.pixels import standardise
from keras_spos.data.sets import FileData


def photo_batches(data, augment, size, short_side, mean, std, workers):
    """Returns a `make_batch` for `stream.Stream`.

    Args:
        data: `FileData`, or `ArrayData` to be treated like photographs.
        augment: Whether to draw the training augmentation.
        size: Height and width of the result in pixels.
        short_side: For evaluation, see `photo.evaluation_photo`.
        mean: Three channel means as fractions of 255, or None.
        std: Three standard deviations, likewise.
        workers: How many threads work on a batch.

    Returns:
        A function of (indices int ``[b]``, `numpy.random.Generator`) that returns
        (float32 ``[b, size, size, 3]``, int32 ``[b]``).
    """
    pool = concurrent.futures.ThreadPoolExecutor(
        workers, thread_name_prefix="keras_spos_photo"
    )

    def one(place, index, generator):
        image = read_image(data, index)
        if augment:
            pixels = photo.training_photo(image, generator, size)
        else:
            pixels = photo.evaluation_photo(image, size, short_side)
        place[...] = standardise(pixels, mean, std)

    def make_batch(indices, generator):
        # Each thread writes its images: put together by one, a batch takes longer.
        images = np.empty((len(indices), size, size, 3), np.float32)
        # One generator an image: threads finish in any order.
        for _ in pool.map(one, images, indices, generator.spawn(len(indices))):
            pass
        return images, data.labels[indices].astype(np.int32)

    return make_batch


def read_image(data, index):
    """Returns image `index` of `FileData` or `ArrayData` as an RGB `PIL.Image`."""
    image_module = require("PIL.Image", "pillow")
    if isinstance(data, FileData):
        with image_module.open(data.paths[index]) as image:
            return image.convert("RGB")
    return image_module.fromarray(data.images[index])
