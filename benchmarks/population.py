"""How much faster is a whole space scored in one run than one architecture at a time?

    python -m benchmarks.population --space nasbench_macro --output results/population

Three ways to give an architecture its score (batch norm statistics on calibration
images, then accuracy on validation images), from the same untrained supernet:

    in order   `score_all` over paths in order, which share what they have in common
    alone      the `Evaluator`, one random path at a time
    extracted  a stock model for each path: extract, recalibrate, evaluate

Seconds are processor time. `--paths` scores that many paths in order from the middle of
the space instead of all; what is merged there is counted for the whole space.
"""

import argparse
import functools
import json
import os
import statistics
import time

import keras
import numpy as np

import keras_spos as ks
from keras_spos import spaces
from keras_spos.spaces.nasbench201 import live_edges

# Small networks, as in the recipes' small presets.
SPACES = {
    "nasbench_macro": {
        "stem_channels": 16,
        "stage_channels": (16, 32, 64),
        "head_channels": 256,
    },
    "nasbench201": {"cells": 1},
}


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", choices=list(SPACES), default="nasbench_macro")
    parser.add_argument("--size", type=int, default=16, help="image height and width")
    parser.add_argument("--images", type=int, default=250, help="images of each set")
    parser.add_argument("--paths", type=int, help="paths in order; default: all")
    parser.add_argument("--alone", type=int, default=30, help="paths taken alone")
    parser.add_argument("--extracted", type=int, default=5, help="models extracted")
    parser.add_argument("--checkpoint", help="a file to go on from")
    parser.add_argument("--output", help="folder for <space>.json")
    args = parser.parse_args()
    result = measure(args)
    print(json.dumps(result, indent=1))
    if args.output:
        from recipes.common import provenance

        os.makedirs(args.output, exist_ok=True)
        with open(os.path.join(args.output, f"{args.space}.json"), "w") as file:
            found = {"provenance": provenance("benchmarks.population"), **result}
            json.dump(found, file, indent=1)


def measure(args):
    """Seconds a path for each way, and the ratios."""
    shape = (args.size, args.size, 3)
    net = getattr(spaces, args.space)(shape, **SPACES[args.space])
    net.compile(
        keras.optimizers.SGD(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    rng = np.random.default_rng(0)
    images, x = rng.normal(size=(2, args.images, *shape)).astype("float32")
    y = rng.integers(0, 10, args.images)
    score = ks.Evaluator(net, images, (x, y))
    merge = functools.partial(live_edges, net.space)
    merge = merge if args.space == "nasbench201" else lambda paths: paths
    every = np.array(list(net.space.enumerate()))
    different = np.unique(merge(every), axis=0)
    options = [[i] * net.space.num_decisions for i in range(max(net.space.sizes))]
    score(np.array(options))  # Compiles every option.

    alone = []
    for path in net.space.sample(args.alone, seed=1):
        score.cache.clear()
        alone.append(_seconds(score, path))
    extracted = []
    for path in net.space.sample(args.extracted, seed=1):
        extracted.append(_seconds(_extracted, net, path, images, x, y))
    chosen = different
    if args.paths:
        start = (len(different) - args.paths) // 2
        chosen = different[start : start + args.paths]
    score.cache.clear()
    seconds = _seconds(
        functools.partial(ks.score_all, checkpoint=args.checkpoint), score, chosen
    )
    in_order = seconds / len(chosen)
    ordered = in_order * len(different) / len(every)
    return {
        "space": args.space,
        "paths": len(every),
        "different": len(different),
        "scored_in_order": len(chosen),
        "seconds": {
            "in order, a different path": in_order,
            "in order, a path of the space": ordered,
            "alone": statistics.mean(alone),
            "extracted": statistics.mean(extracted),
        },
        "alone / in order": statistics.mean(alone) / ordered,
        "extracted / in order": statistics.mean(extracted) / ordered,
    }


def _extracted(net, path, images, x, y):
    model = ks.recalibrate(net.extract(path), images)
    predictions = model.predict(x, batch_size=len(x), verbose=0)
    return np.mean(predictions.argmax(1) == y)


def _seconds(function, *arguments):
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


if __name__ == "__main__":
    main()
