"""How do image files become batches? With Pillow, in processes.

Of more than a few threads, each waits most of the time for Python's lock. Processes
write what they made into a file in memory, which the batch then is.
"""

import concurrent.futures
import contextlib
import functools
import math
import mmap
import os
import pickle
import shutil
import sys
import tempfile
import threading
import time
import weakref

import numpy as np

from keras_spos.data import photo, pixels
from keras_spos.data.sets import FileData
from keras_spos.optional import require

_IDLE_SECONDS = 60
_starting = threading.Lock()
# Files that batches are. Each is open, of which a process may have some hundred.
_MOST_FILES = 16
_files = weakref.WeakSet()


def photo_batches(data, augment, size, short_side, mean, std, workers, on_device=False):
    """Returns a `make_batch` for `stream.Stream`.

    Args:
        data: `FileData`, or `ArrayData` to be treated like photographs.
        augment: Whether to draw the training augmentation.
        size: Height and width of the result in pixels.
        short_side: For evaluation, see `photo.evaluation_photo`.
        mean: Three channel means as fractions of 255, or None.
        std: Three standard deviations, likewise.
        workers: How many processes work on a batch; None is one a core.
        on_device: Whether JAX's device does the jitter and standardises.

    Returns:
        A function of (indices int ``[b]``, `numpy.random.Generator`) that returns
        (float32 ``[b, size, size, 3]``, int32 ``[b]``); the images are a JAX array if
        they were `on_device`.
    """
    if os.name == "nt":
        raise OSError(
            "Processes share what they write here through an open file, which Windows "
            "does not open twice. Expected Linux or macOS (on Windows: WSL), or "
            "engine='tf.data'."
        )
    loky = require("loky")
    require("PIL.Image", "pillow")
    write = _ByValue(write_photos, photo, pixels)
    workers = workers or loky.cpu_count()
    kind = (size, None if augment else short_side, not on_device, mean, std)
    dtype = np.uint8 if on_device else np.float32

    def make_batch(indices, generator):
        sources = _sources(data, indices)
        seed = generator.bit_generator.seed_seq
        # Few tasks and small ones: what they cost this process, training waits for.
        step = -(-len(indices) // workers)
        shape = (len(indices), size, size, 3)
        memory = _images_in_memory(shape, dtype)
        with memory as (images, file), _pool_of(workers) as pool:
            tasks = [
                pool.submit(
                    write,
                    *(file, start * images[0].nbytes, kind),
                    *(sources[start : start + step], _seed_from(seed, start)),
                )
                for start in range(0, len(indices), step)
            ]
            concurrent.futures.wait(tasks)
            jitters = [task.result() for task in tasks]
            if len(_files) > _MOST_FILES:
                images = images.copy()
        if on_device:
            from keras_spos.data import photo_jax

            parts = zip(*jitters, strict=True) if augment else ()
            jitter = [np.concatenate(part) for part in parts] or None
            images = photo_jax.finish(images, jitter, mean, std)
        return images, data.labels[indices].astype(np.int32)

    return make_batch


def _seed_from(seed, start):
    """A `numpy.random.SeedSequence` whose children are those of one from `start` on."""
    return np.random.SeedSequence(
        seed.entropy,
        spawn_key=seed.spawn_key,
        pool_size=seed.pool_size,
        n_children_spawned=seed.n_children_spawned + start,
    )


def write_photos(file, start, kind, sources, seed):
    """Makes some images of a batch, in a process of its own.

    Args:
        file: The file that the batch is made in, ``[b, size, size, 3]``.
        start: Where in the file the first one begins, in bytes.
        kind: Height and width in pixels; None, or the short side for evaluation;
            whether to jitter and standardise, to float32, or to leave that, at uint8;
            means; standard deviations.
        sources: See `read_image`.
        seed: A `numpy.random.SeedSequence`, which has a child for each: they are made
            in any order.

    Returns:
        (factors ``[n, 3]``, orders ``[n, 3]``) of their jitter; None in evaluation.
    """
    size, short_side, is_finished, mean, std = kind
    jitters = []
    with open(file, "r+b") as target:
        target.seek(start)
        for source, child in zip(sources, seed.spawn(len(sources)), strict=True):
            if short_side is None:
                drawn = photo.draw(np.random.default_rng(child))
                image, shape = read_image(source, photo.least_to_crop, drawn, size)
                made = photo.training_crop(image, drawn, size, shape)
                jitters.append((drawn.factors, drawn.order))
            else:
                least = photo.least_to_evaluate
                image, shape = read_image(source, least, short_side)
                made = photo.evaluation_photo(image, size, short_side, shape)
            if is_finished and short_side is None:
                made = photo.colour_jitter(made.astype(np.float32), *jitters[-1])
            if is_finished:
                made = pixels.standardise(made, mean, std)
            target.write(np.ascontiguousarray(made))
    if short_side is None:
        return tuple(np.array(part) for part in zip(*jitters, strict=True))


def read_image(source, least=None, *arguments):
    """Reads an image.

    Args:
        source: A file's path, or a uint8 array.
        least: A function of a height, a width and the `arguments` that tells how small
            a file may be decoded, see `photo.least_to_crop`; None for its own size.
        *arguments: See `least`.

    Returns:
        An RGB `PIL.Image`, and the (height, width) that it has in the file.
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        return Image.fromarray(source), source.shape[:2]
    try:
        with Image.open(source) as image:
            shape = (image.height, image.width)
            if least is not None:
                height, width = least(*shape, *arguments)
                image.draft(None, (math.ceil(width), math.ceil(height)))
            image.load()
            if image.mode.startswith("I"):  # 16 bits, which `convert` clips at 255.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return (image if image.mode == "RGB" else image.convert("RGB")), shape
    except FileNotFoundError:
        raise
    # Pillow raises nearly anything, and most of it does not name the file.
    except Exception as error:
        raise OSError(f"Cannot read the image {source}: {error}") from error


def _sources(data, indices):
    if isinstance(data, FileData):
        return [str(data.paths[i]) for i in indices]
    return [data.images[i] for i in indices]


@contextlib.contextmanager
def _pool_of(workers):
    """Processes that all streams share, and others from then on if one is killed."""
    import loky

    with _starting:
        pool = _pool(workers)
    try:
        yield pool
    except loky.BrokenProcessPool:
        _pool.cache_clear()
        raise


@functools.cache
def _pool(workers):
    # Unlike Python's own, it needs no `if __name__ == "__main__"` in a script.
    import loky

    # What an image needs is given back and asked for again otherwise, page by page.
    env = {"MALLOC_TOP_PAD_": str(2**26), "OPENBLAS_NUM_THREADS": "1"}
    return loky.ProcessPoolExecutor(
        workers,
        timeout=_IDLE_SECONDS,
        env=env,
        initializer=_ByValue(leave_with),
        initargs=(os.getpid(),),
    )


def leave_with(parent):
    """Ends this process soon after its parent, which may have been killed."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _ByValue:
    """A function, with what it calls in some modules, as other processes take it.

    They need not import this library, and Keras with it.
    """

    def __init__(self, function, *modules):
        cloudpickle = require("cloudpickle", "loky")
        modules = (sys.modules[function.__module__], *modules)
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        self.function = function
        self.pickled = cloudpickle.dumps(function)
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)

    def __call__(self, *args):
        return self.function(*args)

    def __reduce__(self):
        return pickle.loads, (self.pickled,)


@contextlib.contextmanager
def _images_in_memory(shape, dtype=np.float32):
    """(array, file name): an array that other processes write to by the file.

    The array outlives the file. Without room in memory, as in a container, it is on
    disk.
    """
    from loky.backend import resource_tracker

    size = np.dtype(dtype).itemsize * math.prod(shape)
    folder = "/dev/shm"  # Of Linux alone.
    if not os.path.isdir(folder) or shutil.disk_usage(folder).free < 4 * size:
        folder = None
    with tempfile.NamedTemporaryFile(dir=folder, prefix="keras_spos_") as file:
        # Which deletes it if this process is killed.
        resource_tracker.register(file.name, "file")
        try:
            file.truncate(size)
            mapped = mmap.mmap(file.fileno(), size)
            _files.add(mapped)
            yield np.frombuffer(mapped, dtype).reshape(shape), file.name
        finally:
            resource_tracker.unregister(file.name, "file")
