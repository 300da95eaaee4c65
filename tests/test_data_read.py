"""Image files decoded by simplejpeg: the pixels of Pillow, and what is left to it."""

import io

import numpy as np
import pytest
from photos import smooth
from PIL import Image

from keras_spos.data import photo, read

simplejpeg = pytest.importorskip("simplejpeg")

FORMS = {
    "4:2:0": {"subsampling": "4:2:0"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:4:4": {"subsampling": "4:4:4"},
    "progressive": {"progressive": True},
    "coarse": {"quality": 30},
    "grey": {"mode": "L"},
}


def pixels_of(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


@pytest.mark.parametrize("form", FORMS)
def test_pixels_are_those_of_pillow(tmp_path, form):
    options = {"mode": "RGB", "quality": 95} | FORMS[form]
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(-20, 20, (61, 83, 3))
    noisy = np.clip(np.asarray(smooth(61, 83)) + noise, 0, 255).astype(np.uint8)
    image = Image.fromarray(noisy).convert(options.pop("mode"))
    image.save(path, **options)
    result, shape = read.read_image(path)
    assert isinstance(result, np.ndarray) and shape == (61, 83)
    np.testing.assert_array_equal(result, pixels_of(path.read_bytes()))


def test_pillow_reads_what_simplejpeg_does_not(tmp_path):
    cmyk, cut = tmp_path / "cmyk.jpg", tmp_path / "cut.jpg"
    smooth(40, 60).convert("CMYK").save(cmyk)
    result, shape = read.read_image(cmyk)
    assert isinstance(result, Image.Image) and shape == (40, 60)
    np.testing.assert_array_equal(np.asarray(result), pixels_of(cmyk.read_bytes()))
    # 4:2:0 has as many blocks of these 32 x 32 as 4:4:1 has.
    tall = tmp_path / "441.jpg"
    smooth(32, 32).save(tall, subsampling="4:2:0")
    sampling = b"\x03\x01\x22\x00\x02\x11"
    tall.write_bytes(tall.read_bytes().replace(sampling, b"\x03\x01\x14\x00\x02\x11"))
    result, _ = read.read_image(tall)
    assert isinstance(result, Image.Image)
    np.testing.assert_array_equal(np.asarray(result), pixels_of(tall.read_bytes()))
    cut.write_bytes(cmyk.read_bytes()[:300])
    with pytest.raises(OSError, match="Cannot read the image .*cut.jpg: "):
        read.read_image(cut)


def test_who_decodes_smaller(tmp_path):
    """Pillow, and wherever it would: at a half and less."""
    path = tmp_path / "photo.jpg"
    smooth(200, 300).save(path)
    for short_side in (45, 50, 51, 60, 200):
        image, shape = read.read_image(path, photo.least_to_evaluate, short_side)
        assert shape == (200, 300)
        assert isinstance(image, np.ndarray) == (short_side > 50)
        with_pillow, _ = read._with_pillow(
            path.read_bytes(), photo.least_to_evaluate, (short_side,)
        )
        assert np.shape(with_pillow) == np.shape(image)
