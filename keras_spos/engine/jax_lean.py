"""What `keras_spos.engine.lean` puts in the place of Keras' own on JAX.

*On CPUs*, a depthwise convolution trains 10 to 28 times as fast as XLA's own (jaxlib
0.10; `benchmarks.depthwise`) where it is a sum of shifted images, one for each weight,

    y[i, j] = sum over a, b of x[s i + a, s j + b] w[a, b]

which compiles to a single loop over the outputs; so is the gradient of x, which is such
a sum over dy. The gradient of w is a sum over the places of the kernel, a row of them
at a time. 1x1 convolutions are products of matrices.

*On GPUs*, the gradient of w alone is not XLA's own. For 16-bit images, XLA tries for
seconds which of cuDNN's ways to that gradient is best, for every shape; in float32 it
tries for half a second. Beyond 3x3, sums of products

    dw[a, b] = sum over i, j of x[s i + a, s j + b] dy[i, j]

are faster than the best of cuDNN's ways: for 7x7 on an H100, 1.7 to 12 times (5x5 was
not measured).
"""

import functools

import jax
import jax.numpy as jnp
import keras
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from keras_spos.engine.lean import Substitutes


def substitutes(jit_compile):
    """What to run in the place of Keras' own layers on this device."""
    device = jax.default_backend()
    if jit_compile and device == "cpu":
        return Substitutes(normalize, multiply, depthwise)
    if jit_compile and device == "gpu":
        return Substitutes(normalize, depthwise=depthwise_on_gpu)
    return Substitutes(normalize)


def is_kept(primitive, *_, **__):
    """Whether what an operation computed is kept for the backward pass.

    Normalizing, activations, shuffles and the like are done again there, which costs no
    more than writing down what they give and reading it. What sums and products give
    is kept: outputs of convolutions and dense layers, statistics of batch norms; so is
    all that is not known to be cheap.
    """
    return primitive.name not in _CHEAP


_CHEAP = frozenset(
    """
    abs add and bitcast_convert_type broadcast_in_dim ceil clamp concatenate
    convert_element_type copy cos custom_jvp_call div dynamic_slice eq erf exp
    expand_dims expm1 floor ge gt integer_pow iota is_finite le log log1p logistic lt
    max min mul ne neg not or pad pow random_bits random_unwrap random_wrap reshape rev
    round rsqrt select_n shift_left shift_right_logical sign sin slice split sqrt square
    squeeze stop_gradient sub tanh threefry2x32 transpose xor
    """.split()
)


def normalize(x, gamma, beta, epsilon):
    """Batch norm of images; see `keras_spos.engine.lean`."""
    return _normalize(epsilon, x, gamma, beta)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize(epsilon, x, gamma, beta):
    return _normalize_forward(epsilon, x, gamma, beta)[0]


def _normalize_forward(epsilon, x, gamma, beta):
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(gamma.dtype)
    mean, variance = keras.ops.moments(wide, axes)
    inverse = 1 / jnp.sqrt(variance + epsilon)
    scale = inverse * gamma
    y = wide * scale + (beta - mean * scale)
    return (y, mean, variance), (x, mean, inverse, gamma)


def _normalize_backward(epsilon, kept, cotangents):
    x, mean, inverse, gamma = kept
    dy, _, _ = cotangents
    axes = tuple(range(x.ndim - 1))
    count = x.size // mean.size
    centred = x.astype(gamma.dtype) - mean
    dy_mean = dy.mean(axes)
    product = (dy * centred).mean(axes)
    dx = inverse * gamma * (dy - dy_mean - centred * (product * inverse * inverse))
    return dx.astype(x.dtype), product * inverse * count, dy_mean * count


_normalize.defvjp(_normalize_forward, _normalize_backward)


def multiply(x, kernel):
    """A 1x1 convolution of images, as a product of matrices."""
    return x @ kernel[0, 0]


def depthwise(x, kernel, stride, padding):
    """A depthwise convolution of images, as a sum of shifted ones."""
    if kernel.shape[-1] > 1 or x.dtype != jnp.float32:
        return _stock(stride, padding, x, kernel)
    y = _shifted(stride, _pads(x, kernel, stride, padding), x, kernel)
    return checkpoint_name(y, "convolution")


def depthwise_on_gpu(x, kernel, stride, padding):
    """A depthwise convolution of images, whose kernel has its own gradient."""
    if kernel.shape[-1] > 1 or x.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        return _stock(stride, padding, x, kernel)
    return _convolved(stride, padding, x, kernel)


def _stock(stride, padding, x, kernel):
    return keras.ops.depthwise_conv(
        x, kernel, stride, padding.lower(), data_format="channels_last"
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolved(stride, padding, x, kernel):
    return _stock(stride, padding, x, kernel)


def _convolved_forward(stride, padding, x, kernel):
    return _stock(stride, padding, x, kernel), (x, kernel)


def _convolved_backward(stride, padding, kept, dy):
    x, kernel = kept
    stock = functools.partial(_stock, stride, padding)
    (dx,) = jax.vjp(lambda x: stock(x, kernel), x)[1](dy)
    wide = [a.astype("float32") for a in (x, kernel, dy)]
    if max(kernel.shape[:2]) > 3:
        pads = _pads(x, kernel, stride, padding)
        dkernel = _sums_of_products(_padded(wide[0], pads), wide[2], kernel, stride)
    else:
        (dkernel,) = jax.vjp(functools.partial(stock, wide[0]), wide[1])[1](wide[2])
    return dx, dkernel.astype(kernel.dtype)


_convolved.defvjp(_convolved_forward, _convolved_backward)


def _sums_of_products(x, dy, kernel, stride):
    """Gradient of a kernel: dy times what each of its places meets, summed."""
    rows, columns = ((n - 1) * stride + 1 for n in dy.shape[1:3])
    sums = [
        (x[:, a : a + rows : stride, b : b + columns : stride] * dy).sum((0, 1, 2))
        for a in range(kernel.shape[0])
        for b in range(kernel.shape[1])
    ]
    return jnp.stack(sums).reshape(kernel.shape)


def _pads(x, kernel, stride, padding):
    """(before, after) of rows and columns."""
    if padding == "VALID":
        return ((0, 0), (0, 0))
    sizes = zip(x.shape[1:3], kernel.shape[:2], strict=True)
    missing = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in sizes]
    return tuple((m // 2, m - m // 2) for m in missing)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _shifted(stride, pads, x, kernel):
    return _sum_of_shifted(_padded(x, pads), kernel[..., 0], stride)


def _shifted_forward(stride, pads, x, kernel):
    return _shifted(stride, pads, x, kernel), (x, kernel)


def _shifted_backward(stride, pads, kept, dy):
    x, kernel = kept
    # With zeros between its rows and columns, and around it such that row n of dx is
    # the sum of rows n, ..., n + k - 1 of it: the kernel, turned, moves over it.
    around = [
        (k - 1 - low, n + low - (m - 1) * stride - 1, stride - 1)
        for n, m, k, (low, _) in zip(
            x.shape[1:3], dy.shape[1:3], kernel.shape[:2], pads, strict=True
        )
    ]
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *around, (0, 0, 0)])
    dx = _sum_of_shifted(spread, kernel[::-1, ::-1, :, 0], 1)
    dkernel = _sum_of_places(_padded(x, pads), dy, kernel.shape[:2], stride)
    return dx, dkernel[..., None]


_shifted.defvjp(_shifted_forward, _shifted_backward)


def _padded(x, pads):
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])


def _sum_of_shifted(x, kernel, stride):
    """The convolution of padded images with a kernel ``[height, width, channels]``."""
    sizes = zip(x.shape[1:3], kernel.shape[:2], strict=True)
    # From the first to the last pixel that a weight may meet.
    rows, columns = (n - k + 1 for n, k in sizes)
    return sum(
        x[:, a : a + rows : stride, b : b + columns : stride] * kernel[a, b]
        for a in range(kernel.shape[0])
        for b in range(kernel.shape[1])
    )


def _sum_of_places(x, dy, shape, stride):
    """Gradient of a kernel ``[height, width]``: dy times what padded images have there.

    Every image has a sum of its own in the loop, so that threads share the images.
    """
    count, height, width, channels = dy.shape
    rows, columns = shape

    def add_row(i, total):
        seen = lax.dynamic_slice_in_dim(x, i * stride, rows, axis=1)
        line = lax.dynamic_slice_in_dim(dy, i, 1, axis=1)
        for j in range(width):
            first = j * stride
            total += seen[:, :, first : first + columns] * line[:, :, j : j + 1]
        return total

    start = jnp.zeros((count, rows, columns, channels), dy.dtype)
    return lax.fori_loop(0, height, add_row, start).sum(0)
