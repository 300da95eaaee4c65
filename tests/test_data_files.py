"""Photographs from files and arrays: whole epochs, in either engine."""

import os
import signal
import struct
import subprocess
import sys
import time
import types
import weakref
import zlib

import keras
import loky
import numpy as np
import pytest
from photos import ENGINES, encode, smooth
from PIL import Image

from keras_spos import data
from keras_spos.data import decode, feed, photo, read

IS_JAX = keras.config.backend() == "jax"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    paths = []
    for i in range(14):
        ending = ".png" if i % 5 == 4 else ".JPEG"
        paths.append(root / f"{i}{ending}")
        smooth(40 + 3 * i, 70 - 2 * i, seed=i).save(paths[-1])
    return data.FileData(paths, np.arange(14) % 2)


def epoch(train, number):
    train.set_epoch(number)
    return [(np.asarray(x), np.asarray(y)) for x, y in train]


def training(files, engine, **options):
    if engine == "device":
        engine, options = "pillow", options | {"finish_on": "device"}
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


@pytest.mark.parametrize("engine", ENGINES + ["device"] * IS_JAX)
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


def test_images_do_not_depend_on_where_they_are_finished(files):
    if not IS_JAX:
        with pytest.raises(ValueError, match="backend 'tensorflow'"):
            data.evaluation(files, 4, finish_on="device")
        return

    def batches(where, **options):
        options |= {"mean": (0.4,) * 3, "std": (0.2,) * 3, "finish_on": where}
        train = training(files, "pillow", **options)
        held_out = data.evaluation(files, 5, size=24, short_side=28, **options)
        return epoch(train, 1) + list(held_out)

    host, device = batches("host"), batches("device")
    assert len(host) == len(device) == 6
    for (x, y), (x_device, y_device) in zip(host, device, strict=True):
        # The host rounds what it resized, by up to a level; jitter makes more of it.
        atol = 1.4**3 / 255 / 0.2 if len(x) == 4 else 1e-4
        np.testing.assert_allclose(x, x_device, atol=atol)
        assert np.abs(x - x_device).mean() < 0.01
        np.testing.assert_array_equal(y, y_device)
    assert isinstance(host[-1][0], np.ndarray)
    assert not isinstance(device[-1][0], np.ndarray)


def test_batches_of_crops_have_few_lengths():
    """JAX compiles for each."""

    def length(edge):
        sizes = np.full((8, 2), edge)
        with decode._file_in_memory(8 * 3 * edge**2) as file:
            joined, _ = decode._joined(file, [0], [[sizes]])
        return len(joined)

    assert {length(edge) for edge in range(1, 209, 16)} == {2**20}
    assert {length(edge) for edge in range(960, 1000, 10)} == {22 * 2**20, 24 * 2**20}


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


def test_workers_stay_when_their_parent_is_interrupted(files):
    make = decode.photo_batches(files, False, 24, 24, None, None, workers=2)
    indices, generator = np.arange(14), np.random.default_rng(0)
    make(indices, generator)
    workers = list(decode._pool(2)._processes)
    for _ in range(20):
        for worker in workers:
            os.kill(worker, signal.SIGINT)
        make(indices, generator)
    assert list(decode._pool(2)._processes) == workers


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at processes")
def test_workers_and_files_go_with_a_process_that_is_killed(files, tmp_path):
    script = f"""
import numpy as np
from keras_spos.data import FileData, decode

files = FileData({[str(path) for path in files.paths]!r}, np.zeros(14, int))
make = decode.photo_batches(files, False, 24, 24, None, None, workers=2)
make(np.arange(14), np.random.default_rng(0))
with decode._file_in_memory(250) as file:
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


def test_a_batch_outlives_the_file_that_it_was_made_in():
    with decode._file_in_memory(24) as file:
        images = decode._mapped(file, (2, 3), np.dtype("float32"))
        with open(file.name, "r+b") as target:
            target.write(np.arange(6, dtype="float32"))
    assert not os.path.exists(file.name)
    images[0] += 1
    assert images.tolist() == [[1, 2, 3], [3, 4, 5]]


def test_batches_that_are_held_do_not_keep_files_open(files, monkeypatch):
    """Such as those of a validation set, of which an `Evaluator` takes all."""
    monkeypatch.setattr(decode, "_MOST_FILES", 2)
    monkeypatch.setattr(decode, "_files", weakref.WeakSet())
    make = decode.photo_batches(files, False, 24, 24, None, None, workers=2)
    held = [make(np.arange(i, i + 2), np.random.default_rng(0))[0] for i in range(8)]
    assert len(decode._files) == 2
    for first, second in zip(held, held[1:], strict=False):
        np.testing.assert_array_equal(first[1], second[0])
        assert second.flags.writeable
    del held, first, second
    assert not decode._files


def test_a_file_that_is_no_image(files, tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("text")
    files = data.FileData([*files.paths, path], [*files.labels, 0])
    batches = data.evaluation(files, 5, size=24, short_side=24, engine="pillow")
    with pytest.raises(
        OSError, match="Cannot read the image .*text.jpg: cannot identify image file$"
    ):
        list(batches)
    assert len(batches[0][0]) == 5
    for name, form in (("half.jpg", "JPEG"), ("half.png", "PNG")):
        half = tmp_path / name
        encoded = encode(smooth(60, 80), form)
        half.write_bytes(encoded[: len(encoded) // 2])
        with pytest.raises(OSError, match=f"Cannot read the image .*{name}: "):
            read.read_image(half)
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"):
        read.read_image(tmp_path / "nowhere.jpg")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_16_bits(tmp_path, channels):
    """Of each number the higher eight bits, in either engine."""
    values = np.random.default_rng(0).integers(0, 2**16, (6, 6, channels))
    path = tmp_path / "deep.png"
    path.write_bytes(png_of_16_bits(values))
    expected = np.broadcast_to(values >> 8, (6, 6, 3))
    np.testing.assert_array_equal(np.asarray(read.read_image(path)[0]), expected)
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


def test_windows_has_no_processes(files, monkeypatch):
    for module in (decode, feed):
        monkeypatch.setattr(module, "os", types.SimpleNamespace(name="nt"))
    with pytest.raises(OSError, match="Linux or macOS"):
        data.evaluation(files, 4, size=24, engine="pillow")
    pytest.importorskip("tensorflow")
    assert type(data.evaluation(files, 4, size=24)).__name__ == "TensorFlowStream"


def test_errors(files):
    with pytest.raises(ValueError, match="augment='cifar' for FileData"):
        data.training(files, 4)
    with pytest.raises(ValueError, match="'dali'"):
        data.training(files, 4, augment="imagenet", engine="dali")
    with pytest.raises(ValueError, match="full batch"):
        data.training(files, 15, augment="imagenet")
    with pytest.raises(ValueError, match="short_side=20, size=24"):
        data.evaluation(files, 4, size=24, short_side=20)
    with pytest.raises(ValueError, match="finish_on 'host', 'device' or None.*'gpu'"):
        data.training(files, 4, augment="imagenet", finish_on="gpu")
    with pytest.raises(ValueError, match="engine of another kind"):
        data.evaluation(
            data.ArrayData(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int)),
            4,
            finish_on="device",
        )
