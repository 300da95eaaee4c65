"""The end of the augmentation of `photo`, for a batch on a device, with JAX.

Colours are a third of what an image costs a core, and 8-bit pixels are a quarter of the
bytes that processes write and that travel to the device.

Example:
    >>> drawn = draw(np.random.default_rng(0))
    >>> pixels = training_crop(image, drawn)
    >>> finish(pixels[None], (drawn.factors[None], drawn.order[None]))
"""

import jax
import jax.numpy as jnp
import numpy as np

from keras_spos.data.photo import GREY
from keras_spos.data.pixels import affine


def finish(images, jitter=None, mean=None, std=None):
    """Jitters the colours of each image, and standardises all.

    Args:
        images: uint8 ``[b, height, width, 3]``.
        jitter: (factors ``[b, 3]``, orders ``[b, 3]``), see `photo.colour_jitter`; None
            for no jitter.
        mean: See `pixels.standardise`.
        std: Likewise.

    Returns:
        float32 JAX array of the same shape. It may still be computed.
    """
    if jitter is None:
        return _standardise(images, *affine(mean, std))
    factors, order = jitter
    factors, order = factors.astype(np.float32), order.astype(np.int32)
    return _jitter_and_standardise(images, factors, order, *affine(mean, std))


@jax.jit
def _standardise(images, scale, shift):
    return images.astype(jnp.float32) * scale + shift


@jax.jit
def _jitter_and_standardise(images, factors, order, scale, shift):
    pixels = colour_jitter(images.astype(jnp.float32), factors, order)
    return _standardise(pixels, scale, shift)


def colour_jitter(pixels, factors, order):
    """Scales brightness, contrast and saturation of each image; see `photo`.

    Args:
        pixels: float32 ``[b, height, width, 3]``, 0 to 255.
        factors: ``[b, 3]``.
        order: ``[b, 3]``.

    Returns:
        float32 of the shape of `pixels`.
    """
    for step in jnp.moveaxis(order, 1, 0)[:, :, None, None, None]:
        # Not a product of matrices, which GPUs round to fewer digits.
        luma = sum(pixels[..., i : i + 1] * GREY[i] for i in range(3))
        mean = luma.mean(axis=(1, 2, 3), keepdims=True)
        other = jnp.where(step == 0, 0, jnp.where(step == 1, mean, luma))
        factor = jnp.take_along_axis(factors[:, None, None], step, axis=3)
        pixels = jnp.clip(pixels * factor + other * (1 - factor), 0, 255)
    return pixels
