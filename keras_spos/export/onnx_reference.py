"""Runs a Keras model layer by layer, to hold an ONNX file against it.

Two things can be done to what passes between layers. What quantizers gave in the file
can take the place of what they give in the model: float32 differs in its last digit
from program to program, so now and then an activation between two levels falls to
either side, and all that follows would differ by far more than that digit. And every
number can be moved a little, which shows how far float32 may move the outputs.

Example:
    >>> outputs, given = run(model, images)                        # doctest: +SKIP
"""

import dataclasses

import keras
import numpy as np
from keras import ops
from keras.src.models.functional import operation_fn

from keras_spos.graph import flatten_inputs, functional, nodes
from keras_spos.layers import PACT, QuantizedConv2D
from keras_spos.quantizers import FLOAT, step


@dataclasses.dataclass(frozen=True)
class Given:
    """What a quantizer of activations was given.

    Attributes:
        layer: The name of its layer.
        x: The activations, before clipping.
        alpha: The upper end of its range.
        step: The distance between two levels.
    """

    layer: str
    x: np.ndarray
    alpha: np.float32
    step: np.float32


def run(model, inputs, levels=(), noise=0.0):
    """Runs a model on a flat list of arrays.

    Args:
        model: A Functional or Sequential model.
        inputs: An array for each of its inputs.
        levels: An array for each of its quantizers of activations, in the order in
            which they run: the levels (0, 1, ...) to go on with, whatever it is given.
        noise: The share of itself by which each number is moved, up or down.

    Returns:
        Its outputs, a flat list of arrays, and a list of `Given`.
    """
    levels, given = iter(levels), []
    rng = np.random.default_rng(0)

    def moved(x):
        if not noise or not keras.backend.is_float_dtype(x.dtype):
            return x
        signs = rng.choice(np.array([-noise, noise], "float32"), x.shape)
        return x * (1 + signs)

    def quantized(layer, x):
        level = next(levels, None)
        if level is None:
            return x
        alpha = ops.convert_to_numpy(layer.alpha.value)
        size = ops.convert_to_numpy(step(layer.alpha.value, bits_of(layer)))
        given.append(Given(layer.name, ops.convert_to_numpy(x), alpha, size))
        # The layer rounds this once more, to itself.
        return ops.convert_to_tensor(level * size, x.dtype)

    def run_graph(model, inputs):
        # Keras casts to the types, and expands to the ranks, that a model declares.
        inputs = model._adjust_input_rank(model._convert_inputs_to_tensors(inputs))
        values = dict(zip((id(t) for t in model.inputs), inputs, strict=True))
        for node in nodes(model):
            operation = functional(node.operation)
            args, kwargs = node.arguments.fill_in(values)
            if hasattr(operation, "_nodes_by_depth"):
                results = run_graph(operation, flatten_inputs(operation, args, kwargs))
            else:
                if bits_of(operation) != FLOAT:
                    args = (quantized(operation, args[0]), *args[1:])
                results = operation_fn(operation, training=False)(*args, **kwargs)
                results = [moved(x) for x in keras.tree.flatten(results)]
            values.update(zip((id(t) for t in node.outputs), results, strict=True))
        return [values[id(t)] for t in model.outputs]

    tensors = [moved(ops.convert_to_tensor(x)) for x in inputs]
    outputs = run_graph(functional(model), tensors)
    return [ops.convert_to_numpy(x) for x in outputs], given


def bits_of(layer):
    """The bit width to which a layer quantizes its input."""
    if isinstance(layer, PACT):
        return layer.bits
    return layer.activation_bits if isinstance(layer, QuantizedConv2D) else FLOAT
