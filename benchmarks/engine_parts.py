"""The measurements of `benchmarks.engine`, each run in a fresh process."""

import functools
import os
import resource
import statistics
import time

import numpy as np

SMALL = {"stem_channels": 16, "stage_channels": (32, 64, 128), "head_channels": 256}


def _network(size, **options):
    from keras_spos import spaces

    return spaces.shufflenet_v2((size, size, 3), **options)


def _batch(size, batch, classes=1000):
    rng = np.random.default_rng(0)
    x = rng.random((batch, size, size, 3), dtype="float32")
    return x, rng.integers(0, classes, batch)


def _compile(model):
    import keras

    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def _on_gpu():
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "gpu"
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


def _peak():
    """Largest memory that the process has had on its device, in bytes."""
    import keras

    if not _on_gpu():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if keras.backend.backend() == "jax":
        import jax

        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def _heaviest(net):
    """The path with the most activations: choice_x has the most convolutions."""
    return (3,) * len(net.space.decisions)


class _Fixed:
    """Draws the same path always."""

    def __init__(self, path):
        self.path = path

    def draw(self, space, rng):
        return self.path


def start(kind, args):
    """Seconds to the first step and evaluation, and memory above that of the imports.

    Both on the path with the most activations. Memory is the peak over 30 more steps,
    on which a supernet picks nearly every option, unless `one_path` is set.
    """
    import keras_spos as ks

    net = _network(args.size)
    x, y = _batch(args.size, args.batch)
    sampler = ks.PathDropoutSampler(0.0) if kind == "all" else net.sampler
    heaviest = _heaviest(net)
    model = net.extract(heaviest) if kind == "fixed" else net
    net.sampler = sampler if kind == "all" else _Fixed(heaviest)
    before = _peak()
    _compile(model)
    first = _seconds(model.train_on_batch, x, y)
    evaluation = _seconds(model.test_on_batch, x, y)
    if not args.one_path:
        net.sampler = sampler
    for _ in range(3 if kind == "all" else 30):
        model.train_on_batch(x, y)
    return {
        "first_step": first,
        "first_evaluation": evaluation,
        "peak": _peak() - before,
        "process": _peak(),
    }


def steps(args):
    """Median seconds of a step of each kind, taken in turn.

    On a GPU, the mean of eight in a short `fit`: there, the host prepares a step while
    the GPU still computes the last one.
    """
    import keras_spos as ks

    net = _compile(_network(args.size))
    x, y = _batch(args.size, args.batch)
    if _on_gpu():
        xs, ys = np.concatenate([x] * 8), np.concatenate([y] * 8)
        options = {"batch_size": args.batch, "shuffle": False, "verbose": 0}

    def step(model):
        if not _on_gpu():
            return _seconds(model.train_on_batch, x, y)
        return _seconds(lambda: model.fit(xs, ys, **options)) / 8

    paths = [_heaviest(net)] if args.one_path else net.space.sample(2, seed=0)
    subnets = [_compile(net.extract(path)) for path in paths]
    every = ks.PathDropoutSampler(0.0)
    kinds = ("supernet", "fixed") if args.one_path else ("supernet", "fixed", "all")
    times = {kind: [] for kind in kinds}
    for number in range(args.rounds + 2):
        taken = {kind: [] for kind in kinds}
        for path, subnet in zip(paths, subnets, strict=True):
            net.sampler = _Fixed(path)
            taken["supernet"].append(step(net))
            taken["fixed"].append(step(subnet))
        if "all" in kinds and number in (0, 1, 2, args.rounds // 2):
            net.sampler = every
            taken["all"].append(step(net))
        if number >= 2:
            for kind, seconds in taken.items():
                times[kind] += seconds
    medians = {k: statistics.median(v) for k, v in times.items()}
    if args.one_path:
        return medians
    rebuild = _seconds(lambda: _compile(net.extract(paths[1])).train_on_batch(x, y))
    return medians | {"rebuild": rebuild}


def alone(args):
    """Median seconds of the same steps where no other model runs between them.

    What another model leaves in the allocator can make the next step faster.
    """
    net = _compile(_network(args.size))
    x, y = _batch(args.size, args.batch)
    times = []
    for path in [_heaviest(net)] if args.one_path else net.space.sample(2, seed=0):
        net.sampler = _Fixed(path)
        steps = [_seconds(net.train_on_batch, x, y) for _ in range(args.rounds + 2)]
        times += steps[2:]
    return {"supernet": statistics.median(times)}


def search(args):
    """Seconds of a candidate, alone and in a generation, and of its forward passes."""
    import keras_spos as ks

    net = _compile(_network(args.size))
    images, labels = _batch(args.size, 4 * args.batch)
    score = ks.Evaluator(net, images, (images, labels), batch_size=args.batch)
    # One generation of evolution: children of ten parents.
    rng = np.random.default_rng(1)
    parents = net.space.sample(10, seed=2)
    pairs = rng.integers(0, 10, (2, 25))
    mask = rng.random((25, net.space.num_decisions)) < 0.5
    children = np.where(mask, parents[pairs[0]], parents[pairs[1]])
    every = [[i] * net.space.num_decisions for i in range(4)]
    score(np.array(every))  # Traces every option.
    alone, forward = [], []
    for path in net.space.sample(3, seed=0):
        subnet = net.extract(path)
        subnet.predict(images, batch_size=args.batch, verbose=0)

        def passes(subnet=subnet):
            for _ in range(2):  # Calibration and validation.
                subnet.predict(images, batch_size=args.batch, verbose=0)

        for _ in range(2):
            score.cache.clear()
            alone.append(_seconds(score, path))
            forward.append(_seconds(passes))
    score.cache.clear()
    shared = _seconds(score, children) / len({tuple(c) for c in children.tolist()})
    return {
        "alone": statistics.median(alone),
        "forward": statistics.median(forward),
        "shared": shared,
    }


def growth(args):
    """Step and start with the number of blocks, of choices, and of images."""
    options = ("choice_3", "choice_5", "choice_7", "choice_x")
    result = {}
    for name, blocks, choices, batch in (
        ("5 blocks", (1, 1, 2, 1), 4, 16),
        ("10 blocks", (2, 2, 4, 2), 4, 16),
        ("20 blocks", (4, 4, 8, 4), 4, 16),
        ("10 blocks, 2 choices", (2, 2, 4, 2), 2, 16),
        ("10 blocks, batch 64", (2, 2, 4, 2), 4, 64),
    ):
        net = _network(64, stage_blocks=blocks, options=options[:choices])
        x, y = _batch(64, batch)
        path = net.space.sample(1, seed=0)[0]
        net.sampler = _Fixed(path)
        subnet = _compile(net.extract(path))
        first = _seconds(_compile(net).train_on_batch, x, y)
        times = {"supernet": [], "fixed": []}
        for _ in range(args.rounds + 2):
            times["supernet"].append(_seconds(net.train_on_batch, x, y))
            times["fixed"].append(_seconds(subnet.train_on_batch, x, y))
        result[name] = {k: statistics.median(v[2:]) for k, v in times.items()}
        result[name]["first"] = first
    return result


def cells(args):
    """A supernet of NAS-Bench-201's size: 15 cells x 6 edges x 5 operations."""
    from keras_spos import spaces

    net = _compile(spaces.nasbench201())
    x, y = _batch(32, args.batch, classes=10)
    first = _seconds(net.train_on_batch, x, y)
    path = (3, 2, 3, 1, 3, 4)
    net.sampler = _Fixed(path)
    subnet = _compile(net.extract(path))
    times = {"supernet": [], "fixed": []}
    for _ in range(6):
        times["supernet"].append(_seconds(net.train_on_batch, x, y))
        times["fixed"].append(_seconds(subnet.train_on_batch, x, y))
    median = {k: statistics.median(v[2:]) for k, v in times.items()}
    return {"first": first, "ratio": median["supernet"] / median["fixed"], **median}


def pipeline(args):
    """Images per second that the input pipelines give, and that a step takes."""
    import tempfile

    from keras_spos import data

    result = {}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2048, 32, 32, 3)).astype("uint8")
    small = data.ArrayData(images, rng.integers(0, 10, 2048))
    batches = data.training(small, 64, mean=(0.5,) * 3, std=(0.2,) * 3)
    result["32 px, augmented for CIFAR"] = _images_per_second(batches, 64)
    net = _compile(
        _network(32, stage_blocks=(2, 3, 2), stem_stride=2, num_classes=10, **SMALL)
    )
    if not args.one_path:
        x, y = _batch(32, 64, classes=10)
        for _ in range(60):
            net.train_on_batch(x, y)
        seconds = _seconds(lambda: [net.train_on_batch(x, y) for _ in range(20)])
        result["32 px, small supernet trains"] = 20 * 64 / seconds
    batch = args.batch if _on_gpu() else 32
    with tempfile.TemporaryDirectory() as folder:
        _write_photos(folder, 4 * batch + 4)  # Two of each class are held out.
        photos = data.image_folder(folder, validation_per_class=1, test_per_class=1)
        batches = data.training(photos.train, batch, augment="imagenet")
        result["224 px, augmented for ImageNet"] = _images_per_second(batches, batch)
        net = _compile(_network(224))
        net.sampler = _Fixed(_heaviest(net))
        net.fit(batches, epochs=1, verbose=0)
        seconds = _seconds(lambda: net.fit(batches, epochs=1, verbose=0))
        result["224 px, full supernet in fit"] = len(batches) * batch / seconds
    x, y = _batch(224, batch)
    times = [_seconds(net.train_on_batch, x, y) for _ in range(3)]
    result["224 px, full supernet trains"] = batch / min(times)
    return result


def _images_per_second(batches, size):
    """Of the second epoch: in the first, what decodes and augments is compiled."""
    for _ in range(2):
        start = time.perf_counter()
        count = sum(1 for _ in batches)
    return count * size / (time.perf_counter() - start)


def _write_photos(folder, count):
    """Writes JPEG files of the usual size of ImageNet's photographs."""
    import PIL.Image

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        os.makedirs(os.path.join(folder, name))
    for number in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3)).astype("uint8")
        photo = PIL.Image.fromarray(coarse).resize((500, 375))
        photo.save(os.path.join(folder, "ab"[number % 2], f"{number}.jpg"), quality=95)


def torch(args):
    """A step here and in PyTorch, on the same paths.

    At batch 32 and 128 px; on a GPU, of the given batch and size.
    """
    from benchmarks.torch_supernet import AuthorsStep, TorchStep

    size, batch = (args.size, args.batch) if _on_gpu() else (128, 32)
    net = _compile(_network(size))
    steps = {"torch": TorchStep()}
    if args.authors:
        steps["authors"] = AuthorsStep(args.authors)
    x, y = _batch(size, batch)
    paths = [_heaviest(net)] if args.one_path else net.space.sample(6, seed=0)
    times = {"supernet": [], **{kind: [] for kind in steps}}
    for number in range(args.rounds + 2):
        for path in paths:
            net.sampler = _Fixed(path)
            taken = {"supernet": _seconds(net.train_on_batch, x, y)}
            for kind, step in steps.items():
                taken[kind] = _seconds(step, x, y, path)
            if number >= 2:
                for kind, value in taken.items():
                    times[kind].append(value)
    return {k: statistics.median(v) for k, v in times.items()}


def profile(args):
    """Seconds of a path's layers by kind, each run alone, and of the path's step.

    At the shapes of `torch`: batch 32, 128 px. A layer runs forward and backward as the
    engine runs it.
    """
    import keras

    net = _compile(_network(128))
    x, y = _batch(128, 32)
    path = net.space.sample(1, seed=0)[0]
    net.sampler = _Fixed(path)
    times = [_seconds(net.train_on_batch, x, y) for _ in range(args.rounds + 2)]
    seconds, known = {"step": statistics.median(times[2:])}, {}
    for layer in net.extract(path)._flatten_layers(include_self=False):
        kind = _kind(layer)
        if kind:
            config = {**layer.get_config(), "name": "layer"}
            shape = [tuple(t.shape[1:]) for t in keras.tree.flatten(layer.input)]
            key = repr((kind, config, shape))
            if key not in known:
                known[key] = _alone(layer.from_config(config), shape, args.rounds)
            seconds[kind] = seconds.get(kind, 0) + known[key]
    return seconds


def _kind(layer):
    import keras

    kernel = getattr(layer, "kernel_size", None)
    if type(layer) is keras.layers.Conv2D:
        return "1x1 convolutions" if kernel == (1, 1) else "other convolutions"
    names = {
        keras.layers.DepthwiseConv2D: "depthwise convolutions",
        keras.layers.BatchNormalization: "batch norm",
        keras.layers.ReLU: "ReLU",
    }
    return names.get(type(layer))


def _alone(layer, shapes, rounds):
    """Seconds of a layer's forward and backward pass on a batch of 32."""
    import keras

    from keras_spos.engine import Engine

    inputs = [keras.Input(shape) for shape in shapes]
    engine = Engine(keras.Model(inputs, layer(*inputs)))
    (step,) = engine.steps
    unit, runner = step.unit, engine.runner
    values = [keras.random.normal((32, *shape)) for shape in shapes]
    state = runner.read(unit.non_trainable)

    def run():
        differentiable = (True,) * len(values)
        outputs, *_, record = runner.forward(unit, values, differentiable, state)
        gradients = runner.backward(record, outputs, None)
        return keras.ops.convert_to_numpy(gradients[0][0])

    return min(_seconds(run) for _ in range(rounds + 2))


PARTS = {
    "steps": steps,
    "alone": alone,
    "start-fixed": functools.partial(start, "fixed"),
    "start-supernet": functools.partial(start, "supernet"),
    "start-all": functools.partial(start, "all"),
    "cells": cells,
    "search": search,
    "torch": torch,
    "profile": profile,
    "pipeline": pipeline,
    "growth": growth,
}
