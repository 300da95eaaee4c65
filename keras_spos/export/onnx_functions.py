"""How layers without weights are written in ONNX: a function for each layer type.

A function takes the graph, the layer, its output's Keras shape and its inputs, and
returns the output's ONNX name and the order of its axes (see `onnx_writer.Value`), or a
list of these.
"""

import keras
import numpy as np
from keras import layers


class UnsupportedLayerError(ValueError):
    """A model has a layer that the ONNX writer does not know."""


def activation_name(function):
    """The name of one of Keras' activation functions."""
    name = keras.activations.serialize(function)
    # A function of one's own may have the name of one of Keras'.
    known = isinstance(name, str) and getattr(keras.activations, name, None)
    if known is not function:
        raise UnsupportedLayerError(f"activation {name!r}.")
    return name


def activate(g, function, name, order):
    """Applies a Keras activation function."""
    found = activation_name(function)
    if found == "linear":
        return name
    if found == "softmax":
        return g.add("Softmax", [name], axis=list(order).index(len(order) - 1))
    if found == "relu6":
        zero, six = g.constant(0.0, "min"), g.constant(6.0, "max")
        return g.add("Clip", [name, zero, six])
    if found == "silu":
        return g.add("Mul", [name, g.add("Sigmoid", [name])])
    if found == "gelu":
        # x / 2 (1 + erf(x / sqrt(2)))
        scaled = g.add("Mul", [name, g.constant(0.5**0.5, "sqrt")])
        one, half = g.constant(1.0, "one"), g.constant(0.5, "half")
        gate = g.add("Add", [g.add("Erf", [scaled]), one])
        return g.add("Mul", [g.add("Mul", [name, half]), gate])
    if found == "leaky_relu":
        return g.add("LeakyRelu", [name], alpha=0.2)
    if found in ("hard_sigmoid", "hard_silu"):
        gate = g.add("HardSigmoid", [name], alpha=1 / 6, beta=0.5)
        return gate if found == "hard_sigmoid" else g.add("Mul", [name, gate])
    if found not in _ACTIVATIONS:
        raise UnsupportedLayerError(f"activation {found!r}.")
    return g.add(_ACTIVATIONS[found], [name])


_ACTIVATIONS = {
    "elu": "Elu",
    "relu": "Relu",
    "selu": "Selu",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
}


def slice_(g, layer, shape, x, key):
    """Indices and slices of all axes but the batch."""
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in key:
        at = key.index(Ellipsis)
        missing = (slice(None),) * (len(x.shape) - len(key) + 1)
        key = key[:at] + missing + key[at + 1 :]
    rows, indices = [], []
    for axis, item in enumerate(key):
        if item == slice(None):
            continue
        if axis and isinstance(item, (int, np.integer)):
            indices.append((axis, int(item)))
            continue
        if axis == 0 or not isinstance(item, slice) or (item.step or 1) < 0:
            raise UnsupportedLayerError(
                "only indices, and slices with positive steps, not of the batch, can "
                "be taken."
            )
        start, stop, step = item.indices(x.shape[axis])
        rows.append((start, stop, x.order.index(axis), step))
    labels = ("starts", "ends", "axes", "steps")
    columns = [
        g.constant(np.array(column, "int64"), label)
        for column, label in zip(zip(*rows, strict=True), labels, strict=False)
    ]
    name, order = x.name, x.order
    if rows:
        name = g.add("Slice", [name, *columns])
    for axis, index in reversed(indices):  # Axes after one that is gone are others.
        name, order = take(g, name, order, axis, index)
    return name, order


def take(g, name, order, axis, index):
    """One index of an axis of Keras' tensor, which is gone then."""
    inputs = [name, g.constant(index, "index")]
    name = g.add("Gather", inputs, axis=order.index(axis))
    return name, tuple(a - (a > axis) for a in order if a != axis)


def concatenate(g, layer, shape, values):
    """Inputs one after the other, along the layer's axis."""
    order = values[0].order
    names = [g.arrange(value, order) for value in values]
    return g.add("Concat", names, axis=order.index(layer.axis % len(shape))), order


def merge(op_type):
    """The writer of an operator between inputs, of which some may be numbers."""

    def write(g, layer, shape, values, *others):
        values = [*(values if isinstance(values, list) else [values]), *others]
        names, order = align(g, shape, values)
        name = names[0]
        for other in names[1:]:
            name = g.add(op_type, [name, other])
        if isinstance(layer, layers.Average):
            name = g.add("Div", [name, g.constant(float(len(names)), "count")])
        return name, order

    return write


def align(g, shape, values, dtypes=None):
    """Names of inputs, of which some may be numbers, in one order, and that order.

    In the types asked for: float32, int64 or bool.
    """
    dtypes = dtypes or ["float32"] * len(values)
    tensors = [value for value in values if hasattr(value, "order")]
    if any(len(tensor.shape) != len(shape) for tensor in tensors):
        raise UnsupportedLayerError("inputs of different rank.")
    # The first input that is not as Keras has it has likely been convolved.
    plain = tuple(range(len(shape)))
    order = next((t.order for t in tensors if t.order != plain), plain)
    names = [
        g.arrange(g.cast(value, dtype), order)
        if hasattr(value, "order")
        else g.constant(numbers(value, order, dtype), "numbers")
        for value, dtype in zip(values, dtypes, strict=True)
    ]
    return names, order


def reduced(g, op_type, name, order, axes, keepdims):
    """A mean, maximum or sum over axes of Keras' tensor."""
    at = [order.index(axis) for axis in axes]
    keep = {"keepdims": int(keepdims)}
    if g.opset >= 18 or op_type == "ReduceSum":
        return g.add(op_type, [name, g.constant(np.array(at), "axes")], **keep)
    return g.add(op_type, [name], axes=at, **keep)


def numbers(value, order, dtype="float32"):
    """One number, or an array that is broadcast as Keras does, such as positions."""
    array = np.asarray(keras.ops.convert_to_numpy(value), dtype)
    if not array.ndim:
        return array
    rank = len(order)
    return array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(order)


def _rescale(g, layer, shape, x):
    if np.ndim(layer.scale) and keras.config.image_data_format() == "channels_first":
        raise UnsupportedLayerError("a scale of each channel, which come first.")
    scale, offset = (numbers(value, x.order) for value in (layer.scale, layer.offset))
    name = g.add("Cast", [x.name], to=1)  # 1 is float32.
    name = g.add("Mul", [name, g.constant(scale, "scale")])
    return g.add("Add", [name, g.constant(offset, "offset")]), x.order


def _normalize(g, layer, shape, x):
    """(x - mean) / deviation, or back: x * deviation + mean, per channel or in all."""
    mean, variance = (
        keras.ops.convert_to_numpy(value).astype("float32").transpose(x.order)
        for value in (layer.mean, layer.variance)
    )
    deviation = np.maximum(np.sqrt(variance), np.float32(keras.config.epsilon()))
    mean, deviation = g.constant(mean, "mean"), g.constant(deviation, "deviation")
    name = g.add("Cast", [x.name], to=1)  # 1 is float32.
    if layer.invert:
        return g.add("Add", [g.add("Mul", [name, deviation]), mean]), x.order
    return g.add("Div", [g.add("Sub", [name, mean]), deviation]), x.order


def _flatten(g, layer, shape, x):
    rank = len(x.shape)
    order = tuple(range(rank))
    if layer.data_format == "channels_first" and rank > 1:
        order = (0, *range(2, rank), 1)  # Keras flattens with the channels last.
    return g.add("Flatten", [g.arrange(x, order)], axis=1), range(2)


def reshape(g, layer, shape, x):
    """To the shape of the output."""
    # Leading axes that stay may stay behind: [n, h, w, c] to [n, h, w, g, c / g] is
    # [n, c, h, w] to [n, g, c / g, h, w], the channel shuffle without a Transpose.
    kept = 1
    if x.order != tuple(range(len(x.shape))):
        shortest = min(len(shape), len(x.shape)) - 1
        while kept < shortest and shape[kept] == x.shape[kept]:
            kept += 1
    behind = range(1, kept)
    name = g.arrange(x, (0, *range(kept, len(x.shape)), *behind))
    order = (0, *range(kept, len(shape)), *behind)
    target = np.array([0, *(shape[axis] for axis in order[1:])])  # 0: as it is
    return g.add("Reshape", [name, g.constant(target, "shape")]), order


def _permute(g, layer, shape, x):
    moved = (0, *layer.dims)
    return x.name, [moved.index(axis) for axis in x.order]


def _relu(g, layer, shape, x):
    name = x.name
    slope, top = float(layer.negative_slope), layer.max_value
    if layer.threshold:
        raise UnsupportedLayerError(f"threshold={layer.threshold}.")
    if slope:
        name = g.add("LeakyRelu", [name], alpha=slope)
    elif top is None:
        name = g.add("Relu", [name])
    if top is not None:
        bottom = "" if slope else g.constant(0.0, "min")
        name = g.add("Clip", [name, bottom, g.constant(float(top), "max")])
    return name, x.order


def elu(g, layer, shape, x):
    """ELU with the layer's slope."""
    return g.add("Elu", [x.name], alpha=float(layer.alpha)), x.order


def leaky_relu(g, layer, shape, x):
    """ReLU with the layer's slope of negative numbers."""
    return g.add("LeakyRelu", [x.name], alpha=float(layer.negative_slope)), x.order


def _prelu(g, layer, shape, x):
    # One slope for each element of an image, or for all along some axes.
    slopes = keras.ops.convert_to_numpy(layer.alpha)[None]
    slopes = g.constant(slopes.transpose(x.order), "slopes")
    return g.add("PRelu", [x.name, slopes]), x.order


def _crop(g, layer, shape, x):
    # Sequences have no such attribute, and one pair instead of a list of them.
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    sizes = x.shape[2:] if channels_first else x.shape[1:-1]
    pairs = np.reshape(layer.cropping, (-1, 2)).tolist()
    ends = [
        slice(first, size - last)
        for (first, last), size in zip(pairs, sizes, strict=True)
    ]
    if channels_first:
        ends = [slice(None), *ends]
    return slice_(g, layer, shape, x, (slice(None), *ends, Ellipsis))


def _activation(g, layer, shape, x):
    function = layer.activation
    return activate(g, function, x.name, x.order), x.order


def softmax(g, layer, shape, x):
    """Softmax along the layer's axis."""
    if not isinstance(layer.axis, int):
        raise UnsupportedLayerError(f"axis={layer.axis}.")
    axis = x.order.index(layer.axis % len(shape))
    return g.add("Softmax", [x.name], axis=axis), x.order


def _identity(g, layer, shape, x):
    return x.name, x.order


def _augmentation(g, layer, shape, x, training=None):
    # Keras notes in the graph that they train, their default; a model that does not
    # train tells them so.
    return x.name, x.order


# Layers that do nothing outside of training. Which of them there are depends on Keras'
# version. Not RandomCrop: outside of training it takes the middle.
_AUGMENTATIONS = (
    *("AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness"),
    *("RandomColorDegeneration", "RandomColorJitter", "RandomContrast"),
    *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur"),
    *("RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective"),
    *("RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
    *("RandomShear", "RandomTranslation", "RandomZoom"),
)

WRITERS = {
    **{
        getattr(layers, name): _augmentation
        for name in _AUGMENTATIONS
        if hasattr(layers, name)
    },
    layers.Activation: _activation,
    layers.ActivityRegularization: _identity,
    layers.Add: merge("Add"),
    layers.AlphaDropout: _identity,
    layers.Average: merge("Add"),
    layers.Concatenate: concatenate,
    layers.Cropping1D: _crop,
    layers.Cropping2D: _crop,
    layers.Cropping3D: _crop,
    layers.Dropout: _identity,
    layers.ELU: elu,
    layers.Flatten: _flatten,
    layers.GaussianDropout: _identity,
    layers.GaussianNoise: _identity,
    layers.Identity: _identity,
    layers.LeakyReLU: leaky_relu,
    layers.Maximum: merge("Max"),
    layers.Minimum: merge("Min"),
    layers.Multiply: merge("Mul"),
    layers.Normalization: _normalize,
    layers.PReLU: _prelu,
    layers.Permute: _permute,
    layers.ReLU: _relu,
    layers.Rescaling: _rescale,
    layers.Reshape: reshape,
    layers.Softmax: softmax,
    layers.SpatialDropout1D: _identity,
    layers.SpatialDropout2D: _identity,
    layers.SpatialDropout3D: _identity,
    layers.Subtract: merge("Sub"),
}
