"""How layers that normalize are written in ONNX; see `onnx_functions`."""

import numpy as np
from keras import layers, ops
from keras.src.applications import convnext

from keras_spos.export.onnx_functions import UnsupportedLayerError, numbers, reduced


def _batch_norm(g, layer, shape, x):
    axis = layer.axis % len(shape)
    order = (0, axis, *(i for i in range(1, len(shape)) if i != axis))
    size = shape[axis]
    constants = [
        g.constant(layer.gamma if layer.scale else np.ones(size), "gamma"),
        g.constant(layer.beta if layer.center else np.zeros(size), "beta"),
        g.constant(layer.moving_mean, "mean"),
        g.constant(layer.moving_variance, "variance"),
    ]
    inputs = [g.arrange(x, order), *constants]
    return g.add("BatchNormalization", inputs, epsilon=layer.epsilon), order


def _layer_norm(g, layer, shape, x):
    axes = sorted(axis % len(shape) for axis in layer.axis)
    if axes != list(range(axes[0], len(shape))):
        raise UnsupportedLayerError(f"axis={layer.axis}, which are not the last.")
    if layer.rms_scaling:
        raise UnsupportedLayerError("rms_scaling=True.")
    if g.opset < 17:
        raise UnsupportedLayerError(f"it needs opset >= 17. Received: opset={g.opset}.")
    plain = tuple(range(len(shape)))
    size = shape[axes[0] :]
    inputs = [
        g.arrange(x, plain),
        g.constant(layer.gamma if layer.scale else np.ones(size), "gamma"),
        g.constant(layer.beta if layer.center else np.zeros(size), "beta"),
    ]
    name = g.add("LayerNormalization", inputs, axis=axes[0], epsilon=layer.epsilon)
    return name, plain


def _layer_scale(g, layer, shape, x):
    gamma = numbers(layer.gamma, x.order)
    return g.add("Mul", [x.name, g.constant(gamma, "gamma")]), x.order


def _group_norm(g, layer, shape, x):
    """As one "image" of each group, whose pixels are all numbers of the group."""
    if layer.axis < -1:
        raise UnsupportedLayerError(f"axis={layer.axis}.")
    axis = layer.axis % len(shape)
    order = (0, axis, *(i for i in range(1, len(shape)) if i != axis))
    ones, zeros = np.ones(layer.groups), np.zeros(layer.groups)
    grouped = g.constant(np.array([0, layer.groups, -1]), "groups")  # 0: as it is
    name = g.add("Reshape", [g.arrange(x, order), grouped])
    unit = [g.constant(ones, "scale"), g.constant(zeros, "offset")]
    name = g.add("InstanceNormalization", [name, *unit], epsilon=layer.epsilon)
    whole = np.array([0, *(shape[i] for i in order[1:])])
    name = g.add("Reshape", [name, g.constant(whole, "shape")])
    each = (-1, *[1] * (len(shape) - 2))
    for op_type, weight in (("Mul", layer.gamma), ("Add", layer.beta)):
        if weight is not None:
            array = ops.convert_to_numpy(weight).reshape(each)
            name = g.add(op_type, [name, g.constant(array, op_type.lower())])
    return name, order


def _rms_norm(g, layer, shape, x):
    """Written as it is computed: x / sqrt(mean(x^2) + epsilon) * scale."""
    axes = [axis % len(shape) for axis in layer.axis]
    mean = reduced(g, "ReduceMean", g.add("Mul", [x.name, x.name]), x.order, axes, True)
    root = g.add("Sqrt", [g.add("Add", [mean, g.constant(layer.epsilon, "epsilon")])])
    scale = g.constant(numbers(layer.scale, x.order), "scale")
    return g.add("Mul", [g.add("Div", [x.name, root]), scale]), x.order


WRITERS = {
    layers.BatchNormalization: _batch_norm,
    layers.GroupNormalization: _group_norm,
    convnext.LayerScale: _layer_scale,
    layers.LayerNormalization: _layer_norm,
    layers.RMSNormalization: _rms_norm,
}
