"""What a model is given to see: arrays, one or in the structure of its inputs.

Example:
    >>> images = images_of({"image": x, "mask": m}, net, "training")  # doctest: +SKIP
    >>> [count_of(batch) for batch in split(images, 500)]             # doctest: +SKIP
"""

import keras
import numpy as np


def images_of(data, model, name):
    """All images of arrays, or of a dataset with or without labels.

    Args:
        data: An array ``[n, ...]``; for a model of several inputs a list, tuple or dict
            of these; or a dataset or list of such batches.
        model: A Functional or Sequential model.
        name: What the images are, for messages.

    Returns:
        An array, or arrays in the structure of `data`.
    """
    if is_input(data, model):
        return as_input(data, model, name)
    parts = [as_input(_first(b, model), model, name) for b in batches_of(data)]
    return concatenated(parts) if parts else np.zeros((0,))


def _first(batch, model):
    """What of a batch, with or without labels, goes into the model."""
    # As in Keras: a list may be several inputs, a tuple has labels.
    several = isinstance(batch, list) and is_input(batch, model)
    return batch[0] if isinstance(batch, (list, tuple)) and not several else batch


def is_input(data, model):
    """Whether something is arrays in the structure of a model's inputs."""
    if isinstance(data, (list, tuple)):
        # For a model of one input, a list of arrays is a list of batches.
        return len(model.inputs) > 1 and all(hasattr(x, "shape") for x in data)
    return isinstance(data, dict) or hasattr(data, "shape")


def as_input(data, model, name):
    """Arrays, if they are as many, and of the shapes, that a model takes.

    Of a dict with more than the model's inputs, those.

    Raises:
        ValueError: If they are not, or not equally long.
    """
    images = keras.tree.map_structure(np.asarray, data)
    flat = keras.tree.flatten(images)
    names = [t.name for t in model.inputs]
    if isinstance(images, dict) and set(names) <= set(images):
        # What else is there may have any shape and length.
        images = {name: images[name] for name in names}
        flat = list(images.values())
    if len(flat) != len(names):
        raise ValueError(
            f"Expected {name} images for the inputs {names}. "
            f"Received: {len(flat)} array(s)."
        )
    for array, tensor in zip(flat, model.inputs, strict=True):
        expected = tuple(tensor.shape[1:])
        if not _compatible(array.shape[1:], expected):
            raise ValueError(
                f"Expected {name} images of shape {expected}. "
                f"Received: {array.shape[1:]}."
            )
    if len({len(array) for array in flat}) > 1:
        raise ValueError(
            f"Expected as many {name} images for each of the inputs {names}. "
            f"Received: {[len(array) for array in flat]}."
        )
    return images


def _compatible(shape, expected):
    return len(shape) == len(expected) and all(
        e is None or s == e for s, e in zip(shape, expected, strict=True)
    )


def batches_of(data):
    """Batches of a dataset, or of a list of batches."""
    if isinstance(data, keras.utils.PyDataset):
        return (data[i] for i in range(len(data)))
    return iter(data)


def concatenated(parts):
    """Arrays, or structures of arrays, one after the other."""
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def count_of(images):
    """Number of images in an array, or in each array of a structure."""
    return len(keras.tree.flatten(images)[0])


def rows_of(images, rows):
    """Some images of an array, or of each array of a structure."""
    return keras.tree.map_structure(lambda array: array[rows], images)


def split(images, size):
    """Batches of images; one if `size` is None."""
    count = count_of(images)
    size = size or count
    return [rows_of(images, slice(i, i + size)) for i in range(0, count, size)]


def shuffled(images, size):
    """Batches of images in a fixed random order; as they are if one batch suffices.

    Calibration sets are often sorted by class, and a batch of few classes has
    statistics of its own.
    """
    count = count_of(images)
    if not size or size >= count:
        return [images]
    order = np.random.default_rng(0).permutation(count)
    return [rows_of(images, part) for part in split(order, size)]
