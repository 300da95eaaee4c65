"""How do image files become batches? In processes.

Of more than a few threads, each waits most of the time for Python's lock. Processes
write what they made into a file in memory: the batch itself, or the crops of which a
device makes it.
"""

import concurrent.futures
import contextlib
import functools
import math
import mmap
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import weakref

import numpy as np

from keras_spos.data import photo, pixels, read
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
        on_device: Whether JAX's device resizes and mirrors the crops, does the jitter
            and standardises.

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
    write = _ByValue(write_photos, photo, pixels, read)
    workers = workers or loky.cpu_count()
    kind = (size, None if augment else short_side, on_device, mean, std)
    are_crops = on_device and augment
    dtype = np.dtype(np.uint8 if on_device else np.float32)
    # In the file, an image has as much room as it may need; none is taken but for what
    # is written.
    edge = photo.most_edge(size) if are_crops else size
    room = dtype.itemsize * 3 * edge**2

    def make_batch(indices, generator):
        sources = _sources(data, indices)
        seed = generator.bit_generator.seed_seq
        # Few tasks and small ones: what they cost this process, training waits for.
        step = -(-len(indices) // workers)
        starts = range(0, len(indices), step)
        labels = data.labels[indices].astype(np.int32)
        with _file_in_memory(len(indices) * room) as file, _pool_of(workers) as pool:
            tasks = [
                pool.submit(
                    write,
                    *(file.name, start * room, kind),
                    *(sources[start : start + step], _seed_from(seed, start)),
                )
                for start in starts
            ]
            concurrent.futures.wait(tasks)
            drawn = [task.result() for task in tasks]
            if are_crops:
                made = _joined(file, [start * room for start in starts], drawn)
            else:
                made = _mapped(file, (len(indices), size, size, 3), dtype)
        if on_device:
            from keras_spos.data import photo_jax

            if are_crops:
                made = photo_jax.finish_crops(*made, size, mean, std)
            else:
                made = photo_jax.standardise(made, mean, std)
        return made, labels

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
        file: The name of the file that the batch is made in.
        start: Where in the file the first one begins, in bytes; the next ones follow.
        kind: Height and width in pixels; None, or the short side for evaluation;
            whether a device does the rest, from uint8, or all is done here, to float32;
            means; standard deviations.
        sources: See `read.read_image`.
        seed: A `numpy.random.SeedSequence`, which has a child for each: they are made
            in any order.

    Returns:
        What a device needs to finish crops, see `photo_jax.finish_crops`: sizes,
        mirrored, factors and orders; None if it need not.
    """
    drawn = []
    with open(file, "r+b") as target:
        target.seek(start)
        for source, child in zip(sources, seed.spawn(len(sources)), strict=True):
            made, to_finish = _made(source, child, kind)
            target.write(np.ascontiguousarray(made))
            drawn.append(to_finish)
    return [np.array(part) for part in zip(*drawn, strict=True)] or None


def _made(source, seed, kind):
    """(pixels, what a device needs to finish them) of one image."""
    size, short_side, on_device, mean, std = kind
    if short_side is not None:
        image, shape = read.read_image(source, photo.least_to_evaluate, short_side)
        made = photo.evaluation_photo(image, size, short_side, shape)
    else:
        drawn = photo.draw(np.random.default_rng(seed))
        image, shape = read.read_image(source, photo.least_to_crop, drawn, size)
        if on_device:
            made = photo.crop_to_finish(image, drawn, size, shape)
            return made, (made.shape[:2], drawn.mirrored, drawn.factors, drawn.order)
        made = photo.training_crop(image, drawn, size, shape).astype(np.float32)
        made = photo.colour_jitter(made, drawn.factors, drawn.order)
    return made if on_device else pixels.standardise(made, mean, std), ()


def _joined(file, starts, drawn):
    """(pixels, sizes, mirrored, factors, orders) of a batch of crops from a file."""
    lengths = [3 * int(sizes.prod(axis=1).sum()) for sizes, *_ in drawn]
    total = sum(lengths)
    # Of few lengths, as JAX compiles for each: a whole number of MB, or of more.
    step = 2 ** max(20, total.bit_length() - 4)
    joined = np.zeros(-(-total // step) * step, np.uint8)
    end = 0
    for start, length in zip(starts, lengths, strict=True):
        file.seek(start)
        file.readinto(joined[end : end + length])
        end += length
    return joined, *(np.concatenate(part) for part in zip(*drawn, strict=True))


def _mapped(file, shape, dtype):
    """The array that a file holds: it needs no copy, and outlives the file's name."""
    mapped = mmap.mmap(file.fileno(), dtype.itemsize * math.prod(shape))
    _files.add(mapped)
    array = np.frombuffer(mapped, dtype).reshape(shape)
    return array.copy() if len(_files) > _MOST_FILES else array


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
    """Ends this process soon after its parent, which may have been killed.

    Ctrl-C does not end it: it is sent to both, and the parent may go on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

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
def _file_in_memory(size):
    """A file of so many bytes, to which other processes write by its name.

    Without room in memory, as in a container, it is on disk.
    """
    from loky.backend import resource_tracker

    folder = "/dev/shm"  # Of Linux alone.
    if not os.path.isdir(folder) or shutil.disk_usage(folder).free < 4 * size:
        folder = None
    with tempfile.NamedTemporaryFile(
        dir=folder, prefix="keras_spos_", buffering=0
    ) as file:
        # Which deletes it if this process is killed.
        resource_tracker.register(file.name, "file")
        try:
            file.truncate(size)
            yield file
        finally:
            resource_tracker.unregister(file.name, "file")
