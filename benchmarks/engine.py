"""What does training and searching a supernet cost, in units of one fixed subnet?

    python -m benchmarks.engine --size 96 --batch 64 --output results/engine

Times are taken interleaved in one process, start-up and memory each in a fresh one.
"All options" is a step that computes every option of every block and averages them, as
differentiable search does; "rebuild" extracts and compiles a model for each path.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

SPACES = {
    "full": {},
    "half": {"stage_blocks": (2, 2, 4, 2)},
    "tiny": {
        "stem_channels": 8,
        "stage_channels": (16, 32),
        "stage_blocks": (2, 2),
        "head_channels": 64,
    },
}


def main():
    """Runs all measurements and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96, help="image height and width")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--space", choices=list(SPACES), default="full")
    parser.add_argument(
        "--rounds", type=int, default=15, help="timed steps of each kind"
    )
    parser.add_argument("--output", help="folder for engine.json and engine.png")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    results = {}
    for part in PARTS:
        print(f"measuring: {part}", file=sys.stderr, flush=True)
        results[part] = _in_fresh_process(part)
    rows = _rows(results)
    width = max(len(r[0]) for r in rows)
    for name, value, target in rows:
        print(f"{name:<{width}}  {value:>8.2f}  {target}")
    if args.output:
        _write(args, results, rows)


def _in_fresh_process(part):
    command = [sys.executable, "-m", "benchmarks.engine", *sys.argv[1:], "--part", part]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{part} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _rows(results):
    """(what, ratio, target) for each line of the table."""
    fixed, net, every = (
        results[k] for k in ("start fixed", "start supernet", "start all")
    )
    steps, search = results["steps"], results["search"]
    return [
        (
            "step: supernet / fixed subnet",
            steps["supernet"] / steps["fixed"],
            "<= 1.05",
        ),
        ("step: supernet / all options", steps["supernet"] / steps["all"], "<= 0.4"),
        ("step: rebuild / supernet", steps["rebuild"] / steps["supernet"], ""),
        ("first training step: supernet, s", net["first_step"], "<= 30"),
        (
            "first training step: supernet / fixed",
            net["first_step"] / fixed["first_step"],
            "",
        ),
        ("first evaluation: supernet, s", net["first_evaluation"], "<= 10"),
        (
            "first evaluation: supernet / fixed",
            net["first_evaluation"] / fixed["first_evaluation"],
            "",
        ),
        ("peak memory: supernet / fixed", net["peak"] / fixed["peak"], "<= 1.3"),
        ("peak memory: supernet / all options", net["peak"] / every["peak"], "<= 0.4"),
        (
            "candidate / its forward passes",
            search["alone"] / search["forward"],
            "<= 1.1",
        ),
        ("candidate of a generation / alone", search["shared"] / search["alone"], ""),
    ]


def _write(args, results, rows):
    from matplotlib.figure import Figure

    from recipes.common import provenance

    os.makedirs(args.output, exist_ok=True)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    ratios = [r for r in rows if not r[0].endswith(", s")]
    axes.barh([r[0] for r in ratios][::-1], [r[1] for r in ratios][::-1])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("ratio")
    figure.savefig(os.path.join(args.output, "engine.png"), dpi=150)
    with open(os.path.join(args.output, "engine.json"), "w") as file:
        json.dump(
            {"provenance": provenance("benchmarks.engine"), "measured": results},
            file,
            indent=1,
        )


# Parts, each run in a fresh process.


def _setting(args):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np

    from keras_spos import spaces

    net = spaces.shufflenet_v2((args.size, args.size, 3), **SPACES[args.space])
    rng = np.random.default_rng(0)
    x = rng.random((args.batch, args.size, args.size, 3), dtype="float32")
    return net, x, rng.integers(0, 1000, args.batch)


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


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _start(kind):
    def run(args):
        net, x, y = _setting(args)
        import keras_spos as ks

        if kind == "all":
            net.sampler = ks.PathDropoutSampler(0.0)
        path = net.space.sample(1, seed=0)[0]
        model = net.extract(path) if kind == "fixed" else net
        before = _peak()
        _compile(model)
        first = _seconds(model.train_on_batch, x, y)
        evaluation = _seconds(model.test_on_batch, x, y)
        # Until every option has been picked about once.
        for _ in range(12 if kind == "supernet" else 3):
            model.train_on_batch(x, y)
        return {
            "first_step": first,
            "first_evaluation": evaluation,
            "peak": _peak() - before,
            "process": _peak(),
        }

    return run


class _Fixed:
    """Draws the same path always."""

    def __init__(self, path):
        self.path = path

    def draw(self, space, rng):
        return self.path


def _steps(args):
    """Median seconds of a step of each kind, taken in turn."""
    net, x, y = _setting(args)
    import keras_spos as ks

    _compile(net)
    paths = net.space.sample(3, seed=0)
    subnets = [_compile(net.extract(path)) for path in paths]
    times = {"supernet": [], "fixed": [], "all": []}
    for number in range(args.rounds + 2):
        for path, subnet in zip(paths, subnets, strict=True):
            net.sampler = _Fixed(path)
            for kind, model in (("supernet", net), ("fixed", subnet)):
                seconds = _seconds(model.train_on_batch, x, y)
                if number >= 2:
                    times[kind].append(seconds)
        if number % 5 == 0 or number < 2:
            net.sampler = ks.PathDropoutSampler(0.0)
            seconds = _seconds(net.train_on_batch, x, y)
            if number >= 2:
                times["all"].append(seconds)
    rebuild = _seconds(lambda: _compile(net.extract(paths[1])).train_on_batch(x, y))
    return {k: statistics.median(v) for k, v in times.items()} | {"rebuild": rebuild}


def _search(args):
    """Seconds a candidate, alone and in a generation, and of its forward passes."""
    net, x, y = _setting(args)
    import numpy as np

    import keras_spos as ks

    _compile(net)
    images = np.concatenate([x] * max(1, 512 // args.batch))
    labels = np.concatenate([y] * max(1, 512 // args.batch))
    score = ks.Evaluator(net, images, (images, labels), batch_size=args.batch)
    paths = net.space.sample(6, seed=0)
    # One generation of evolution: children of ten parents.
    rng = np.random.default_rng(1)
    parents = net.space.sample(10, seed=2)
    pairs = rng.integers(0, 10, (2, 50))
    mask = rng.random((50, net.space.num_decisions)) < 0.5
    children = np.where(mask, parents[pairs[0]], parents[pairs[1]])
    every = [[i] * net.space.num_decisions for i in range(4)]
    score(np.array(every))  # Traces every option.
    alone, forward = [], []
    for path in paths:
        subnet = net.extract(path)
        batches = [
            images[i : i + args.batch] for i in range(0, len(images), args.batch)
        ]
        subnet.predict_on_batch(batches[0])
        score.cache.clear()
        alone.append(_seconds(score, path))

        def passes(subnet=subnet, batches=batches):
            for _ in range(2):  # Calibration and validation.
                for batch in batches:
                    subnet.predict_on_batch(batch)

        forward.append(_seconds(passes))
    score.cache.clear()
    shared = _seconds(score, children) / len({tuple(c) for c in children.tolist()})
    return {
        "alone": statistics.median(alone),
        "forward": statistics.median(forward),
        "shared": shared,
    }


PARTS = {
    "start fixed": _start("fixed"),
    "start supernet": _start("supernet"),
    "start all": _start("all"),
    "steps": _steps,
    "search": _search,
}

if __name__ == "__main__":
    main()
