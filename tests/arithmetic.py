"""Layers in numpy, for networks that take nothing but weights from the library.

Convolutions are sums over windows of the padded image.
"""

import keras
import numpy as np


def array(variable):
    return np.array(keras.ops.convert_to_numpy(variable.value))


def relu(x):
    return np.maximum(x, 0)


def windows(x, size, stride):
    """Zero-padded alike on both sides: [n, height, width, size, size, channels]."""
    p = size // 2
    x = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)])
    x = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return x[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


def convolution(x, layer):
    kernel, stride = array(layer.kernel), layer.strides[0]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    sums = "nhwijc,ijcm->nhwc" if depthwise else "nhwijc,ijcd->nhwd"
    return np.einsum(sums, windows(x, kernel.shape[0], stride), kernel)


def norm(x, layer):
    """What a batch norm, with scale and offset or without, gives in inference."""
    x = (x - array(layer.moving_mean)) / np.sqrt(array(layer.moving_variance) + 1e-5)
    x = x * array(layer.gamma) if layer.scale else x
    return x + array(layer.beta) if layer.center else x


def classify(x, net):
    layer = net.get_layer("classifier")
    return x.mean((1, 2)) @ array(layer.kernel) + array(layer.bias)
