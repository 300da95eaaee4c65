"""The same network in tf_keras (Keras 2), which quantization-aware training needs.

Example:
    >>> copy = twin(model)                                         # doctest: +SKIP
    >>> copy(images)  # equals model(images)                       # doctest: +SKIP
"""

import keras
import numpy as np
from keras import layers
from keras.src.ops import core
from keras.src.ops import numpy as functions

from keras_spos.graph import nodes

# What a layer of either Keras is made of; names of layers and arguments are the same.
_COMMON = {
    layers.Activation: ("activation",),
    layers.Add: (),
    layers.AveragePooling2D: ("pool_size", "strides", "padding"),
    layers.BatchNormalization: ("axis", "momentum", "epsilon", "center", "scale"),
    layers.Concatenate: ("axis",),
    layers.Conv2D: (
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "dilation_rate",
        "groups",
        "activation",
        "use_bias",
    ),
    layers.Dense: ("units", "activation", "use_bias"),
    layers.DepthwiseConv2D: (
        "kernel_size",
        "strides",
        "padding",
        "depth_multiplier",
        "dilation_rate",
        "activation",
        "use_bias",
    ),
    layers.Dropout: ("rate",),
    layers.Flatten: (),
    layers.GlobalAveragePooling2D: ("keepdims",),
    layers.MaxPooling2D: ("pool_size", "strides", "padding"),
    layers.Multiply: (),
    layers.ReLU: ("max_value", "negative_slope", "threshold"),
    layers.Reshape: ("target_shape",),
    layers.ZeroPadding2D: ("padding",),
}


def twin(model):
    """Builds a stock Functional model again in tf_keras, with the same weights.

    Args:
        model: The model; one input.

    Returns:
        A `tf_keras.Model`.

    Raises:
        ValueError: A layer has no counterpart.
    """
    import tf_keras

    (symbolic,) = model.inputs
    inputs = tf_keras.Input(symbolic.shape[1:], dtype=symbolic.dtype, name="image")
    tensors = {id(symbolic): inputs}
    made = {}
    for node in nodes(model):
        operation = node.operation
        if type(operation) is core.Unstack:
            _add_slices(node, tensors)
            continue
        if id(operation) not in made:
            made[id(operation)] = _layer(operation, node)
        values = [tensors[id(t)] for t in node.input_tensors]
        new = made[id(operation)]
        output = new(values if len(values) > 1 else values[0])
        if getattr(operation, "weights", ()):
            new.set_weights(operation.get_weights())
        tensors[id(node.outputs[0])] = output
    return tf_keras.Model(inputs, [tensors[id(t)] for t in model.outputs])


def slice_layer():
    """The tf_keras layer that takes a slice, as a class."""
    import tf_keras

    class Slice(tf_keras.layers.Layer):
        """Takes every `step`-th channel from `start`."""

        def __init__(self, start, step, **kwargs):
            super().__init__(**kwargs)
            self.start, self.step = start, step

        def call(self, inputs):
            return inputs[..., self.start :: self.step]

        def get_config(self):
            config = {"start": self.start, "step": self.step}
            return {**super().get_config(), **config}

    return Slice


def _layer(operation, node):
    import tf_keras

    kind = type(operation)
    if kind is functions.GetItem:
        return _slice(node)
    if kind is functions.Add:
        return tf_keras.layers.Add()
    if kind not in _COMMON:
        raise ValueError(
            f"{operation.name!r} is a {kind.__name__}, which has no counterpart here "
            "in tf_keras. Post-training quantization to ONNX (a path that ends in "
            ".onnx) has more."
        )
    config = operation.get_config()
    arguments = {key: config[key] for key in _COMMON[kind]}
    return getattr(tf_keras.layers, kind.__name__)(name=operation.name, **arguments)


def _slice(node):
    key = node.arguments.args[1]
    rest, last = key if isinstance(key, tuple) and len(key) == 2 else (None, key)
    if rest is not Ellipsis or not isinstance(last, slice) or last.stop is not None:
        raise ValueError(f"Expected a slice x[..., start::step]. Received: {key}")
    return slice_layer()(last.start, last.step)


def _add_slices(node, tensors):
    """Takes the place of channels reshaped to ``[..., n / k, k]`` and unstacked."""
    (reshaped,) = node.input_tensors
    history = reshaped._keras_history
    before = history.operation._inbound_nodes[history.node_index]
    if type(history.operation) is not layers.Reshape or node.operation.axis != -1:
        raise ValueError(
            "Expected channels to be reshaped and unstacked. Received: unstack along "
            f"axis {node.operation.axis} of the output of {history.operation.name!r}."
        )
    source = tensors[id(before.input_tensors[0])]
    for start, output in enumerate(node.outputs):
        tensors[id(output)] = slice_layer()(start, len(node.outputs))(source)


def largest_difference(model, copy, images):
    """The largest difference between two models' outputs, as a share of the largest."""
    shares = []
    for expected, found in zip(
        keras.tree.flatten(model(images, training=False)),
        keras.tree.flatten(copy(images, training=False)),
        strict=True,
    ):
        expected = keras.ops.convert_to_numpy(expected)
        largest = np.abs(np.asarray(found) - expected).max()
        shares.append(largest / max(np.abs(expected).max(), 1e-30))
    return float(np.max(shares))
