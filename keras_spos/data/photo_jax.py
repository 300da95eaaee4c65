"""The end of the augmentation of `photo`, for a batch on a device, with JAX.

It is half of what an image costs a core, or more where simplejpeg decodes. Crops have
more pixels than what they are resized to, but of 8 bits.

Example:
    >>> drawn = [draw(np.random.default_rng(seed)) for seed in range(2)]
    >>> crops = [crop_to_finish(image, one) for one in drawn]
    >>> pixels = np.concatenate([crop.reshape(-1) for crop in crops])
    >>> sizes = [crop.shape[:2] for crop in crops]
    >>> _, factors, orders, mirrored = zip(*drawn)
    >>> finish_crops(pixels, sizes, mirrored, factors, orders)  # [2, 224, 224, 3]
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from keras_spos.data.photo import GREY, most_edge
from keras_spos.data.pixels import affine

# Crops that are resized at once: 120 MB, at 224 px.
_AT_ONCE = 32


def finish_crops(
    pixels, sizes, mirrored, factors, orders, size=224, mean=None, std=None
):
    """Resizes crops, mirrors them, jitters their colours and standardises them.

    Args:
        pixels: uint8 ``[n]``: the crops, one after the other; what follows is not used.
        sizes: Height and width of each crop, ``[b, 2]``, at most `photo.most_edge`.
        mirrored: Whether to mirror it, ``[b]``.
        factors: Of its `photo.colour_jitter`, ``[b, 3]``.
        orders: Likewise.
        size: Height and width of the result in pixels.
        mean: See `pixels.standardise`.
        std: Likewise.

    Returns:
        float32 JAX array ``[b, size, size, 3]``. It may still be computed.

    Raises:
        ValueError: If there are 2 GB or more of crops.
    """
    if len(pixels) >= 2**31:
        raise ValueError(
            "Expected a batch of crops of less than 2**31 bytes in all, or "
            f"finish_on='host'. Received: {len(pixels)} bytes, {len(sizes)} crops"
        )
    sizes = np.asarray(sizes, np.int32)
    lengths = 3 * sizes.prod(axis=1, dtype=np.int64)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    return _finish_crops(
        *(pixels, starts, sizes, np.asarray(mirrored)),
        *(np.asarray(factors, np.float32), np.asarray(orders, np.int32)),
        *affine(mean, std),
        size=size,
    )


def standardise(images, mean=None, std=None):
    """Standardises uint8 ``[b, height, width, 3]``; see `pixels.standardise`."""
    return _standardise(images, *affine(mean, std))


@functools.partial(jax.jit, static_argnames="size")
def _finish_crops(
    pixels, starts, sizes, mirrored, factors, orders, scale, shift, *, size
):
    def resized(crop):
        return _resize(pixels, *crop, size)

    images = jax.lax.map(resized, (starts, sizes, mirrored), batch_size=_AT_ONCE)
    return _standardise(colour_jitter(images, factors, orders), scale, shift)


@jax.jit
def _standardise(images, scale, shift):
    return images.astype(jnp.float32) * scale + shift


def _resize(pixels, start, shape, is_mirrored, size):
    """Resizes the crop that begins at `start`: bilinear, antialiased, as Pillow does.

    Both ways are products with matrices, which are what devices are best at.
    """
    edge = most_edge(size)
    rows, columns = (_weights(length, edge, size) for length in shape)
    columns = jnp.where(is_mirrored, columns[::-1], columns)
    row_starts = start + 3 * shape[1] * jnp.arange(edge)
    # What is not of the crop has no weight.
    crop = pixels.at[row_starts[:, None] + jnp.arange(3 * edge)].get(mode="clip")
    crop = crop.reshape(edge, edge, 3).astype(jnp.float32)
    return jnp.einsum("ih,hwc,jw->ijc", rows, crop, columns)


def _weights(length, edge, size):
    """Of the first `length` of `edge` pixels in each of `size`: ``[size, edge]``."""
    scale = length / size
    centres = (jnp.arange(size) + 0.5) * scale
    distances = jnp.abs(jnp.arange(edge) + 0.5 - centres[:, None])
    weights = jnp.maximum(1 - distances / jnp.maximum(scale, 1), 0)
    weights = jnp.where(jnp.arange(edge) < length, weights, 0)
    return weights / weights.sum(axis=1, keepdims=True)


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
