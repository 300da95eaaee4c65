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
    _check_ends(data, name)
    parts = [as_input(_first(b, model), model, name) for b in data]
    return concatenated(parts) if parts else np.zeros((0,))


def _first(batch, model):
    """What of a batch, with or without labels, goes into the model."""
    # As in Keras: a list may be several inputs, a tuple has labels.
    several = isinstance(batch, list) and is_input(batch, model)
    return batch[0] if isinstance(batch, (list, tuple)) and not several else batch


def images_and_labels_of(data, model):
    """All validation images and labels; several inputs or outputs keep their structure.

    Args:
        data: A pair (images, labels) of arrays, for a model of several inputs or
            outputs of lists, tuples or dicts of these; or a dataset of such batches.
        model: A Functional or Sequential model.

    Raises:
        ValueError: There is no image, or not a label for each.
    """
    whole = isinstance(data, (tuple, list)) and len(data) == 2
    whole = whole and is_input(_only(data[0]), model)
    _check_ends(data, "validation")
    pairs = [_pair(batch, model) for batch in ([data] if whole else data)]
    if not any(count_of(x) for x, _ in pairs):
        raise ValueError("Scoring needs validation images. Received: none.")
    x, y = pairs[0] if whole else map(concatenated, zip(*pairs, strict=True))
    for part in keras.tree.flatten(y):
        if count_of(x) != len(part):
            raise ValueError(
                "Expected a label for each validation image. Received: "
                f"{count_of(x)} images, {len(part)} labels."
            )
    return x, y


def _check_ends(data, name):
    """Refuses a `tf.data.Dataset` that would be read until no memory is left."""
    # tf.data.INFINITE_CARDINALITY
    if hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise ValueError(
            f"Expected {name} images that end, as all are kept in memory: "
            "dataset.take(batches). Received: a dataset that repeats for ever."
        )


def _pair(batch, model):
    """Images and labels of a batch, as arrays."""
    paired = isinstance(batch, (tuple, list)) and len(batch) > 1
    if not paired or not is_input(_only(batch[0]), model):
        raise ValueError(
            "Expected validation data as (images, labels), two arrays, or as a "
            f"dataset of such batches. Received: a batch of {type(batch).__name__}."
        )
    return as_input(_only(batch[0]), model, "validation"), _as_labels(batch[1], model)


def _only(images):
    """The array of a list of one, which Keras takes for it."""
    listed = isinstance(images, (list, tuple)) and len(images) == 1
    return images[0] if listed else images


def _as_labels(labels, model):
    """Arrays; those of a model of several outputs keep their structure."""
    if len(model.outputs) > 1:
        return keras.tree.map_structure(np.asarray, labels)
    if isinstance(labels, dict) and len(labels) == 1:
        (labels,) = labels.values()
    return np.asarray(labels)


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
    if size is not None and size < 1:
        raise ValueError(f"Expected batch_size >= 1. Received: {size}")
    count = count_of(images)
    size = size or count
    return [rows_of(images, slice(i, i + size)) for i in range(0, count, size)]


def shuffled(images, size):
    """Batches of images in a fixed random order; as they are if one batch suffices.

    Calibration sets are often sorted by class, and a batch of few classes has
    statistics of its own.
    """
    count = count_of(images)
    if size is None or size >= count:
        return [images]
    order = np.random.default_rng(0).permutation(count)
    return [rows_of(images, part) for part in split(order, size)]
