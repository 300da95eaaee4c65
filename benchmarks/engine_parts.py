"""The measurements of `benchmarks.engine`, each run in a fresh process."""

import functools
import statistics
import time

import numpy as np

from benchmarks.engine_device import device
from benchmarks.engine_models import (
    HEAVIEST,
    Fixed,
    batch_of,
    compiled,
    fit_of,
    network,
    path_of,
    paths_of,
    seconds_of,
    train,
)
from benchmarks.engine_pipeline import pipeline
from recipes.memory import has_accelerator, peak_bytes


def start(kind, args):
    """Seconds to the first step and evaluation, and memory above that of the imports.

    Both on the path with the most activations, or of `option`. Memory is the peak over
    30 more steps, on which a supernet picks nearly every option, unless one is set.
    """
    import keras_spos as ks

    net = network(args.size)
    x, y = batch_of(args.size, args.batch)
    sampler = ks.PathDropoutSampler(0.0) if kind == "all" else net.sampler
    path = path_of(net, HEAVIEST if args.option is None else args.option)
    model = net.extract(path) if kind == "fixed" else net
    net.sampler = sampler if kind == "all" else Fixed(path)
    net.recompute = kind == "recompute"
    before = peak_bytes()
    compiled(model)
    first = seconds_of(train, model, x, y)
    evaluation = seconds_of(model.test_on_batch, x, y)
    if args.option is None:
        net.sampler = sampler
    for _ in range(3 if kind == "all" else 30):
        train(model, x, y)
    return {
        "first_step": first,
        "first_evaluation": evaluation,
        "peak": peak_bytes() - before,
        "process": peak_bytes(),
    }


def steps(args):
    """Median seconds of a step of each kind, taken in turn.

    On a GPU, the mean of eight in a short `fit`: there, the host prepares a step while
    the GPU still computes the last one.
    """
    import keras_spos as ks

    net = compiled(network(args.size))
    x, y = batch_of(args.size, args.batch)
    fit = fit_of(x, y, 8) if has_accelerator() else None

    def step(model):
        return seconds_of(fit, model) / 8 if fit else seconds_of(train, model, x, y)

    again = compiled(network(args.size))
    again.recompute = True
    paths = paths_of(net, args, 2)
    subnets = [compiled(net.extract(path)) for path in paths]
    every = ks.PathDropoutSampler(0.0)
    kinds = ["supernet", "recompute", "fixed"]
    kinds += ["all"] if args.option is None else []
    times = {kind: [] for kind in kinds}
    for number in range(args.rounds + 2):
        taken = {kind: [] for kind in kinds}
        for path, subnet in zip(paths, subnets, strict=True):
            net.sampler = again.sampler = Fixed(path)
            taken["supernet"].append(step(net))
            taken["recompute"].append(step(again))
            taken["fixed"].append(step(subnet))
        if "all" in kinds and number in (0, 1, 2, args.rounds // 2):
            net.sampler = every
            taken["all"].append(step(net))
        if number >= 2:
            for kind, seconds in taken.items():
                times[kind] += seconds
    medians = {k: statistics.median(v) for k, v in times.items()}
    if args.option is not None:
        return medians
    rebuild = seconds_of(lambda: train(compiled(net.extract(paths[1])), x, y))
    return medians | {"rebuild": rebuild}


def alone(args):
    """Median seconds of the same steps where no other model runs between them.

    What another model leaves in the allocator can make the next step faster. "host" is
    what the thread that runs Python computes in a step; the device need not wait while
    that is less than a step.
    """
    net = compiled(network(args.size))
    x, y = batch_of(args.size, args.batch)
    times = {"supernet": [], "host": []}
    for path in paths_of(net, args, 2):
        net.sampler = Fixed(path)
        for number in range(args.rounds + 2):
            start = time.thread_time()
            seconds = seconds_of(train, net, x, y)
            if number >= 2:
                times["host"].append(time.thread_time() - start)
                times["supernet"].append(seconds)
    return {kind: statistics.median(values) for kind, values in times.items()}


def search(args):
    """Seconds of a candidate, alone and in a generation, and of its forward passes."""
    import keras_spos as ks

    net = compiled(network(args.size))
    images, labels = batch_of(args.size, 4 * args.batch)
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
            alone.append(seconds_of(score, path))
            forward.append(seconds_of(passes))
    score.cache.clear()
    shared = seconds_of(score, children) / len({tuple(c) for c in children.tolist()})
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
        net = network(64, stage_blocks=blocks, options=options[:choices])
        x, y = batch_of(64, batch)
        path = net.space.sample(1, seed=0)[0]
        net.sampler = Fixed(path)
        subnet = compiled(net.extract(path))
        first = seconds_of(train, compiled(net), x, y)
        times = {"supernet": [], "fixed": []}
        for _ in range(args.rounds + 2):
            times["supernet"].append(seconds_of(train, net, x, y))
            times["fixed"].append(seconds_of(train, subnet, x, y))
        result[name] = {k: statistics.median(v[2:]) for k, v in times.items()}
        result[name]["first"] = first
    return result


def cells(args):
    """A supernet of NAS-Bench-201's size: 15 cells x 6 edges x 5 operations."""
    from keras_spos import spaces

    net = compiled(spaces.nasbench201())
    x, y = batch_of(32, args.batch, classes=10)
    first = seconds_of(train, net, x, y)
    path = (3, 2, 3, 1, 3, 4)
    net.sampler = Fixed(path)
    subnet = compiled(net.extract(path))
    times = {"supernet": [], "fixed": []}
    for _ in range(args.rounds + 2):
        times["supernet"].append(seconds_of(train, net, x, y))
        times["fixed"].append(seconds_of(train, subnet, x, y))
    median = {k: statistics.median(v[2:]) for k, v in times.items()}
    return {"first": first, "ratio": median["supernet"] / median["fixed"], **median}


def torch(args):
    """A step here and in PyTorch, on the same paths.

    At batch 32 and 128 px; on a GPU, of the given batch and size.
    """
    from benchmarks.torch_supernet import AuthorsStep, TorchStep

    size, batch = (args.size, args.batch) if has_accelerator() else (128, 32)
    net = compiled(network(size))
    steps = {"torch": TorchStep()}
    if args.authors:
        steps["authors"] = AuthorsStep(args.authors)
    x, y = batch_of(size, batch)
    paths = paths_of(net, args, 6)
    times = {"supernet": [], **{kind: [] for kind in steps}}
    for number in range(args.rounds + 2):
        for path in paths:
            net.sampler = Fixed(path)
            taken = {"supernet": seconds_of(train, net, x, y)}
            for kind, step in steps.items():
                taken[kind] = seconds_of(step, x, y, path)
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

    net = compiled(network(128))
    x, y = batch_of(128, 32)
    path = net.space.sample(1, seed=0)[0]
    net.sampler = Fixed(path)
    times = [seconds_of(train, net, x, y) for _ in range(args.rounds + 2)]
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

    return min(seconds_of(run) for _ in range(rounds + 2))


PARTS = {
    "steps": steps,
    "alone": alone,
    "start-fixed": functools.partial(start, "fixed"),
    "start-supernet": functools.partial(start, "supernet"),
    "start-recompute": functools.partial(start, "recompute"),
    "start-all": functools.partial(start, "all"),
    "cells": cells,
    "search": search,
    "torch": torch,
    "profile": profile,
    "pipeline": pipeline,
    "growth": growth,
    "device": device,
}
