"""Photographs of a few kilobytes, for the tests of data."""

import importlib.util
import io

import numpy as np
from PIL import Image

ENGINES = ["pillow"] + ["tf.data"] * bool(importlib.util.find_spec("tensorflow"))


def smooth(height, width, seed=0):
    """An image whose JPEG file is close to it: coarse noise, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, [4, 5, 3], dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image, form="JPEG"):
    file = io.BytesIO()
    image.save(file, form, quality=95)
    return file.getvalue()
