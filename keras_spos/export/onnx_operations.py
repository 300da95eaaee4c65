"""How operations of `keras.ops` are written in ONNX: a function for each of them.

They are in a model's graph where a tensor is sliced, added to, or given to a function
instead of a layer. See `onnx_functions`. Masks are booleans, most often of integers.
"""

import itertools
import math

import keras
import numpy as np
from keras import ops
from keras.src.ops import core, nn
from keras.src.ops import numpy as functions

from keras_spos.export.onnx_functions import (
    UnsupportedLayerError,
    activate,
    align,
    concatenate,
    elu,
    leaky_relu,
    merge,
    reduced,
    reshape,
    slice_,
    softmax,
    take,
)


def _split(g, layer, shape, x):
    """Several outputs: a list."""
    axis = layer.axis % len(x.shape)
    sections = layer.indices_or_sections
    if isinstance(sections, int):
        width = x.shape[axis] // sections
        sections = [width * i for i in range(1, sections)]
    everything = (slice(None),) * axis
    bounds = [0, *sections, x.shape[axis]]
    return [
        slice_(g, layer, shape, x, (*everything, slice(*ends), Ellipsis))
        for ends in itertools.pairwise(bounds)
    ]


def _unstack(g, layer, shape, x):
    """Several outputs: a list."""
    axis = layer.axis % len(x.shape)
    if axis == 0:
        raise UnsupportedLayerError("the batch cannot be taken apart.")
    return [take(g, x.name, x.order, axis, i) for i in range(x.shape[axis])]


def _change_axes(g, layer, shape, x):
    """Axes of size one come or go."""
    if layer.axis is None:
        raise UnsupportedLayerError("a batch of one would go as well.")
    return reshape(g, layer, shape, x)


def _transpose(g, layer, shape, x):
    if not layer.axes or layer.axes[0] != 0:
        raise UnsupportedLayerError("the batch comes first.")
    axes = [axis % len(shape) for axis in layer.axes]
    return x.name, [axes.index(axis) for axis in x.order]


def _product(g, layer, shape, *values):
    """Of matrices, or what an einsum says; some may be numbers."""
    names = [
        g.arrange(value, range(len(value.shape)))
        if hasattr(value, "order")
        else g.constant(np.asarray(ops.convert_to_numpy(value), "float32"), "numbers")
        for value in values
    ]
    einsum = isinstance(layer, functions.Einsum)
    settings = {"equation": layer.subscripts} if einsum else {}
    name = g.add("Einsum" if einsum else "MatMul", names, **settings)
    return name, range(len(shape))


def _of_each(op_type):
    def write(g, layer, shape, x):
        return g.add(op_type, [x.name]), x.order

    return write


def _square(g, layer, shape, x):
    return g.add("Mul", [x.name, x.name]), x.order


def _reduce(op_type):
    def write(g, layer, shape, x):
        axes = [axis % len(x.shape) for axis in layer.axis or [0]]
        if 0 in axes:
            raise UnsupportedLayerError("of all that is in a batch.")
        if getattr(layer, "initial", None) is not None:
            raise UnsupportedLayerError(f"initial={layer.initial}.")
        name = reduced(g, op_type, x.name, x.order, axes, layer.keepdims)
        if layer.keepdims:
            return name, x.order
        left = [axis for axis in x.order if axis not in axes]
        return name, [sorted(left).index(axis) for axis in left]

    return write


def _activation(name):
    def write(g, layer, shape, x):
        return activate(g, keras.activations.get(name), x.name, x.order), x.order

    return write


def _gelu(g, layer, shape, x):
    if not layer.approximate:
        return activate(g, keras.activations.gelu, x.name, x.order), x.order
    # x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
    factors = {"cubic": 0.044715, "scale": (2 / math.pi) ** 0.5, "one": 1.0}
    cubic, scale, one = (g.constant(value, key) for key, value in factors.items())
    square = g.add("Mul", [x.name, x.name])
    inner = g.add("Add", [g.add("Mul", [square, cubic]), one])
    inner = g.add("Mul", [g.add("Mul", [x.name, scale]), inner])
    gate = g.add("Add", [g.add("Tanh", [inner]), one])
    half = g.add("Mul", [x.name, g.constant(0.5, "half")])
    return g.add("Mul", [half, gate]), x.order


def _is_whole(value):
    """Whether a tensor or a number is an integer or a boolean."""
    dtype = getattr(value, "dtype", None) or np.asarray(value).dtype
    dtype = keras.backend.standardize_dtype(dtype)
    return dtype == "bool" or keras.backend.is_int_dtype(dtype)


def _compare(op_type, negate=False):
    def write(g, layer, shape, *values):
        # float32 would take large integers for their neighbours.
        dtype = "int64" if all(map(_is_whole, values)) else "float32"
        names, order = align(g, shape, values, [dtype] * 2)
        name = g.add(op_type, names)
        return g.add("Not", [name]) if negate else name, order

    return write


def _logical(op_type):
    def write(g, layer, shape, *values):
        names, order = align(g, shape, values, ["bool"] * len(values))
        return g.add(op_type, names), order

    return write


def _where(g, layer, shape, condition, *values):
    types = (getattr(value, "dtype", type(value)) for value in values)
    dtype = keras.backend.result_type(*types)
    if dtype != "float32":  # ONNX Runtime chooses from few others.
        raise UnsupportedLayerError(f"a choice of {dtype}.")
    names, order = align(g, shape, [condition, *values], ["bool", dtype, dtype])
    return g.add("Where", names), order


def _cast(g, layer, shape, x):
    return g.cast(x, keras.backend.standardize_dtype(layer.dtype)).name, x.order


# Those that make, or take, masks, and those that only move what they are given.
OF_ANY_TYPE = (
    core.Cast,
    functions.Equal,
    functions.ExpandDims,
    functions.GetItem,
    functions.Greater,
    functions.GreaterEqual,
    functions.Less,
    functions.LessEqual,
    functions.LogicalAnd,
    functions.LogicalNot,
    functions.LogicalOr,
    functions.NotEqual,
    functions.Reshape,
    functions.Squeeze,
    functions.Transpose,
    functions.Where,
)

WRITERS = {
    core.Cast: _cast,
    core.Unstack: _unstack,
    functions.Absolute: _of_each("Abs"),
    functions.Add: merge("Add"),
    functions.Concatenate: concatenate,
    functions.Einsum: _product,
    functions.Equal: _compare("Equal"),
    functions.Exp: _of_each("Exp"),
    functions.ExpandDims: _change_axes,
    functions.GetItem: slice_,
    functions.Greater: _compare("Greater"),
    functions.GreaterEqual: _compare("GreaterOrEqual"),
    functions.Less: _compare("Less"),
    functions.LessEqual: _compare("LessOrEqual"),
    functions.Log: _of_each("Log"),
    functions.LogicalAnd: _logical("And"),
    functions.LogicalNot: _logical("Not"),
    functions.LogicalOr: _logical("Or"),
    functions.Matmul: _product,
    functions.Max: _reduce("ReduceMax"),
    functions.Maximum: merge("Max"),
    functions.Mean: _reduce("ReduceMean"),
    functions.Minimum: merge("Min"),
    functions.Multiply: merge("Mul"),
    functions.Negative: _of_each("Neg"),
    functions.NotEqual: _compare("Equal", negate=True),
    functions.Reshape: reshape,
    functions.Split: _split,
    functions.Sqrt: _of_each("Sqrt"),
    functions.Square: _square,
    functions.Squeeze: _change_axes,
    functions.Subtract: merge("Sub"),
    functions.Sum: _reduce("ReduceSum"),
    functions.Tanh: _activation("tanh"),
    functions.Transpose: _transpose,
    functions.TrueDivide: merge("Div"),
    functions.Where: _where,
    nn.Elu: elu,
    nn.Gelu: _gelu,
    nn.HardSigmoid: _activation("hard_sigmoid"),
    nn.HardSilu: _activation("hard_silu"),
    nn.LeakyRelu: leaky_relu,
    nn.Relu: _activation("relu"),
    nn.Relu6: _activation("relu6"),
    nn.Selu: _activation("selu"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Silu: _activation("silu"),
    nn.Softmax: softmax,
    nn.Softplus: _activation("softplus"),
    nn.Softsign: _activation("softsign"),
}
