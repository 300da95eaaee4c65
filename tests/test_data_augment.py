import numpy as np
import pytest

from keras_spos import data
from keras_spos.data.augment import pad_crop_flip, shift_and_flip


def test_standardise_by_hand():
    pixels = np.array([[[0, 51, 255], [255, 102, 0]]], np.uint8)
    mean, std = (0.5, 0.2, 0.0), (0.5, 0.1, 2.0)
    expected = [[[-1, 0, 0.5], [1, 2, 0]]]
    result = data.standardise(pixels, mean, std)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)
    np.testing.assert_allclose(
        data.standardise(pixels), pixels / np.float32(255), rtol=1e-6
    )


def test_statistics_standardise_to_zero_and_one():
    images = np.random.default_rng(0).integers(0, 200, [50, 5, 7, 3], dtype=np.uint8)
    images[..., 1] //= 2
    mean, std = data.channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)))
    result = data.standardise(images, mean, std).astype(np.float64)
    np.testing.assert_allclose(result.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std(axis=(0, 1, 2)), 1, atol=1e-6)


def test_standardise_refuses_nonsense():
    pixels = np.zeros([1, 1, 3], np.uint8)
    with pytest.raises(ValueError, match="three positive standard deviations"):
        data.standardise(pixels, std=(1, 0, 1))
    with pytest.raises(ValueError, match="three means"):
        data.standardise(pixels, mean=(1, 0))


def test_crop_and_flip_by_hand():
    # A 2 x 2 image, padded by 1: rows 0 1 2 3 hold nothing, ab, cd, nothing.
    a, b, c, d = np.arange(1, 13, dtype=np.uint8).reshape(4, 3)
    o = np.zeros(3, np.uint8)
    image = np.array([[a, b], [c, d]])
    cases = [
        (1, 1, False, [[a, b], [c, d]]),  # the image itself
        (1, 1, True, [[b, a], [d, c]]),
        (0, 0, False, [[o, o], [o, a]]),  # up and left: black comes in
        (2, 1, False, [[c, d], [o, o]]),
        (1, 2, False, [[b, o], [d, o]]),
        (1, 2, True, [[o, b], [o, d]]),  # cropped first, then mirrored
    ]
    top, left, flip, expected = zip(*cases, strict=True)
    result = shift_and_flip(
        np.stack([image] * len(cases)),
        np.array(top),
        np.array(left),
        np.array(flip),
        padding=1,
    )
    np.testing.assert_array_equal(result, expected)


def test_crop_and_flip_equals_a_loop_over_images():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, [40, 9, 7, 3], dtype=np.uint8)
    top, left = generator.integers(0, 9, [2, 40])
    flip = generator.random(40) < 0.5
    padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    expected = []
    for i in range(40):
        crop = padded[i, top[i] : top[i] + 9, left[i] : left[i] + 7]
        expected.append(crop[:, ::-1] if flip[i] else crop)
    result = shift_and_flip(images, top, left, flip)
    np.testing.assert_array_equal(result, np.stack(expected))


def test_positions_and_flips_are_uniform():
    # One white pixel in the middle tells where its image went: with padding 2,
    # 5 x 5 places, mirrored or not; the third column is brighter on one side.
    images = np.zeros([5000, 5, 5, 3], np.uint8)
    images[:, 2, 2] = 100
    images[:, 2, 3] = 200
    result = pad_crop_flip(images, np.random.default_rng(0), padding=2)[..., 0]
    n, row, column = np.nonzero(result == 100)
    assert len(n) == 5000  # A shift of 2 never loses the middle.
    places = np.bincount(row * 5 + column, minlength=25)
    assert np.abs(places - 200).max() < 60  # standard deviation 14
    visible = column[(column > 0) & (column < 4)]
    right = (result[n, row, np.minimum(column + 1, 4)] == 200) & (column < 4)
    assert abs(right[(column > 0) & (column < 4)].mean() - 0.5) < 0.05
    assert len(visible) > 2500


def test_black_border_and_type():
    images = np.full([8, 6, 6, 3], 255, np.uint8)
    result = pad_crop_flip(images, np.random.default_rng(2))
    assert result.dtype == np.uint8 and result.shape == images.shape
    assert set(np.unique(result)) == {0, 255}
