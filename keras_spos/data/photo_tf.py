"""The augmentation of `photo`, for `tf.data`: from encoded bytes to pixels.

Only the cropped part of a JPEG file is decoded. The random numbers are stateless: they
depend on the seed that is passed in, on nothing else.

Example:
    >>> pixels = training_photo(tf.io.read_file("cat.jpg"), seed=[0, 7])
"""

import tensorflow as tf

from keras_spos.data.photo import AREA, GREY, JITTER, LOG_RATIO, TRIES


def training_photo(encoded, seed, size=224):
    """Decodes a random crop and jitters it; see `photo.training_photo`.

    Args:
        encoded: A JPEG or PNG file, scalar string tensor.
        seed: Integer tensor ``[2]``.
        size: Height and width of the result in pixels.

    Returns:
        float32 tensor ``[size, size, 3]``, 0 to 255.
    """
    # 22 for the place, 3 for the factors, 3 for their order, 1 for the flip.
    draws = tf.random.stateless_uniform([2 * TRIES + 9], seed, dtype=tf.float64)
    place, factors, order, flip = tf.split(draws, [2 * TRIES + 2, 3, 3, 1])
    pixels = _resize(decode_crop(encoded, place), size, size)
    factors = tf.cast(1 - JITTER + 2 * JITTER * factors, tf.float32)
    pixels = colour_jitter(pixels, factors, tf.argsort(order))
    pixels = tf.cond(flip[0] < 0.5, lambda: tf.reverse(pixels, [1]), lambda: pixels)
    return tf.ensure_shape(pixels, [size, size, 3])


def evaluation_photo(encoded, size=224, short_side=256):
    """Resizes the short side and crops the centre; see `photo.evaluation_photo`.

    Args:
        encoded: A JPEG or PNG file, scalar string tensor.
        size: Height and width of the result in pixels.
        short_side: What the shorter of height and width becomes.

    Returns:
        uint8 tensor ``[size, size, 3]``, rounded.
    """
    pixels = tf.cast(_decode(encoded), tf.float32)
    shape = tf.shape(pixels)[:2]
    resized = shape * short_side // tf.reduce_min(shape)
    # `tf.image.resize` and a crop, but that only what the crop shows is resized.
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=[size, size],
        scale=tf.cast(resized, tf.float32) / tf.cast(shape, tf.float32),
        translation=-tf.cast((resized - size) // 2, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )[0]
    # Half up, as Pillow rounds; tf.round is half to even.
    pixels = tf.floor(tf.clip_by_value(pixels, 0, 255) + 0.5)
    return tf.ensure_shape(tf.cast(pixels, tf.uint8), [size, size, 3])


def decode_crop(encoded, place):
    """Decodes the crop that `place` (float64 ``[22]``) stands for; uint8."""

    def fused():
        shape = tf.io.extract_jpeg_shape(encoded)
        box = tf.stack(crop_box(shape[0], shape[1], place))
        return tf.io.decode_and_crop_jpeg(
            encoded, box, channels=3, dct_method="INTEGER_ACCURATE"
        )

    def whole():
        pixels = _decode(encoded)
        shape = tf.shape(pixels)
        top, left, height, width = crop_box(shape[0], shape[1], place)
        return pixels[top : top + height, left : left + width]

    return tf.cond(tf.io.is_jpeg(encoded), fused, whole)


def crop_box(height, width, place):
    """Returns (top, left, height, width), int32; see `photo.crop_box`."""
    size = tf.cast(tf.stack([height, width]), tf.float64)
    area = size[0] * size[1] * (AREA[0] + (AREA[1] - AREA[0]) * place[:TRIES])
    log_ratio = LOG_RATIO[0] + (LOG_RATIO[1] - LOG_RATIO[0]) * place[TRIES:-2]
    ratio = tf.exp(log_ratio)
    boxes = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=1)))
    fits = tf.reduce_all((boxes > 0) & (boxes <= size), axis=1)
    first = boxes[tf.argmax(tf.cast(fits, tf.int32))]
    limits = tf.exp(tf.constant(LOG_RATIO, tf.float64))
    widest = tf.round(tf.stack([size[1] / limits[0], size[0] * limits[1]]))
    fallback = tf.minimum(size, widest)
    any_fits = tf.reduce_any(fits)
    box = tf.where(any_fits, first, fallback)
    drawn = tf.floor(place[-2:] * (size - box + 1))
    corner = tf.where(any_fits, drawn, (size - box) // 2)
    return tf.unstack(tf.cast(tf.concat([corner, box], axis=0), tf.int32))


def colour_jitter(pixels, factors, order):
    """Scales brightness, contrast, saturation; see `photo.colour_jitter`."""
    grey = tf.constant(GREY, tf.float32)
    for i in range(3):
        luma = tf.tensordot(pixels, grey, 1)[..., None]
        # Black, mean grey or grey, without a branch: it costs less than tracing one.
        contrast, saturation = tf.unstack(tf.one_hot(order[i] - 1, 2))
        other = contrast * tf.reduce_mean(luma) + saturation * luma
        factor = factors[order[i]]
        pixels = tf.clip_by_value(pixels * factor + other * (1 - factor), 0, 255)
    return pixels


def _decode(encoded):
    def jpeg():
        return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")

    # ImageNet has one PNG file that is named .JPEG.
    return tf.cond(
        tf.io.is_jpeg(encoded), jpeg, lambda: tf.io.decode_png(encoded, channels=3)
    )


def _resize(pixels, height, width):
    return tf.image.resize(pixels, [height, width], "bilinear", antialias=True)
