"""Stock layers at less cost than Keras' own way; results are the same.

*Batch norm.* Differentiated operation by operation, Keras' batch norm keeps four
tensors of its input's size for the backward pass. One is enough, the input:

    y = gamma (x - mean) / sqrt(variance + epsilon) + beta
    dx = gamma / sqrt(variance + epsilon)
         * (dy - E[dy] - (x - mean) E[dy (x - mean)] / (variance + epsilon))

(S. Ioffe, C. Szegedy, 2015, section 3). Outputs and statistics are those of Keras.

*1x1 convolutions.* They are products of matrices, and so are their gradients.

*Depthwise convolutions*, *concatenations* and *unstacking in two* compute what they
always do; the backend knows cheaper ways, to them or to their gradients.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import keras
from keras import ops
from keras.src.ops.core import Unstack


@dataclasses.dataclass(frozen=True)
class Substitutes:
    """A backend's functions; None leaves the layers as they are.

    Args:
        normalize: ``f(x, gamma, beta, epsilon)``, which returns y, and mean and
            variance over all axes but the last.
        multiply: ``f(x, kernel)`` for 1x1 convolutions.
        depthwise: ``f(x, kernel, stride, padding)``.
        concatenate: ``f(tensors)`` along the last axis, of known sizes.
        unstack: ``f(x)`` for a last axis of 2.
    """

    normalize: Callable
    multiply: Callable | None = None
    depthwise: Callable | None = None
    concatenate: Callable | None = None
    unstack: Callable | None = None


@contextlib.contextmanager
def lean(operations, substitutes):
    """Inside, stock layers among `operations` run and differentiate as above.

    Args:
        operations: Any layers and operations.
        substitutes: A backend's `Substitutes`.
    """
    replaced = [
        (operation, *found)
        for operation in operations
        if (found := _replacement(operation, substitutes)) is not None
    ]
    try:
        for operation, name, function in replaced:
            # Past Keras' `__setattr__`, which tracks.
            vars(operation)[name] = function
        yield
    finally:
        for operation, name, _ in replaced:
            del vars(operation)[name]


def _replacement(operation, substitutes):
    """(Name of a method, what to put in its place), or None."""
    s = substitutes
    if _is_plain_norm(operation):
        return "call", _norm(operation, s.normalize)
    if s.multiply and _is_pointwise(operation):
        return "convolution_op", s.multiply
    if s.depthwise and _is_plain_depthwise(operation):
        return "call", _depthwise(operation, s.depthwise)
    if s.concatenate and type(operation) is keras.layers.Concatenate:
        return "call", _concatenation(operation, s.concatenate)
    if s.unstack and type(operation) is Unstack:
        return "call", _unstacking(operation, s.unstack)
    return None


def _is_plain_norm(layer):
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.trainable
        and not layer.synchronized
        and not layer.renorm
    )


def _norm(norm, normalize):
    stock = norm.call

    def call(inputs, training=None, mask=None):
        images = len(inputs.shape) == 4 and norm.axis in (-1, 3)
        if not training or mask is not None or not images:
            return stock(inputs, training=training, mask=mask)
        # At least single precision, as in Keras.
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        if dtype != "float32":
            return stock(inputs, training=training)
        shape = (inputs.shape[-1],)
        gamma = ops.cast(norm.gamma, dtype) if norm.scale else ops.ones(shape, dtype)
        beta = ops.cast(norm.beta, dtype) if norm.center else ops.zeros(shape, dtype)
        outputs, mean, variance = normalize(inputs, gamma, beta, norm.epsilon)
        for moving, new in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
            old = ops.cast(ops.convert_to_tensor(moving), dtype)
            moving.assign(old * norm.momentum + new * (1.0 - norm.momentum))
        return ops.cast(outputs, norm.compute_dtype)

    return call


def _is_pointwise(layer):
    return (
        type(layer) is keras.layers.Conv2D
        and (*layer.kernel_size, *layer.strides, layer.groups) == (1,) * 5
        and layer.data_format == "channels_last"
    )


def _is_plain_depthwise(layer):
    return (
        type(layer) is keras.layers.DepthwiseConv2D
        and layer.strides[0] == layer.strides[1]
        and tuple(layer.dilation_rate) == (1, 1)
        and layer.data_format == "channels_last"
        and not layer.use_bias
        and layer.activation is keras.activations.linear
    )


def _depthwise(layer, depthwise):
    stock = layer.call

    def call(inputs):
        if None in inputs.shape[1:]:
            return stock(inputs)
        kernel = ops.convert_to_tensor(layer.kernel)
        return depthwise(inputs, kernel, layer.strides[0], layer.padding.upper())

    return call


def _concatenation(layer, concatenate):
    stock = layer.call

    def call(inputs):
        last = layer.axis in (-1, len(inputs[0].shape) - 1)
        if not last or any(x.shape[-1] is None for x in inputs):
            return stock(inputs)
        return concatenate(inputs)

    return call


def _unstacking(operation, unstack):
    stock = operation.call

    def call(x):
        last = operation.axis in (-1, len(x.shape) - 1) and x.shape[-1] == 2
        if not last or keras.backend.standardize_dtype(x.dtype) != "float32":
            return stock(x)
        return unstack(x)

    return call
