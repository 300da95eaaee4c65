"""How is a photograph augmented? Random resized crop, colour jitter, flip.

The paper's ImageNet recipe (SPOS, released code; torchvision's transforms): a crop of
8 to 100 % of the area and an aspect ratio of 3/4 to 4/3, resized to 224; brightness,
contrast and saturation scaled by 0.6 to 1.4, *in random order*; mirrored with
probability 1/2. Evaluation: short side to 256, centre crop of 224. All resizing is
bilinear with the filter widened when it shrinks (antialiased), as Pillow does it; the
released code evaluates with OpenCV's, which is not.

This is the numpy and Pillow form; `photo_tf` is the same for `tf.data`, `photo_jax`
the end of it for a batch on a device, and tests hold them equal.

Example:
    >>> image = PIL.Image.open("cat.jpg").convert("RGB")
    >>> pixels = training_photo(image, np.random.default_rng(0))  # [224, 224, 3]
"""

import math
import typing

import numpy as np

AREA = (0.08, 1.0)
LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
TRIES = 10
JITTER = 0.4
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, as Pillow's mode "L"


def training_photo(image, generator, size=224):
    """Draws the paper's training augmentation.

    Args:
        image: A `PIL.Image` in mode RGB, or uint8 ``[height, width, 3]``.
        generator: A `numpy.random.Generator`.
        size: Height and width of the result in pixels.

    Returns:
        float32 ``[size, size, 3]``, 0 to 255.
    """
    drawn = draw(generator)
    pixels = training_crop(image, drawn, size)
    return colour_jitter(pixels.astype(np.float32), drawn.factors, drawn.order)


class Drawn(typing.NamedTuple):
    """What is random of one image; see `crop_box` and `colour_jitter`."""

    place: np.ndarray
    factors: np.ndarray
    order: np.ndarray
    mirrored: bool


def draw(generator):
    """Draws what is random of one image."""
    return Drawn(
        place=generator.random(2 * TRIES + 2),
        factors=1 - JITTER + 2 * JITTER * generator.random(3),
        order=generator.permutation(3),
        mirrored=generator.random() < 0.5,
    )


def training_crop(image, drawn, size=224, shape=None):
    """Does all of the training augmentation but the jitter.

    Args:
        image: As in `training_photo`.
        drawn: What `draw` returned.
        size: As in `training_photo`.
        shape: (height, width) of the photograph where `image` is smaller, see
            `least_to_crop`.

    Returns:
        uint8 ``[size, size, 3]``.
    """
    shape = shape or _shape_of(image)
    box = crop_box(*shape, drawn.place)
    if shape == _shape_of(image):
        pixels = _resize(_crop(image, *box), size)
    else:
        pixels = _resize(image, size, _place_when_decoded(image, shape, box))
    return pixels[:, ::-1] if drawn.mirrored else pixels


def crop_to_finish(image, drawn, size=224, shape=None):
    """Does what is left for processors where a device resizes and mirrors.

    Args:
        image: As in `training_crop`.
        drawn: As in `training_crop`.
        size: As in `training_crop`.
        shape: As in `training_crop`.

    Returns:
        uint8 ``[height, width, 3]``: the crop, or if that has more than `most_edge`,
        or `image` is smaller than the photograph, already of `size`.
    """
    shape = shape or _shape_of(image)
    box = crop_box(*shape, drawn.place)
    if shape == _shape_of(image) and max(box[2:]) <= most_edge(size):
        return np.asarray(_crop(image, *box))
    return training_crop(image, drawn._replace(mirrored=False), size, shape)


def most_edge(size=224):
    """How many pixels high or wide a crop may be for a device to resize it."""
    return size * 5 // 2


def least_to_crop(height, width, drawn, size=224):
    """How small a photograph may be decoded for `training_crop`: (height, width).

    JPEG files can be decoded at a half, a quarter or an eighth, each pixel the mean of
    several: in a fraction of the time, for those of a camera. The crop is to be twice
    what it is resized to, so that the filter sees enough.
    """
    _, _, box_height, box_width = crop_box(height, width, drawn.place)
    return 2 * size * height / box_height, 2 * size * width / box_width


def least_to_evaluate(height, width, short_side=256):
    """The same for `evaluation_photo`."""
    scale = 2 * short_side / min(height, width)
    return scale * height, scale * width


def evaluation_photo(image, size=224, short_side=256, shape=None):
    """Resizes the short side and crops the centre.

    Args:
        image: As in `training_photo`.
        size: Height and width of the result in pixels.
        short_side: What the shorter of height and width becomes, at least `size`.
        shape: As in `training_crop`.

    Returns:
        uint8 ``[size, size, 3]``.
    """
    shape = shape or _shape_of(image)
    height, width = resized_shape(*shape, short_side)
    top, left = (height - size) // 2, (width - size) // 2
    down, across = shape[0] / height, shape[1] / width
    # Only what the crop shows is resized: the whole of a long image may be huge.
    box = (top * down, left * across, size * down, size * across)
    return _resize(image, size, _place_when_decoded(image, shape, box))


def resized_shape(height, width, short_side):
    """Returns (height, width) with the shorter one `short_side`, the other floored."""
    short = min(height, width)
    return height * short_side // short, width * short_side // short


def crop_box(height, width, place):
    """Turns uniform numbers into the place of a random resized crop.

    Each try draws an area and an aspect ratio (log-uniform); the first box that fits
    is taken. If none of 10 does, it is the largest central box of a legal ratio.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        place: Uniform in [0, 1), ``[22]``: 10 areas, 10 ratios, top, left.

    Returns:
        (top, left, height, width) in pixels, integers.
    """
    place = np.asarray(place, np.float64)
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * place[:TRIES])
    log_ratio = LOG_RATIO[0] + (LOG_RATIO[1] - LOG_RATIO[0]) * place[TRIES:-2]
    ratio = np.exp(log_ratio)
    widths = np.rint(np.sqrt(area * ratio))
    heights = np.rint(np.sqrt(area / ratio))
    fits = (0 < widths) & (widths <= width) & (0 < heights) & (heights <= height)
    if fits.any():
        first = fits.argmax()
        h, w = int(heights[first]), int(widths[first])
        top, left = place[-2:] * (height - h + 1, width - w + 1)
        return int(top), int(left), h, w
    h = int(min(height, np.rint(width / math.exp(LOG_RATIO[0]))))
    w = int(min(width, np.rint(height * math.exp(LOG_RATIO[1]))))
    return (height - h) // 2, (width - w) // 2, h, w


def colour_jitter(pixels, factors, order):
    """Scales brightness, contrast and saturation about black, mean grey and grey.

        x <- clip(other + factor (x - other), 0, 255)

    Args:
        pixels: float32 ``[height, width, 3]``, 0 to 255.
        factors: Of brightness, contrast and saturation, ``[3]``.
        order: A permutation of 0, 1, 2: which is done first, second, third.

    Returns:
        float32 of the same shape, 0 to 255.
    """
    for step in order:
        if step == 0:
            other = np.float32(0)
        else:
            other = pixels @ np.asarray(GREY, np.float32)
            other = other.mean() if step == 1 else other[..., None]
        factor = np.float32(factors[step])
        pixels = pixels * factor
        pixels += other * (1 - factor)
        np.clip(pixels, 0, 255, out=pixels)
    return pixels


def _shape_of(image):
    """(height, width) of a `PIL.Image` or an array."""
    return image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]


def _crop(image, top, left, height, width):
    if isinstance(image, np.ndarray):
        return image[top : top + height, left : left + width]
    return image.crop((left, top, left + width, top + height))


def _place_when_decoded(image, shape, box):
    """Where (top, left, height, width) lies in an image decoded at 1, 1/2, 1/4, 1/8."""
    # Not the quotient itself: a last row or column that is not whole counts as one.
    scale = 0.5 ** math.ceil(math.log2(max(shape) / max(_shape_of(image))))
    top, left, height, width = (scale * number for number in box)
    return left, top, left + width, top + height


def _resize(image, size, place=None):
    from PIL import Image

    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image = image.resize((size, size), Image.Resampling.BILINEAR, place)
    return np.asarray(image)
