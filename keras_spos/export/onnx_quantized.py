"""How quantized activations and weights are written in ONNX.

Where a runtime may compute with integers and get what Keras does, activations go
through QuantizeLinear and DequantizeLinear, and weights are stored as integers. ONNX
Runtime rounds float weights and biases between such nodes to integers of its own; so
with weights of 8 bits or more, or a bias, activations are rounded by plain operators.
"""

import dataclasses

import numpy as np
from keras import ops

from keras_spos.quantizers import FLOAT, dorefa, step

# The levels of k bits are 2 m - n over n, m = 0 to n = 2^k - 1: odd integers, which 8
# bits hold up to here.
_MOST_BITS = 7


def activations(g, x, alpha, bits, integers=True):
    """Writes PACT: clip to [0, alpha], round to a multiple of alpha / (2^k - 1)."""
    if bits == FLOAT:
        return x
    ends = [g.constant(0.0, "min"), g.constant(alpha, "alpha")]
    name = g.add("Clip", [x.name, *ends])
    scale = g.constant(ops.convert_to_numpy(step(alpha.value, bits)), "scale")
    if integers:
        ends = [scale, g.constant(np.uint8(0), "zero")]
        levels = g.add("QuantizeLinear", [name, *ends])
        name = g.add("DequantizeLinear", [levels, *ends])
    else:
        levels = g.add("Round", [g.add("Div", [name, scale])])
        name = g.add("Mul", [levels, scale])
    g.levels.append(dataclasses.replace(x, name=levels))
    return dataclasses.replace(x, name=name)


def computes_in_integers(layer):
    """Whether a `QuantizedConv2D` may be computed with integers."""
    return layer.weight_bits <= _MOST_BITS and not layer.use_bias


def weights(g, layer):
    """Writes a quantized kernel, output channels first, and returns its name."""
    quantized = ops.convert_to_numpy(dorefa(layer.kernel, layer.weight_bits))
    quantized = np.moveaxis(quantized, (-1, -2), (0, 1))
    if layer.weight_bits > _MOST_BITS:
        return g.constant(quantized, "kernel")
    scale = np.float32(1 / (2**layer.weight_bits - 1))
    if layer.weight_bits == 1:
        scale = np.abs(quantized).max()
    ends = [g.constant(scale, "kernel_scale"), g.constant(np.int8(0), "kernel_zero")]
    levels = np.round(quantized / scale).astype("int8")
    return g.add("DequantizeLinear", [g.constant(levels, "kernel"), *ends])
