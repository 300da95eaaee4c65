"""How do 8-bit pixels become the network's numbers? Standardised per channel.

    x = (pixel / 255 - mean) / std

Example:
    >>> mean, std = channel_statistics(images)
    >>> standardise(images, mean, std).mean(axis=(0, 1, 2))  # 0, 0, 0
"""

import numpy as np

# Of the ImageNet training set, as MixPath's released code has them. (SPOS's takes
# pixels as they are, in the order BGR.)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def standardise(images, mean=None, std=None):
    """Standardises 0..255 pixels per channel.

    Args:
        images: ``[..., height, width, 3]``, uint8 or float, 0 to 255.
        mean: Three channel means as fractions of 255; None is 0.
        std: Three standard deviations, likewise; None is 1.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: If `mean` or `std` are not three numbers, or a `std` is not
            positive.
    """
    scale, shift = affine(mean, std)
    images = np.asarray(images)
    # Rows of width * 3 numbers: numpy is 4 to 8 times slower on an inner axis of 3.
    width = images.shape[-2]
    rows = images.reshape(*images.shape[:-2], width * 3)
    result = np.multiply(rows, np.tile(scale, width), dtype=np.float32)
    result += np.tile(shift, width)
    return result.reshape(images.shape)


def affine(mean=None, std=None):
    """Returns (scale, shift), float32 ``[3]``: x = pixel * scale + shift."""
    mean = np.zeros(3) if mean is None else np.asarray(mean, np.float64)
    std = np.ones(3) if std is None else np.asarray(std, np.float64)
    if mean.shape != (3,) or std.shape != (3,) or not (std > 0).all():
        raise ValueError(
            "Expected three means and three positive standard deviations, as "
            f"fractions of 255. Received: mean={mean}, std={std}"
        )
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def channel_statistics(images):
    """Computes the exact channel means and standard deviations.

    Args:
        images: uint8 ``[n, height, width, 3]``.

    Returns:
        (mean, std): two tuples of three floats, as fractions of 255.
    """
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(3):
        # A histogram needs no floating-point copy of the whole set.
        counts = np.bincount(images[..., channel].reshape(-1), minlength=256)
        weights = counts / counts.sum()
        centre = (weights * values).sum()
        mean.append(float(centre))
        std.append(float(np.sqrt((weights * (values - centre) ** 2).sum())))
    return tuple(mean), tuple(std)
