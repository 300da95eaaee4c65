"""Checks what is given to `to_int8`, before any of its work.

Example:
    >>> images = calibration_images(dataset.batch(32), model)      # doctest: +SKIP
"""

import warnings

import numpy as np

from keras_spos.graph import check_functional
from keras_spos.layers import PACT, QuantizedConv2D, SearchableLayer

MOST_IMAGES = 1000


def check_model(model, path, training, validation):
    """Refuses what cannot be quantized, trained or measured."""
    if not path.endswith((".tflite", ".onnx")):
        raise ValueError(
            f"Expected a path ending in .tflite or .onnx. Received: {path}"
        )
    if path.endswith(".onnx") and training is not None:
        raise ValueError(
            "Quantization-aware training writes TensorFlow Lite files: pass a path "
            f"that ends in .tflite, or no training. Received: {path}"
        )
    for layer in model._flatten_layers():
        if isinstance(layer, SearchableLayer):
            raise ValueError(
                "Extract a subnet first, to_int8(net.extract(path), ...). "
                f"Received: {model.name!r}, a supernet."
            )
        if isinstance(layer, (PACT, QuantizedConv2D)):
            raise ValueError(
                f"Layer {layer.name!r} is quantized already: export that with to_onnx."
            )
    check_functional(model)
    if len(model.inputs) != 1:
        raise ValueError(
            "Expected a model of one input. Received: "
            f"{model.name!r} of {[tensor.name for tensor in model.inputs]}."
        )
    if len(model.outputs) > 1 and (training is not None or validation is not None):
        raise ValueError(
            "Training and validation are those of a model of one output: pass neither. "
            f"Received: {model.name!r} of {len(model.outputs)} outputs."
        )


def calibration_images(data, model):
    """Representative images as an array.

    Args:
        data: An array of images; or an iterable, such as a generator or a
            `tf.data.Dataset`, of images or batches of them, alone or first in a pair
            with labels. It is read until there are 1,000 images: it may be endless.
        model: A model of one input.
    """
    shape, dtype = tuple(model.inputs[0].shape[1:]), model.inputs[0].dtype
    expected = f"Representative images have shape [n, {shape}]"
    whole = hasattr(data, "__array__") or isinstance(data, (list, tuple))
    if not whole and not hasattr(data, "__iter__"):
        raise ValueError(
            f"{expected}: an array, or an iterable of batches. "
            f"Received: {type(data).__name__}"
        )
    arrays, count = [], 0
    for batch in [data] if whole else data:
        if not whole and isinstance(batch, (list, tuple)):
            batch = batch[0]
        try:
            images = np.asarray(batch)
            array = images.astype(dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{expected}. Received: {type(batch).__name__} ({error})"
            ) from error
        _check_none_is_lost(images, array)
        if not whole and array.shape == shape:
            array = array[None]
        if array.shape[1:] != shape:
            raise ValueError(f"{expected}. Received: {array.shape}")
        arrays.append(array)
        count += len(array)
        if count >= MOST_IMAGES:
            break
    if not count:
        raise ValueError(f"{expected}, n of at least 1. Received: n=0")
    images = np.concatenate(arrays)
    if not np.all(np.isfinite(images)):
        raise ValueError("Expected finite representative images. Received: NaN or inf.")
    if np.array_equal(images, np.broadcast_to(images[0], images.shape)):
        warnings.warn(
            "Expected some hundred different representative images: activations that "
            "are larger on others are clipped. Received: one image, or equal ones.",
            stacklevel=3,
        )
    return images


def labelled_images(pair, model, purpose):
    """A pair of images as the model takes them and of an integer for each output."""
    (given,), (result,) = model.inputs, model.outputs
    classes, inner = result.shape[-1], tuple(result.shape[1:-1])
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        count = f" of {len(pair)}" if isinstance(pair, (list, tuple)) else ""
        raise ValueError(
            f"Expected two arrays for {purpose}, images and labels. "
            f"Received: {type(pair).__name__}{count}"
        )
    if classes < 2:
        raise ValueError(
            "Accuracy is that of the largest of several outputs. Received: outputs of "
            f"shape {result.shape}. Pass no {purpose}."
        )
    x, y = np.asarray(pair[0], given.dtype), np.asarray(pair[1])
    _check_none_is_lost(np.asarray(pair[0]), x)
    if y.shape == (len(x), *inner, 1):
        y = y[..., 0]
    if x.shape[1:] != given.shape[1:] or y.shape != (len(x), *inner) or not len(x):
        each = f", each of shape {inner}" if inner else ""
        raise ValueError(
            f"Expected {purpose} images of shape [n, {given.shape[1:]}] and n integer "
            f"labels{each}. Received: shapes {x.shape} and {y.shape}."
        )
    if not np.all(np.isin(y, np.arange(classes))):
        raise ValueError(
            f"Expected {purpose} labels to be 0 to {classes - 1}. "
            f"Received: {y.min()} to {y.max()}"
        )
    return x, y


def _check_none_is_lost(images, cast):
    """Refuses images that the type does not hold, such as fractions in bytes."""
    if cast.dtype.kind in "iu" and not np.array_equal(cast, images):
        raise ValueError(
            f"Expected images of whole numbers: {cast.dtype} is what the model takes. "
            f"Received: {images.dtype} from {images.min():g} to {images.max():g}"
        )
