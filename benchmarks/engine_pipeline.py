"""Does the input pipeline keep up with training? A part of `benchmarks.engine`."""

import functools
import os
import tempfile
import time

import numpy as np

from benchmarks.engine_models import (
    HEAVIEST,
    Fixed,
    batch_of,
    compiled,
    network,
    path_of,
    seconds_of,
    settle,
    train,
)
from keras_spos.data import decode
from recipes.memory import has_accelerator

SMALL = {"stem_channels": 16, "stage_channels": (32, 64, 128), "head_channels": 256}


def pipeline(args):
    """Images per second that the input pipelines give, and that a step takes."""
    from keras_spos import data

    result = {}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2048, 32, 32, 3)).astype("uint8")
    small = data.ArrayData(images, rng.integers(0, 10, 2048))
    batches = data.training(small, 64, mean=(0.5,) * 3, std=(0.2,) * 3)
    result["32 px, augmented for CIFAR"] = _images_per_second(batches, 64)
    if args.option is None:
        net = compiled(
            network(32, stage_blocks=(2, 3, 2), stem_stride=2, num_classes=10, **SMALL)
        )
        x, y = batch_of(32, 64, classes=10)
        for _ in range(60):
            train(net, x, y)
        seconds = seconds_of(lambda: [train(net, x, y) for _ in range(20)])
        result["32 px, small supernet trains"] = 20 * 64 / seconds
    batch = args.batch if has_accelerator() else 32
    with tempfile.TemporaryDirectory() as folder:
        # Some of each class are held out.
        _write_photos(folder, 4 * batch + 4, copies=10 if has_accelerator() else 1)
        photos = data.image_folder(folder, validation_per_class=1, test_per_class=1)
        batches = data.training(photos.train, batch, augment="imagenet")
        result["224 px, augmented for ImageNet"] = _images_per_second(batches, batch)
        for where in ("host", "device"):
            seconds = _core_seconds(photos.train, where == "device")
            result[f"224 px, one core, finished on the {where}"] = 1 / seconds
        net = compiled(network(224))
        net.sampler = Fixed(path_of(net, HEAVIEST))

        def fit():
            net.fit(batches, epochs=1, verbose=0)
            settle(net)

        fit()
        seconds = seconds_of(fit)
        result["224 px, full supernet in fit"] = len(batches) * batch / seconds
    x, y = batch_of(224, batch)
    times = [seconds_of(train, net, x, y) for _ in range(3)]
    result["224 px, full supernet trains"] = batch / min(times)
    return result


def _images_per_second(batches, size):
    """Of the second epoch: in the first, the processes start."""
    for _ in range(2):
        start = time.perf_counter()
        count = 0
        for batch in batches:
            last = batch[0]
            count += 1
        float(last[0, 0, 0, 0])  # A device may still be at it.
    return count * size / (time.perf_counter() - start)


def _core_seconds(data, on_device, count=100):
    """Of one core, for an image: all of it, or what a device leaves to be done."""
    kind = (224, None, on_device, None, None)
    sources = [str(path) for path in data.paths[:count]]
    with decode._file_in_memory(count * 2**20) as file:
        write = functools.partial(decode.write_photos, file.name, 0, kind)
        times = []
        for _ in range(4):
            # Of this process, whatever others do; the first time, memory is new.
            start = time.process_time()
            write(sources, np.random.SeedSequence(0))
            times.append(time.process_time() - start)
    return min(times[1:]) / count


def _write_photos(folder, count, copies=1):
    """Writes JPEG files of the usual size of ImageNet's photographs.

    A fast device is through with few of them before it has got to its pace; further
    copies are links, which take no time to write.
    """
    import PIL.Image

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        os.makedirs(os.path.join(folder, name))
    for number in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3)).astype("uint8")
        photo = PIL.Image.fromarray(coarse).resize((500, 375))
        path = os.path.join(folder, "ab"[number % 2], str(number))
        photo.save(f"{path}.jpg", quality=95)
        for copy in range(1, copies):
            os.link(f"{path}.jpg", f"{path}_{copy}.jpg")
