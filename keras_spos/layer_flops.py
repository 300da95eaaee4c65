"""Multiply-adds of one layer, by its type: a counter for each; a space writes none."""

import math

from keras import layers
from keras.src.ops.nn import DotProductAttention
from keras.src.ops.numpy import Einsum, Matmul


def layer_flops(layer, input_shape, output_shape):
    """Multiply-adds of a layer for one input.

    Args:
        layer: A built layer; an operation without weights, if it is no product of
            tensors, counts as 0.
        input_shape: The shape of what it computes on, its first argument; a list of
            those of several, and of attention's query and value.
        output_shape: The shape of its output; a list of those of several.

    Raises:
        ValueError: The layer's type has no counter, or a size is not fixed.
    """
    for kind in type(layer).__mro__:
        if kind in _FLOPS:
            flops = _FLOPS[kind](layer, input_shape, output_shape)
            if not isinstance(flops, int):
                raise ValueError(
                    "Counting FLOPs needs fixed sizes of all but the batch. "
                    f"Received: layer "
                    f"{layer.name!r} with input shape {input_shape}."
                )
            return flops
    if any(len(w.shape) > 1 for w in getattr(layer, "weights", ())):
        raise _unknown(layer)
    return 0


def _unknown(layer):
    return ValueError(
        f"Don't know how to count the multiply-adds of {type(layer).__name__} "
        f"({layer.name!r}). Register a counter: keras_spos.register_flops(type, "
        "function of (layer, input shape, output shape))."
    )


def register_flops(layer_type, count):
    """Teaches `count_flops` and `flops_table` a layer type.

    Args:
        layer_type: The layer class.
        count: ``count(layer, input_shape, output_shape)``, an integer: multiply-adds
            for one input. Of a list of inputs, or of several outputs, the shapes come
            as a list.
    """
    _FLOPS[layer_type] = count


def _product(sizes):
    """Product of sizes; None if one is not fixed."""
    sizes = list(sizes)
    return None if None in sizes else math.prod(map(int, sizes))


def _times(*factors):
    """Product of numbers, of which one may be None."""
    return None if None in factors else math.prod(factors)


def _positions(layer, shape):
    """Number of positions of a layer's tensor; None if the image size is not fixed."""
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    return _product(shape[2:] if channels_first else shape[1:-1])


def _size(weight):
    return math.prod(weight.shape)


def _kernel(layer, input_shape, output_shape):
    return _times(_positions(layer, output_shape), _size(layer.kernel))


def _transposed(layer, input_shape, output_shape):
    return _times(_positions(layer, input_shape), _size(layer.kernel))


def _separable(layer, input_shape, output_shape):
    kernels = _size(layer.depthwise_kernel) + _size(layer.pointwise_kernel)
    return _times(_positions(layer, output_shape), kernels)


def _recurrent(layer, input_shape, output_shape):
    cell = layer.cell
    return _times(input_shape[1], _size(cell.kernel) + _size(cell.recurrent_kernel))


def _bidirectional(layer, input_shape, output_shape):
    both = [
        layer_flops(x, input_shape, output_shape)
        for x in (layer.forward_layer, layer.backward_layer)
    ]
    return sum(both)


def _einsum(layer, input_shape, output_shape):
    """Every combination of the equation's indices is a multiply-add."""
    given, _, _ = layer.equation.replace(" ", "").partition("->")
    names, kernel_names = given.split(",")
    before, _, after = names.partition("...")
    more = range(len(input_shape) - len(before) - len(after))
    names = [*before, *more, *after]  # Numbers for the axes of the ellipsis.
    sizes = dict(zip(names, input_shape, strict=True))
    sizes |= dict(zip(kernel_names, layer.kernel.shape, strict=True))
    return _product(size for name, size in sizes.items() if name != names[0])


def _attention(layer, input_shapes, output_shape):
    """Projections, the products of each query with each key, and those with values."""
    query_shape, value_shape = input_shapes
    queries, values = _product(query_shape[1:-1]), _product(value_shape[1:-1])
    met = _product(value_shape[axis] for axis in layer.attention_axes)
    if None in (queries, values, met):
        return None
    of_queries = [layer.query_dense, layer.output_dense]
    of_queries += [x] if (x := getattr(layer, "_gate_dense", None)) else []
    projections = queries * sum(_size(dense.kernel) for dense in of_queries)
    projections += values * sum(
        _size(dense.kernel) for dense in (layer.key_dense, layer.value_dense)
    )
    products = layer.num_heads * (layer.key_dim + layer.value_dim)
    return projections + queries * met * products


def _products(layer, input_shapes, output_shape):
    """Attention without projections: of each query with each key, and with values."""
    query_shape, value_shape = input_shapes[:2]
    heads = _product(query_shape[2:-1])  # One, where there is no axis for them.
    sizes = query_shape[-1] + value_shape[-1]
    return _times(query_shape[1], value_shape[1], heads, sizes)


def _dot(layer, input_shapes, output_shape):
    axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return _times(_product(output_shape[1:]), input_shapes[0][axis])


def _matmul(layer, input_shape, output_shape):
    """Each number of the output is a sum over the last axis of the first tensor."""
    return _times(_product(output_shape[1:]), input_shape[-1])


def _einsum_of_tensors(layer, input_shapes, output_shape):
    """Every combination of the indices is a multiply-add, but of the batch."""
    given, _, result = layer.subscripts.partition("->")
    if "," not in given:
        return 0
    if "." in given or not result:
        raise _unknown(layer)
    names = given.replace(",", "")
    sizes = dict(zip(names, sum(map(tuple, input_shapes), ()), strict=True))
    return _product(size for name, size in sizes.items() if name != result[0])


def _nothing(layer, input_shape, output_shape):
    return 0


# A grouped kernel's shape already holds input channels per group.
_FLOPS = {
    DotProductAttention: _products,
    Einsum: _einsum_of_tensors,
    Matmul: _matmul,
    layers.Attention: _products,
    layers.Bidirectional: _bidirectional,
    layers.Conv1D: _kernel,
    layers.Conv1DTranspose: _transposed,
    layers.Conv2D: _kernel,
    layers.Conv2DTranspose: _transposed,
    layers.Conv3D: _kernel,
    layers.Conv3DTranspose: _transposed,
    layers.Dense: _kernel,
    layers.DepthwiseConv1D: _kernel,
    layers.DepthwiseConv2D: _kernel,
    layers.Dot: _dot,
    layers.EinsumDense: _einsum,
    layers.Embedding: _nothing,
    layers.GRU: _recurrent,
    layers.LSTM: _recurrent,
    layers.LayerNormalization: _nothing,
    layers.MultiHeadAttention: _attention,
    layers.PReLU: _nothing,
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
    layers.SimpleRNN: _recurrent,
}
