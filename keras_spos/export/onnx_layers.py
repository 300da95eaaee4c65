"""How layers that convolve, pool, pad or multiply are written in ONNX.

A function takes the graph, the layer, its output's Keras shape and its inputs, and
returns the output's ONNX name and the order of its axes (see `onnx_writer.Value`).
"""

import math

import keras
import numpy as np
from keras import layers

from keras_spos.export import (
    onnx_functions,
    onnx_norms,
    onnx_operations,
    onnx_quantized,
    onnx_recurrent,
)
from keras_spos.export.onnx_attention import attention
from keras_spos.export.onnx_functions import UnsupportedLayerError, activate
from keras_spos.layers import PACT, QuantizedConv2D
from keras_spos.quantizers import FLOAT


def _convolution(g, layer, shape, x):
    # Keras: kernel [*size, channels / groups, filters]. ONNX: the last two first.
    kernel = np.moveaxis(keras.ops.convert_to_numpy(layer.kernel), (-1, -2), (0, 1))
    return _convolve(g, layer, shape, x, g.constant(kernel, "kernel"), layer.groups)


def _quantized_convolution(g, layer, shape, x):
    bits = layer.activation_bits
    alpha = None if bits == FLOAT else layer.alpha
    integers = onnx_quantized.computes_in_integers(layer)
    x = onnx_quantized.activations(g, x, alpha, bits, integers)
    kernel = onnx_quantized.weights(g, layer)
    return _convolve(g, layer, shape, x, kernel, layer.groups)


def _pact(g, layer, shape, x):
    if layer.bits == FLOAT:
        return g.add("Relu", [x.name]), x.order
    return onnx_quantized.activations(g, x, layer.alpha, layer.bits).name, x.order


def _depthwise(g, layer, shape, x):
    kernel, channels = _of_each_channel(g, layer.kernel)
    return _convolve(g, layer, shape, x, kernel, channels)


def _of_each_channel(g, kernel):
    # Keras: kernel [*size, channels, multiplier]. ONNX: one group for each channel.
    kernel = keras.ops.convert_to_numpy(kernel)
    channels = kernel.shape[-2]
    kernel = kernel.reshape(*kernel.shape[:-2], 1, -1)
    return g.constant(np.moveaxis(kernel, (-1, -2), (0, 1)), "kernel"), channels


def _separable(g, layer, shape, x):
    """Each channel by itself, then all channels of each pixel."""
    order = _channels_first(layer, x)
    kernel, channels = _of_each_channel(g, layer.depthwise_kernel)
    name = _add_convolution(g, layer, x, order, [kernel], channels)
    kernel = keras.ops.convert_to_numpy(layer.pointwise_kernel)
    kernel = np.moveaxis(kernel, (-1, -2), (0, 1))
    name = g.add("Conv", [name, g.constant(kernel, "kernel"), *_bias(g, layer)])
    return activate(g, layer.activation, name, order), order


def _transposed(g, layer, shape, x):
    # Keras: kernel [*size, filters, channels]. ONNX: the last two first, channels
    # before filters.
    order = _channels_first(layer, x)
    kernel = np.moveaxis(keras.ops.convert_to_numpy(layer.kernel), (-1, -2), (0, 1))
    begins, ends, more = [], [], []
    sizes = layer.kernel_size, layer.strides, layer.dilation_rate
    for axis, k, s, d in zip(order[2:], *sizes, strict=True):
        # Of all that the kernel reaches, Keras cuts the odd one off at the end.
        cut = (x.shape[axis] - 1) * s + (k - 1) * d + 1 - shape[axis]
        begins.append(max(cut, 0) // 2)
        ends.append(max(cut, 0) - begins[-1])
        more.append(max(-cut, 0))
    name = g.add(
        "ConvTranspose",
        [g.arrange(x, order), g.constant(kernel, "kernel"), *_bias(g, layer)],
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
        output_padding=more,
        pads=begins + ends,
    )
    return activate(g, layer.activation, name, order), order


def _convolve(g, layer, shape, x, kernel, groups):
    order = _channels_first(layer, x)
    weights = [kernel, *_bias(g, layer)]
    name = _add_convolution(g, layer, x, order, weights, groups)
    return activate(g, layer.activation, name, order), order


def _add_convolution(g, layer, x, order, weights, groups):
    return g.add(
        "Conv",
        [g.arrange(x, order), *weights],
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
        group=groups,
        pads=_pads(x, order, layer.kernel_size, layer),
    )


def _bias(g, layer):
    return [g.constant(layer.bias, "bias")] if layer.use_bias else []


def _pads(x, order, size, layer):
    """Padding as ONNX wants it: all begins, then all ends."""
    if layer.padding == "valid":
        return [0] * (2 * len(size))
    if layer.padding == "causal":  # Of one axis: nothing of later steps.
        return [(size[0] - 1) * layer.dilation_rate[0], 0]
    begins, ends = [], []
    dilations = getattr(layer, "dilation_rate", [1] * len(size))
    for axis, k, s, d in zip(order[2:], size, layer.strides, dilations, strict=True):
        # As many outputs as strides begin in the input; the odd zero goes to the end.
        count = math.ceil(x.shape[axis] / s)
        total = max((count - 1) * s + (k - 1) * d + 1 - x.shape[axis], 0)
        begins.append(total // 2)
        ends.append(total - total // 2)
    return begins + ends


def _channels_first(layer, x):
    rank = len(x.shape)
    # Layers that repeat steps of sequences have no such attribute.
    if getattr(layer, "data_format", None) == "channels_first":
        return tuple(range(rank))
    return (0, rank - 1, *range(1, rank - 1))


def _pool(op_type, **attributes):
    def write(g, layer, shape, x):
        order = _channels_first(layer, x)
        name = g.add(
            op_type,
            [g.arrange(x, order)],
            kernel_shape=list(layer.pool_size),
            strides=list(layer.strides),
            pads=_pads(x, order, layer.pool_size, layer),
            **attributes,
        )
        return name, order

    return write


def _global_pool(op_type):
    def write(g, layer, shape, x):
        order = _channels_first(layer, x)
        name = g.add(op_type, [g.arrange(x, order)])
        if layer.keepdims:
            return name, order
        return g.add("Flatten", [name], axis=1), range(2)

    return write


def _zero_padding(g, layer, shape, x):
    order = _channels_first(layer, x)
    begins, ends = np.reshape(layer.padding, (-1, 2)).T  # Sequences have one pair.
    pads = g.constant(np.array([0, 0, *begins, 0, 0, *ends]), "pads")
    return g.add("Pad", [g.arrange(x, order), pads]), order


_INTERPOLATIONS = {  # Not "bicubic", for which TensorFlow rounds.
    "bilinear": {"mode": "linear"},
    "nearest": {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
}


def _upsampling(g, layer, shape, x):
    # Of images alone there is a choice.
    interpolation = getattr(layer, "interpolation", "nearest")
    if interpolation not in _INTERPOLATIONS:
        raise UnsupportedLayerError(f"interpolation={interpolation!r}.")
    order = _channels_first(layer, x)
    scales = g.constant(np.array([1.0, 1.0, *np.ravel(layer.size)]), "scales")
    inputs = [g.arrange(x, order), "", scales]
    return g.add("Resize", inputs, **_INTERPOLATIONS[interpolation]), order


def _resizing(g, layer, shape, x, training=None):
    for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        if getattr(layer, name, False):
            raise UnsupportedLayerError(f"{name}=True.")
    if layer.interpolation not in _INTERPOLATIONS:
        raise UnsupportedLayerError(f"interpolation={layer.interpolation!r}.")
    order = _channels_first(layer, x)
    name = g.arrange(x, order)
    # Sizes, as sizes that follow from scales may be one off; the batch's is open.
    begin, end = (g.constant(np.array([i]), "index") for i in (0, 2))
    kept = g.add("Slice", [g.add("Shape", [name]), begin, end])
    size = g.constant(np.array([layer.height, layer.width]), "size")
    sizes = g.add("Concat", [kept, size], axis=0)
    settings = _INTERPOLATIONS[layer.interpolation]
    return g.add("Resize", [name, "", "", sizes], **settings), order


def _embedding(g, layer, shape, x):
    if layer.mask_zero:
        raise UnsupportedLayerError("mask_zero=True.")
    words = g.add("Cast", [g.arrange(x, range(len(x.shape)))], to=7)  # 7 is int64.
    table = g.constant(layer.embeddings, "embeddings")
    return g.add("Gather", [table, words], axis=0), range(len(shape))


def _dense(g, layer, shape, x):
    plain = tuple(range(len(shape)))
    inputs = [g.arrange(x, plain), g.constant(layer.kernel, "kernel")]
    if len(shape) == 2:
        bias = [g.constant(layer.bias, "bias")] if layer.use_bias else []
        name = g.add("Gemm", inputs + bias)
    else:
        name = g.add("MatMul", inputs)
        if layer.use_bias:
            name = g.add("Add", [name, g.constant(layer.bias, "bias")])
    return activate(g, layer.activation, name, plain), plain


WRITERS = {
    **onnx_functions.WRITERS,
    **onnx_norms.WRITERS,
    **onnx_operations.WRITERS,
    **onnx_recurrent.WRITERS,
    PACT: _pact,
    QuantizedConv2D: _quantized_convolution,
    layers.AveragePooling1D: _pool("AveragePool", count_include_pad=0),
    layers.AveragePooling2D: _pool("AveragePool", count_include_pad=0),
    layers.AveragePooling3D: _pool("AveragePool", count_include_pad=0),
    layers.Conv1D: _convolution,
    layers.Conv1DTranspose: _transposed,
    layers.Conv2D: _convolution,
    layers.Conv2DTranspose: _transposed,
    layers.Conv3D: _convolution,
    layers.Conv3DTranspose: _transposed,
    layers.Dense: _dense,
    layers.DepthwiseConv1D: _depthwise,
    layers.DepthwiseConv2D: _depthwise,
    layers.Embedding: _embedding,
    layers.GlobalAveragePooling1D: _global_pool("GlobalAveragePool"),
    layers.GlobalAveragePooling2D: _global_pool("GlobalAveragePool"),
    layers.GlobalAveragePooling3D: _global_pool("GlobalAveragePool"),
    layers.GlobalMaxPooling1D: _global_pool("GlobalMaxPool"),
    layers.GlobalMaxPooling2D: _global_pool("GlobalMaxPool"),
    layers.GlobalMaxPooling3D: _global_pool("GlobalMaxPool"),
    layers.MaxPooling1D: _pool("MaxPool"),
    layers.MaxPooling2D: _pool("MaxPool"),
    layers.MaxPooling3D: _pool("MaxPool"),
    layers.MultiHeadAttention: attention,
    layers.Resizing: _resizing,
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
    layers.UpSampling1D: _upsampling,
    layers.UpSampling2D: _upsampling,
    layers.UpSampling3D: _upsampling,
    layers.ZeroPadding1D: _zero_padding,
    layers.ZeroPadding2D: _zero_padding,
    layers.ZeroPadding3D: _zero_padding,
}
