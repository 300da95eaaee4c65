"""How many images does batch norm recalibration need?

    python -m benchmarks.calibration --supernet FILE --data-dir DIR --output FOLDER

Scores the same random paths of a trained CIFAR-10 supernet with statistics from more
and more training images, and compares each ranking with that of the most.
"""

import argparse
import json
import os
import time

import numpy as np


def main():
    """Scores, compares, and writes calibration.json and calibration.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--supernet", required=True, help="a trained supernet, .keras")
    parser.add_argument("--data-dir", default=os.environ.get("KERAS_SPOS_DATA"))
    parser.add_argument("--paths", type=int, default=30)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[50, 200, 1000, 5000, 20000]
    )
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    import keras

    import keras_spos as ks
    from keras_spos import data
    from keras_spos.ranking import kendall_tau
    from recipes.common import provenance

    net = keras.saving.load_model(args.supernet)
    splits = data.cifar10(args.data_dir, validation_per_class=200)
    paths = net.space.sample(args.paths, seed=0)

    def standardise(images):
        return data.standardise(images, splits.mean, splits.std)

    scores, seconds = {}, {}
    for size in [0, *sorted(args.sizes)]:
        images = data.balanced_subset(splits.train, n=max(size, 10), seed=0).images
        score = ks.Evaluator(
            net,
            images,
            (splits.validation.images, splits.validation.labels),
            recalibrate=size > 0,
            preprocess=standardise,
        )
        start = time.perf_counter()
        scores[size] = score(paths).tolist()
        seconds[size] = (time.perf_counter() - start) / len(paths)
        print(f"{size} images: {seconds[size]:.2f} s a path", flush=True)
    most = scores[max(args.sizes)]
    rows = [
        {
            "images": size,
            "kendall_tau": kendall_tau(values, most),
            "mean_accuracy": float(np.mean(values)),
            "seconds_per_path": seconds[size],
        }
        for size, values in scores.items()
    ]
    for row in rows:
        print(row)
    os.makedirs(args.output, exist_ok=True)
    result = {"provenance": provenance("benchmarks.calibration"), "result": rows}
    with open(os.path.join(args.output, "calibration.json"), "w") as file:
        json.dump(result, file, indent=1)
    _draw(os.path.join(args.output, "calibration.png"), rows)


def _draw(file, rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    measured = [r for r in rows if r["images"]]
    sizes = [r["images"] for r in measured]
    taus = [r["kendall_tau"] for r in measured]
    axes.plot(sizes, taus, "o-", label=f"Kendall tau with {sizes[-1]:,} images")
    axes.plot(
        sizes, [r["mean_accuracy"] for r in measured], "s--", label="mean accuracy"
    )
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("training images for batch norm statistics")
    axes.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
