"""Crops and colours of one photograph: by hand, and the same in either engine."""

import io
import itertools
import math

import numpy as np
import pytest
from photos import encode, smooth
from PIL import Image

from keras_spos.data import photo, read


def place(area, log_ratio, top, left):
    """Uniform numbers of which each try is the same."""
    area = (area - 0.08) / 0.92
    ratio = (log_ratio - math.log(3 / 4)) / math.log(16 / 9)
    return np.array([area] * 10 + [ratio] * 10 + [top, left])


def test_crop_box_by_hand():
    # A quarter of 100 x 200 is 5000; square: 70.71; ratio 4/3: 81.65 x 61.24.
    box = photo.crop_box
    assert box(100, 200, place(0.25, 0.0, 0.0, 0.0)) == (0, 0, 71, 71)
    # 30 and 130 are the last places: 100 - 71 = 29, 200 - 71 = 129.
    assert box(100, 200, place(0.25, 0.0, 0.999, 0.999)) == (29, 129, 71, 71)
    assert box(100, 200, place(0.25, math.log(4 / 3), 0.5, 0.5)) == (20, 59, 61, 82)
    # The whole area of 100 x 200 never fits a ratio of 4/3: centred, as wide as legal.
    assert box(100, 200, place(1.0, 0.0, 0.9, 0.9)) == (0, 33, 100, 133)
    assert box(200, 100, place(1.0, 0.0, 0.9, 0.9)) == (33, 0, 133, 100)
    # Where the first try does not fit, the second is taken.
    numbers = place(1.0, 0.0, 0.0, 0.0)
    numbers[1] = place(0.25, 0.0, 0, 0)[0]
    assert box(100, 200, numbers) == (0, 0, 71, 71)


def test_crop_boxes_have_legal_areas_and_ratios():
    generator = np.random.default_rng(0)
    boxes = [photo.crop_box(375, 500, generator.random(22)) for _ in range(2000)]
    top, left, height, width = np.array(boxes).T
    assert (top >= 0).all() and (top + height <= 375).all()
    assert (left >= 0).all() and (left + width <= 500).all()
    area, ratio = height * width / (375 * 500), width / height
    assert 0.078 < area.min() < 0.09 and area.max() > 0.95
    assert 0.74 < ratio.min() < 0.76 and 1.31 < ratio.max() < 1.35
    # Log-uniform: as many are upright as lie, but for those that do not fit.
    assert 0.4 < (ratio[area < 0.4] < 1).mean() < 0.6


def test_colour_jitter_by_hand():
    pixels = np.array([[[100, 50, 200], [0, 0, 0]]], np.float32)

    def jitter(*factors, order=(0, 1, 2)):
        return photo.colour_jitter(pixels, factors, order)

    np.testing.assert_allclose(jitter(1, 1, 1), pixels, rtol=1e-6)
    np.testing.assert_allclose(
        jitter(1.4, 1, 1), [[[140, 70, 255], [0, 0, 0]]], rtol=1e-5
    )
    # Grey: 29.9 + 29.35 + 22.8 = 82.05; its mean over both pixels: 41.025.
    np.testing.assert_allclose(
        jitter(1, 1, 0.5), [[[91.025, 66.025, 141.025], [0, 0, 0]]], rtol=1e-5
    )
    expected = [[[70.5125, 45.5125, 120.5125], [20.5125] * 3]]
    np.testing.assert_allclose(jitter(1, 0.5, 1), expected, rtol=1e-5)
    # The order matters: contrast's grey level comes before or after brightness.
    clipped = jitter(1.4, 0.6, 1, order=(0, 1, 2))
    assert np.abs(clipped - jitter(1.4, 0.6, 1, order=(1, 0, 2))).max() > 5


def test_evaluation_photo_by_hand():
    # 8 x 12 needs no resizing; the centre 4 x 4 starts at row 2, column 4.
    pixels = np.random.default_rng(0).integers(0, 256, [8, 12, 3], dtype=np.uint8)
    result = photo.evaluation_photo(Image.fromarray(pixels), size=4, short_side=8)
    np.testing.assert_array_equal(result, pixels[2:6, 4:8])
    # Halving averages over two pixels and, antialiased, half of the next two.
    image = Image.fromarray(np.full([100, 61, 3], 7, np.uint8))
    result = photo.evaluation_photo(image, size=20, short_side=30)
    assert result.shape == (20, 20, 3) and (result == 7).all()
    # Resized as a whole, this one would take 5 GB.
    image = Image.fromarray(np.full([4, 100_000, 3], 7, np.uint8))
    assert (photo.evaluation_photo(image) == 7).all()
    assert photo.resized_shape(100, 61, 30) == (49, 30)
    assert photo.resized_shape(300, 500, 256) == (256, 426)


def test_what_is_drawn_of_colours():
    drawn = [photo.draw(np.random.default_rng(seed)) for seed in range(400)]
    factors = np.array([one.factors for one in drawn])
    assert (0.6 <= factors).all() and (factors <= 1.4).all()
    assert np.ptp(factors, axis=0).min() > 0.75
    assert len({tuple(one.order) for one in drawn}) == 6


def test_training_photo_mirrors_half_of_the_images():
    ramp = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], 40, axis=0)
    image = Image.fromarray(np.repeat(ramp, 3, axis=2))
    generator = np.random.default_rng(0)
    falls = 0
    for _ in range(300):
        pixels = photo.training_photo(image, generator, size=8)
        assert pixels.shape == (8, 8, 3) and pixels.dtype == np.float32
        assert pixels.min() >= 0 and pixels.max() <= 255
        falls += pixels[4, 0, 0] > pixels[4, -1, 0]
    assert 110 < falls < 190  # standard deviation 9


def resized(crop, size):
    """By Pillow, without rounding to 8 bits."""
    channels = np.moveaxis(crop.astype(np.float32), 2, 0)
    images = [Image.fromarray(channel) for channel in channels]
    bilinear = Image.Resampling.BILINEAR
    return np.stack([np.asarray(i.resize((size, size), bilinear)) for i in images], 2)


def test_a_device_finishes_crops_alike():
    pytest.importorskip("jax")
    from keras_spos.data import photo_jax, pixels

    # Up to two and a half times as large, and smaller; more than are resized at once.
    sizes = [(50, 50), (20, 20), (31, 50), (7, 13), (1, 1), (40, 23)] * 6
    crops = [np.asarray(smooth(*shape, seed)) for seed, shape in enumerate(sizes)]
    orders = np.array(list(itertools.permutations(range(3))) * 6)
    rng = np.random.default_rng(0)
    factors, mirrored = rng.uniform(0.6, 1.4, (36, 3)), rng.random(36) < 0.5
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    whole = [resized(crop, 20) for crop in crops]
    whole = [x[:, ::-1] if m else x for x, m in zip(whole, mirrored, strict=True)]
    expected = [
        photo.colour_jitter(*x) for x in zip(whole, factors, orders, strict=True)
    ]
    assert (np.array(expected) == 255).any(axis=(1, 2, 3)).sum() > 1  # Some clip.
    joined = np.concatenate([crop.reshape(-1) for crop in crops])
    result = [
        photo_jax.finish_crops(
            np.append(joined, rest), sizes, mirrored, factors, orders, 20, mean, std
        )
        for rest in (np.zeros(0, np.uint8), np.full(999, 255, np.uint8))
    ]
    expected = pixels.standardise(np.array(expected), mean, std)
    np.testing.assert_allclose(result[0], expected, atol=1e-4)
    np.testing.assert_array_equal(*result)


def test_a_device_standardises_alike():
    pytest.importorskip("jax")
    from keras_spos.data import photo_jax, pixels

    images = np.stack([np.asarray(smooth(20, 30, seed)) for seed in range(6)])
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    np.testing.assert_allclose(
        photo_jax.standardise(images, mean, std),
        pixels.standardise(images, mean, std),
        atol=1e-5,
    )


def test_a_device_refuses_more_bytes_than_it_can_count():
    pytest.importorskip("jax")
    from keras_spos.data import photo_jax

    pixels = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), [2**31], [0])
    with pytest.raises(ValueError, match=r"2\*\*31 bytes .*2147483648 bytes, 1 crops"):
        photo_jax.finish_crops(pixels, [(1, 1)], [False], [[1, 1, 1]], [[0, 1, 2]])


@pytest.mark.parametrize("as_array", [False, True])
def test_what_is_left_for_a_device(as_array):
    """The crop itself, unless it is large: the same in the end."""
    image = smooth(60, 80)
    image = np.asarray(image) if as_array else image
    shapes = []
    for seed in range(20):
        drawn = photo.draw(np.random.default_rng(seed))
        crop = photo.crop_to_finish(image, drawn, 20)
        assert max(crop.shape) <= 50 and crop.dtype == np.uint8
        box = photo.crop_box(60, 80, drawn.place)
        assert crop.shape[:2] == (box[2:] if max(box[2:]) <= 50 else (20, 20))
        shapes.append(crop.shape)
        done = resized(crop, 20)
        done = done[:, ::-1] if drawn.mirrored else done
        expected = photo.training_crop(image, drawn, 20)
        assert np.abs(done - expected).max() < 1.1  # Rounded twice.
    assert 2 < shapes.count((20, 20, 3)) < 18


def test_decoded_small_there_is_nothing_left_to_resize(tmp_path):
    path = tmp_path / "camera.jpg"
    smooth(600, 800).save(path, quality=95)
    drawn = photo.draw(np.random.default_rng(0))
    image, shape = read.read_image(path, photo.least_to_crop, drawn, 20)
    assert image.size < (800, 600)
    crop = photo.crop_to_finish(image, drawn, 20, shape)
    expected = photo.training_crop(image, drawn._replace(mirrored=False), 20, shape)
    np.testing.assert_array_equal(crop, expected)


# The same in tf.data.


@pytest.fixture(scope="module")
def photo_tf():
    pytest.importorskip("tensorflow")
    from keras_spos.data import photo_tf

    return photo_tf


def test_both_engines_take_the_same_box(photo_tf):
    generator = np.random.default_rng(0)
    for height, width in [(375, 500), (500, 375), (64, 64), (20, 300), (300, 20)]:
        for _ in range(20):
            numbers = generator.random(22)
            box = [int(number) for number in photo_tf.crop_box(height, width, numbers)]
            assert tuple(box) == photo.crop_box(height, width, numbers)


def test_both_engines_jitter_alike(photo_tf):
    import tensorflow as tf

    pixels = np.asarray(smooth(20, 30), np.float32)
    for order in [(0, 1, 2), (2, 1, 0), (1, 2, 0)]:
        factors = np.array([1.3, 0.7, 1.4], np.float32)
        np.testing.assert_allclose(
            photo_tf.colour_jitter(pixels, factors, tf.constant(order)),
            photo.colour_jitter(pixels, factors, order),
            atol=1e-3,
        )


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_both_engines_decode_the_same_crop(photo_tf, form):
    image = smooth(90, 120)
    encoded = encode(image, form)
    numbers = np.random.default_rng(3).random(22)
    top, left, height, width = photo.crop_box(90, 120, numbers)
    expected = Image.open(io.BytesIO(encoded)).convert("RGB")
    expected = np.asarray(expected)[top : top + height, left : left + width]
    result = np.asarray(photo_tf.decode_crop(encoded, numbers)).astype(int)
    assert result.shape == expected.shape
    # Chroma is interpolated from outside the crop only if all of it is decoded.
    assert np.abs(result - expected).max() <= (4 if form == "JPEG" else 0)


def test_tf_data_resizes_no_more_of_a_long_image_than_is_seen(photo_tf):
    encoded = encode(Image.fromarray(np.full([4, 50_000, 3], 7, np.uint8)), "PNG")
    assert (np.asarray(photo_tf.evaluation_photo(encoded)) == 7).all()


@pytest.mark.parametrize("shape", [(90, 120), (120, 90), (70, 70), (48, 500)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_both_engines_evaluate_alike(photo_tf, shape, mode):
    encoded = encode(smooth(*shape).convert(mode))
    expected = photo.evaluation_photo(
        Image.open(io.BytesIO(encoded)).convert("RGB"), size=40, short_side=52
    )
    result = np.asarray(photo_tf.evaluation_photo(encoded, size=40, short_side=52))
    assert result.dtype == np.uint8
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= 2 and difference.mean() < 0.5


def test_large_photographs_are_decoded_small(tmp_path):
    path = tmp_path / "camera.jpg"
    smooth(1200, 1600).save(path, quality=95)
    whole, shape = read.read_image(path)
    assert np.shape(whole) == (1200, 1600, 3) and shape == (1200, 1600)
    sizes, same, mirrored = set(), [], []
    for seed in range(20):
        drawn = photo.draw(np.random.default_rng(seed))
        image, shape = read.read_image(path, photo.least_to_crop, drawn, 40)
        assert shape == (1200, 1600)
        sizes.add(image.size)
        crop = min(photo.crop_box(*shape, drawn.place)[2:]) * image.width / 1600
        # As small as can be: an eighth, or less than twice what is asked for.
        assert crop >= 80 and (image.width == 200 or crop < 160)
        crops = [
            photo.training_crop(i, drawn, 40, shape).astype(int) for i in (image, whole)
        ]
        same.append(np.abs(crops[0] - crops[1]).mean())
        mirrored.append(np.abs(crops[0] - crops[1][:, ::-1]).mean())
    assert len(sizes) > 1
    assert max(same) < 1 and np.mean(mirrored) > 10
    image, _ = read.read_image(path, photo.least_to_evaluate, 64)
    assert image.size == (200, 150)
    results = [photo.evaluation_photo(i, 56, 64).astype(int) for i in (image, whole)]
    assert np.abs(results[0] - results[1]).mean() < 1


def test_photographs_decoded_small_lie_where_they_did(tmp_path):
    # 897 = 112 * 8 + 1: the last pixel of a row is of one pixel of eight.
    path = tmp_path / "camera.jpg"
    smooth(897, 905).save(path, quality=95)
    whole, shape = read.read_image(path)
    small = read.read_image(path, photo.least_to_evaluate, 56)[0]
    assert small.size == (114, 113)
    results = [photo.evaluation_photo(i, 56, 56, shape) for i in (small, whole)]
    assert np.abs(results[0].astype(int) - results[1]).max() < 4
    for seed in range(5):
        drawn = photo.draw(np.random.default_rng(seed))
        results = [photo.training_crop(i, drawn, 40, shape) for i in (small, whole)]
        assert np.abs(results[0].astype(int) - results[1]).max() < 4
