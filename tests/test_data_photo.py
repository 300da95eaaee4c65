import importlib.util
import io
import math
import os
import signal
import struct
import subprocess
import sys
import time
import zlib

import keras
import loky
import numpy as np
import pytest
from PIL import Image

from keras_spos import data
from keras_spos.data import decode, photo

ENGINES = ["pillow"] + ["tf.data"] * bool(importlib.util.find_spec("tensorflow"))


def smooth(height, width, seed=0):
    """An image whose JPEG file is close to it: coarse noise, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, [4, 5, 3], dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image, form="JPEG"):
    file = io.BytesIO()
    image.save(file, form, quality=95)
    return file.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    paths = []
    for i in range(14):
        ending = ".png" if i % 5 == 4 else ".JPEG"
        paths.append(root / f"{i}{ending}")
        smooth(40 + 3 * i, 70 - 2 * i, seed=i).save(paths[-1])
    return data.FileData(paths, np.arange(14) % 2)


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
    assert photo.resized_shape(100, 61, 30) == (49, 30)
    assert photo.resized_shape(300, 500, 256) == (256, 426)


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


# The pipelines over files.


def epoch(train, number):
    train.set_epoch(number)
    return [(np.asarray(x), np.asarray(y)) for x, y in train]


def training(files, engine, **options):
    return data.training(
        files, 4, augment="imagenet", size=24, engine=engine, workers=2, **options
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_epochs_of_files_repeat(files, engine):
    train = training(files, engine)
    forward = [epoch(train, e) for e in range(2)]
    assert [x.shape for x, _ in forward[0]] == [(4, 24, 24, 3)] * 3
    short = training(files, engine, batches_per_epoch=2)
    for again in (epoch(train, 1), epoch(short, 1)):
        for (x, y), (x_again, y_again) in zip(forward[1], again, strict=False):
            np.testing.assert_array_equal(x, x_again)
            np.testing.assert_array_equal(y, y_again)
    assert len(short) == len(again) == 2
    other = epoch(training(files, engine, seed=1), 1)
    for epochs in [(forward[0], forward[1]), (forward[1], other)]:
        assert any((a[0] != b[0]).any() for a, b in zip(*epochs, strict=True))
    if engine == "tf.data":  # Each pass that is begun counts.
        train.set_epoch(0)
        for e in (0, 1):
            for (x, _), (x_expected, _) in zip(train, forward[e], strict=True):
                np.testing.assert_array_equal(x, x_expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_evaluation_of_files(files, engine):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    batches = data.evaluation(
        files, 4, mean=mean, std=std, size=24, short_side=32, engine=engine
    )
    assert len(batches) == 4
    x, y = (
        np.concatenate([np.asarray(part) for part in parts])
        for parts in zip(*batches, strict=True)
    )
    np.testing.assert_array_equal(y, files.labels)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    expected = np.stack(
        [
            photo.evaluation_photo(Image.open(path).convert("RGB"), 24, 32)
            for path in files.paths
        ]
    )
    expected = data.standardise(expected, mean, std)
    assert np.abs(x - expected).max() < 2.1 / 255 / 0.2
    kept = data.in_memory(files, 24, 32, engine=engine)
    assert kept.images.dtype == np.uint8
    np.testing.assert_array_equal(kept.labels, files.labels)
    np.testing.assert_allclose(data.standardise(kept.images, mean, std), x, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_fit_reads_files_by_epoch(files, engine):
    from test_data_stream import SetEpoch, value

    class Watch(keras.layers.Layer):
        """Sums what it has seen, each batch with another weight."""

        def __init__(self):
            super().__init__()
            self.seen = self.add_weight(initializer="zeros", trainable=False)

        def call(self, x, training=False):
            if training:
                self.seen.assign(1.5 * self.seen + keras.ops.mean(x))
            return keras.ops.mean(x, axis=(1, 2))

    train = training(files, engine)
    expected = {}
    for e in range(2):
        expected[e] = 0.0
        for x, _ in epoch(train, e):
            expected[e] = 1.5 * expected[e] + x.mean()

    def fit(initial_epoch):
        watch = Watch()
        model = keras.Sequential([watch, keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=["accuracy"])
        seen = {}
        model.fit(
            train,
            initial_epoch=initial_epoch,
            epochs=2,
            verbose=0,
            callbacks=[
                SetEpoch(train),
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=lambda e, logs: watch.seen.assign(0.0),
                    on_epoch_end=lambda e, logs: seen.update(
                        {e: float(value(watch.seen))}
                    ),
                ),
            ],
        )
        return seen

    whole, resumed = fit(0), fit(1)
    assert whole == pytest.approx(expected, rel=1e-5)
    assert resumed == {1: whole[1]}


def test_arrays_are_augmented_like_photographs():
    images = np.stack([np.asarray(smooth(40, 50, seed=i)) for i in range(8)])
    arrays = data.ArrayData(images, np.arange(8))
    train = data.training(arrays, 4, augment="imagenet", size=24, workers=2)
    (x, _), (again, _) = epoch(train, 1)[0], epoch(train, 1)[0]
    assert x.shape == (4, 24, 24, 3)
    np.testing.assert_array_equal(x, again)


def test_images_do_not_depend_on_who_makes_them(files):
    def first(workers):
        batches = data.training(
            files, 7, 3, "imagenet", size=24, engine="pillow", workers=workers
        )
        return batches[0]

    for a, b in zip(first(1), first(3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_worker_that_was_killed_is_replaced(files):
    make = decode.photo_batches(files, False, 24, 24, None, None, workers=2)
    indices, generator = np.arange(14), np.random.default_rng(0)
    before = make(indices, generator)
    os.kill(next(iter(decode._pool(2)._processes)), signal.SIGKILL)
    with pytest.raises(loky.BrokenProcessPool):
        for _ in range(100):  # It is not noticed at once.
            make(indices, generator)
    for a, b in zip(before, make(indices, generator), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes")
def test_workers_and_files_go_with_a_process_that_is_killed(files, tmp_path):
    script = f"""
import numpy as np
from keras_spos.data import FileData, decode

files = FileData({[str(path) for path in files.paths]!r}, np.zeros(14, int))
make = decode.photo_batches(files, False, 24, 24, None, None, workers=2)
make(np.arange(14), np.random.default_rng(0))
with decode._file_in_memory(1000) as file:
    print(*decode._pool(2)._processes, file.name, flush=True)
    input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        *workers, file = process.stdout.readline().split()
        left = [f"/proc/{worker}" for worker in workers] + [file]
        assert len(left) == 3 and all(os.path.exists(path) for path in left)
        process.kill()
    end = time.monotonic() + 300  # A second is enough where no others run.
    while any(os.path.exists(path) for path in left):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_a_file_that_is_no_image(files, tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("text")
    files = data.FileData([*files.paths, path], [*files.labels, 0])
    batches = data.evaluation(files, 5, size=24, short_side=24, engine="pillow")
    with pytest.raises(OSError, match="Cannot read the image .*text.jpg: cannot ident"):
        list(batches)
    assert len(batches[0][0]) == 5
    for name, form in (("half.jpg", "JPEG"), ("half.png", "PNG")):
        half = tmp_path / name
        encoded = encode(smooth(60, 80), form)
        half.write_bytes(encoded[: len(encoded) // 2])
        with pytest.raises(OSError, match=f"Cannot read the image .*{name}: "):
            decode.read_image(half)
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"):
        decode.read_image(tmp_path / "nowhere.jpg")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_16_bits(tmp_path, channels):
    """Of each number the higher eight bits, in either engine."""
    values = np.random.default_rng(0).integers(0, 2**16, (6, 6, channels))
    path = tmp_path / "deep.png"
    path.write_bytes(png_of_16_bits(values))
    expected = np.broadcast_to(values >> 8, (6, 6, 3))
    np.testing.assert_array_equal(np.asarray(decode.read_image(path)), expected)
    files = data.FileData([path], [0])
    for engine in ENGINES:
        kept = data.in_memory(files, 6, 6, engine=engine, workers=1)
        np.testing.assert_array_equal(kept.images[0], expected)


def png_of_16_bits(values):
    """Written by hand: Pillow writes one channel of them alone."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + checksum.to_bytes(4)

    height, width, channels = values.shape
    colour = {1: 0, 3: 2}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_errors(files):
    with pytest.raises(ValueError, match="augment='cifar' for FileData"):
        data.training(files, 4)
    with pytest.raises(ValueError, match="'dali'"):
        data.training(files, 4, augment="imagenet", engine="dali")
    with pytest.raises(ValueError, match="full batch"):
        data.training(files, 15, augment="imagenet")
    with pytest.raises(ValueError, match="short_side=20, size=24"):
        data.evaluation(files, 4, size=24, short_side=20)
