"""The same network in tf_keras (Keras 2), which quantization-aware training needs.

Example:
    >>> copy = twin(model)                                         # doctest: +SKIP
    >>> copy(images)  # equals model(images)                       # doctest: +SKIP
"""

import collections
import itertools

import keras
import numpy as np
from keras import layers
from keras.src.ops import core
from keras.src.ops import numpy as functions

from keras_spos.export.tf_keras_layers import (
    PAIRWISE,
    counterparts,
    operation_maker,
    pair_layer,
)
from keras_spos.graph import flatten_inputs, functional, has_own_call, nodes


def twin(model):
    """Builds a stock Functional model again in tf_keras, with the same weights.

    Args:
        model: The model; one input.

    Returns:
        A `tf_keras.Model` that takes float32, even if the model takes bytes. A layer
        that is called twice is two there, each of which can have levels of its own.
        What has no counterpart is a layer `Operation`, which has `moves`: whether it
        hands numbers on as they are.

    Raises:
        ValueError: A layer with weights has no counterpart.
    """
    import tf_keras

    (symbolic,) = model.inputs
    inputs = tf_keras.Input(symbolic.shape[1:], name="image")
    outputs = _outputs(model, [inputs], operation_maker())
    return tf_keras.Model(inputs, outputs)


def _outputs(model, inputs, make):
    """What comes out of a model that tensors of tf_keras go into.

    Args:
        model: A model, or one within it.
        inputs: The tensors.
        make: An `operation_maker`.
    """
    model = functional(model)
    tensors = dict(zip(map(id, model.inputs), inputs, strict=True))
    read = [id(tensor) for node in nodes(model) for tensor in node.input_tensors]
    readers = collections.Counter([*read, *map(id, model.outputs)])
    for node in nodes(model):
        operation = node.operation
        if len(node.outputs) > 1 and _add_slices(node, tensors, make):
            continue
        if isinstance(operation, keras.Model) and not has_own_call(operation):
            given = flatten_inputs(
                functional(operation), node.arguments.args, node.arguments.kwargs
            )
            values = [tensors[id(tensor)] for tensor in given]
            results = _outputs(operation, values, make)
        else:
            values = [tensors[id(tensor)] for tensor in node.input_tensors]
            while len(values) > 2 and type(operation) in PAIRWISE:
                values = [pair_layer(operation)(values[:2]), *values[2:]]
            result = values if len(values) > 1 else values[0]
            alone = readers[id(node.input_tensors[0])] == 1
            for layer, weights in counterparts(node, make, alone):
                result = layer(result)
                layer.set_weights(weights)
            results = [result] if len(node.outputs) == 1 else result
        tensors.update(zip(map(id, node.outputs), results, strict=True))
    return [tensors[id(tensor)] for tensor in model.outputs]


def _add_slices(node, tensors, make):
    """Takes the place of channels that are split, or reshaped and unstacked.

    Returns whether the node is that.
    """
    operation, parts, slices = node.operation, len(node.outputs), None
    source = node.input_tensors[0]
    if type(operation) is functions.Split and operation.axis in (-1, source.ndim - 1):
        ends = np.cumsum([0, *(output.shape[-1] for output in node.outputs)])
        slices = [slice(*pair) for pair in itertools.pairwise(ends)]
    if type(operation) is core.Unstack and operation.axis == -1:
        # Of shape [..., n / parts, parts].
        history = source._keras_history
        before = history.operation._inbound_nodes[history.node_index]
        shape = (*source.shape[:-2], source.shape[-2] * parts)
        if type(history.operation) is layers.Reshape:
            (source,) = before.input_tensors
            if source.shape == shape:
                slices = [slice(start, None, parts) for start in range(parts)]
    if slices is None:
        return False
    for output, part in zip(node.outputs, slices, strict=True):
        take = make(lambda x, part=part: x[..., part], moves=True)
        tensors[id(output)] = take(tensors[id(source)])
    return True


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
