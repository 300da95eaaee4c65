"""SPOS, Table 7: what a supernet costs, by single path, FBNet and ProxylessNAS.

    python -m recipes.spos_table7 --preset small --data-dir DIR

The three methods train one space of building blocks for a few steps, each in a process
of its own, whose peak of memory is theirs alone. Searching costs single path training
its evaluations; the others have their network when training ends. What is found is
trained from scratch: a few steps of one network, the best of those whose evaluation is
timed, stand for all three methods, as a few steps of gates find none. The paper too
gives all three the same time; its batch size there is not stated and taken to be the
supernets' (section 4 has 1,024 in general). Images are not augmented and nothing is
dropped out, for all three alike.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time

import keras

import keras_spos as ks
from keras_spos import data, spaces
from keras_spos.data.decode import leave_with
from recipes import spos
from recipes.common import Output, markdown_table, parser_for, settings_dict
from recipes.differentiable import FBNet, ProxylessNAS, SinglePath
from recipes.experiment import load
from recipes.memory import has_accelerator, peak_bytes, start_peak

METHODS = {"single path": SinglePath, "ProxylessNAS": ProxylessNAS, "FBNet": FBNet}
# GB on 8 GPUs, and GPU days of training, search, retraining and in all, as printed in
# the paper's Table 7.
PAPER = {
    "single path": (24, 12, "<1", 16, 29),
    "ProxylessNAS": (37, 15, "0", 16, 31),
    "FBNet": (63, 20, "0", 16, 36),
}


@dataclasses.dataclass(frozen=True)
class Settings(spos.Settings):
    """One preset; see `spos.Settings`, whose epochs are not used.

    Args:
        steps: Steps whose time is measured, after everything is compiled.
        iterations: Steps of the whole training that the measured time stands for.
        retrain_iterations: The same, of training a found network from scratch.
        scored: Paths whose evaluation is timed.
    """

    steps: int = 100
    iterations: int = 150_000
    retrain_iterations: int = 300_000
    scored: int = 20


PRESETS = {
    "small": Settings(
        dataset="cifar10",
        space={
            "input_shape": (32, 32, 3),
            "num_classes": 10,
            "stem_stride": 1,
            "stage_channels": (32, 64, 128),
            "stage_blocks": (2, 3, 2),
            "head_channels": 256,
            "dropout": 0.0,
        },
        train_per_class=100,
        validation_per_class=50,
        batch_size=128,
        supernet_epochs=0,
        retrain_epochs=0,
        learning_rate=0.05,
        calibration_images=500,
        steps=20,
        scored=8,
    ),
    "smoke": Settings(
        dataset="digits",
        space={
            "input_shape": (8, 8, 3),
            "num_classes": 10,
            "stem_channels": 4,
            "stage_channels": (8,),
            "stage_blocks": (2,),
            "head_channels": 16,
            "dropout": 0.0,
        },
        validation_per_class=5,
        batch_size=32,
        supernet_epochs=0,
        retrain_epochs=0,
        learning_rate=0.05,
        calibration_images=20,
        steps=5,
        scored=2,
    ),
    "paper": Settings(
        dataset="imagenet",
        space={"input_shape": (224, 224, 3), "num_classes": 1000, "dropout": 0.0},
        validation_per_class=50,
        batch_size=256,
        supernet_epochs=0,
        retrain_epochs=0,
    ),
}


def main():
    """Runs the recipe, or in a process of its own one method."""
    parser = parser_for(__doc__.splitlines()[0], list(PRESETS))
    parser.add_argument("--method", choices=METHODS, help="run only this one, here")
    # The process whose death ends this one.
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    settings = PRESETS[args.preset]
    if args.parent:
        leave_with(args.parent)
    if args.method:
        print(json.dumps(_run(args.method, settings, args)))
        return
    output = Output("spos_table7", args)
    results = {}
    for method in METHODS:
        part = f"{method}, recompute" if args.recompute else method
        results[method] = output.done(part) or output.finish(
            part, _in_a_process(method, args)
        )
        output.say(f"{method}: {results[method]}")
    base = results["single path"]
    rows = [_row(method, results[method], base, settings) for method in METHODS]
    table = markdown_table(
        [
            "method",
            "peak memory MB",
            "ratio",
            "s a step",
            "ratio",
            "training h",
            "search h",
            "retraining h",
            "total h",
            "paper: memory GB (ratio)",
            "training Gds (ratio)",
            "search Gds",
            "retraining Gds",
            "total Gds",
        ],
        rows,
    )
    note = (
        f"Measured on {base['device']} with the {args.preset!r} preset, batch "
        f"{settings.batch_size}, {settings.steps} steps; hours are for "
        f"{settings.iterations:,} steps, {_EVALUATIONS:,} evaluations and "
        f"{settings.retrain_iterations:,} steps of one network, the same for all, at "
        f"that speed, by {base['clock']}. Memory is the peak over what was held before "
        "the supernet was built. The paper's figures are for ImageNet on 8 GPUs."
    )
    output.report(settings_dict(settings), results)
    output.write_table(table, note)


_EVALUATIONS = 1000


def _row(method, result, base, settings):
    memory, days, *others = PAPER[method]
    hours = settings.iterations * result["seconds"] / 3600
    searching = _EVALUATIONS * result["seconds_a_path"] / 3600
    retraining = settings.retrain_iterations * base["seconds_retraining"] / 3600
    first = PAPER["single path"]
    return [
        method,
        f"{result['bytes'] / 1e6:,.0f}",
        f"{result['bytes'] / base['bytes']:.2f}",
        f"{result['seconds']:.3f}",
        f"{result['seconds'] / base['seconds']:.2f}",
        f"{hours:.1f}",
        f"{searching:.2f}",
        f"{retraining:.1f}",
        f"{hours + searching + retraining:.1f}",
        f"{memory} ({memory / first[0]:.2f})",
        f"{days} ({days / first[1]:.2f})",
        *others,
    ]


def _in_a_process(method, args):
    command = [sys.executable, "-m", "recipes.spos_table7", "--method", method]
    command += ["--preset", args.preset, "--seed", str(args.seed)]
    command += ["--parent", str(os.getpid())]
    if args.data_dir:
        command += ["--data-dir", args.data_dir]
    if args.recompute:
        command += ["--recompute"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{method} failed: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _run(method, settings, args):
    """Trains by one method and returns memory and times."""
    splits = load(settings, args.data_dir)
    images, labels = _batch(splits.train, settings.batch_size)
    images = data.standardise(images, splits.mean, splits.std)
    before = start_peak()
    keras.utils.set_random_seed(args.seed)
    net = spaces.shufflenet_v2(**settings.space, l2=settings.l2, seed=args.seed)
    net.recompute = args.recompute
    _compile(net, settings)
    trainer = METHODS[method](net, seed=args.seed)
    trainer.warm_up(images, labels)
    start = _clock()
    losses = [trainer.train_step(images, labels) for _ in range(settings.steps)]
    result = {
        "seconds": (_clock() - start) / settings.steps,
        "bytes": peak_bytes() - before,
        "seconds_a_path": 0.0,
        "losses": losses,
        "clock": "wall clock" if has_accelerator() else "processor time",
        "device": f"{keras.backend.backend()}, {platform.machine()}, "
        f"{os.cpu_count()} cores",
    }
    if method == "single path":
        result["seconds_a_path"], best = _search(net, splits, settings)
        network = net.extract(best, fresh=True)
        seconds = _retraining_seconds(network, images, labels, settings)
        result["seconds_retraining"] = seconds
    return result


def _compile(model, settings):
    model.compile(
        keras.optimizers.SGD(settings.learning_rate, momentum=0.9),
        ks.SmoothedCrossentropy(settings.label_smoothing),
    )


def _clock():
    """Seconds; without an accelerator those of this process, as others may run too."""
    return time.perf_counter() if has_accelerator() else time.process_time()


def _search(net, splits, settings):
    """Seconds to score one path, batch norm statistics included, and the best path."""
    calibration = _batch(splits.train, settings.calibration_images)[0]
    held_out = _batch(splits.validation, None)
    score = ks.Evaluator(
        net,
        calibration,
        held_out,
        preprocess=lambda x: data.standardise(x, splits.mean, splits.std),
    )
    paths = net.space.sample(2 * settings.scored, seed=1)
    score(paths[: settings.scored])  # Compiles what it needs.
    start = _clock()
    scores = score(paths[settings.scored :])
    seconds = (_clock() - start) / settings.scored
    return seconds, paths[settings.scored + int(scores.argmax())]


def _retraining_seconds(model, images, labels, settings):
    """Seconds of a step of a network that is trained alone."""
    _compile(model, settings)
    model.train_on_batch(images, labels)  # Compiles.
    start = _clock()
    for _ in range(settings.steps):
        model.train_on_batch(images, labels)
    return (_clock() - start) / settings.steps


def _batch(images, count):
    held = images if isinstance(images, data.ArrayData) else None
    held = held or data.in_memory(
        data.balanced_subset(images, n=count) if count else images
    )
    return held.images[:count], held.labels[:count]


if __name__ == "__main__":
    main()
