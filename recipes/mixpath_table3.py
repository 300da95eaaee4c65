"""MixPath, Table 3: does the supernet rank networks as NAS-Bench-101 does?

    python -m recipes.mixpath_table3 --preset small --data-dir DIR

For m = 3 and 4 and three seeds, supernets are trained with shadow batch norms and with
one batch norm; 70 random paths are scored on held-out training images, with learned
batch statistics and with statistics calibrated on training images. Only then is the
benchmark read. DIR holds nasbench101.npz too (see `keras_spos.tabular`).

The truth is the benchmark's test accuracy after 108 epochs. The paper says "top-1
accuracy"; its released code reads the validation accuracy, scores and calibrates on
test images, and ranks without the 30 lowest scores.
"""

import numpy as np

from keras_spos import ranking, spaces, tabular
from keras_spos.spaces.nasbench101_mixpath import cell_of, graph_of
from recipes import mixpath
from recipes.common import Output, arguments, markdown_table, settings_dict
from recipes.ranking_report import deviation

PRESETS = {
    "small": mixpath.Settings(
        dataset="cifar10",
        space={
            "input_shape": (32, 32, 3),
            "channels": 16,
            "cells": 1,
            "stem_stride": 2,
        },
        train_per_class=2000,
        validation_per_class=400,
        batch_size=64,
        epochs=16,
        learning_rate=0.025,
        calibration_images=200,
        most_paths=(3, 4),
        sampled_paths=70,
    ),
    "smoke": mixpath.Settings(
        dataset="digits",
        space={"input_shape": (16, 16, 3), "channels": 4, "stacks": 1, "cells": 1},
        validation_per_class=20,
        batch_size=64,
        epochs=1,
        calibration_images=50,
        most_paths=(2,),
        sampled_paths=12,
    ),
    "paper": mixpath.Settings(
        dataset="cifar10",
        space={"input_shape": (32, 32, 3)},
        validation_per_class=500,
        batch_size=96,
        # 100 epochs of all 50,000 images, at 468 steps an epoch.
        epochs=111,
        learning_rate=0.025,
        l2=3e-4,  # Not in the paper, but in the released code.
        most_paths=(3, 4),
        sampled_paths=70,
    ),
}
SEEDS = {"small": 3, "smoke": 1, "paper": 3}
# Networks are scored by the first, as in the paper. The loss tells apart what the
# accuracy on few images does not.
METRICS = ("accuracy", "loss")
# (shadow batch norms, calibrated): Kendall's tau and its deviation over three seeds, as
# printed in the paper's Table 3.
PAPER = {
    4: {
        (True, False): (0.393, 0.017),
        (True, True): (0.597, 0.037),
        (False, False): (0.167, 0.038),
        (False, True): (0.368, 0.134),
    },
    3: {
        (True, False): (0.318, 0.034),
        (True, True): (0.592, 0.024),
        (False, False): (0.045, 0.060),
        (False, True): (0.430, 0.031),
    },
}


class Experiment(mixpath.Experiment):
    """Supernets of NAS-Bench-101's multi-path cells."""

    build = staticmethod(spaces.nasbench101_mixpath)


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(PRESETS))
    settings = PRESETS[args.preset]
    # A missing table should not be noticed after the trainings.
    table = tabular.nasbench101(args.data_dir)
    output = Output("mixpath_table3", args)
    experiment = Experiment(settings, output, args)
    runs = [
        _run(experiment, args.seed + number, m, shadow)
        for number in range(SEEDS[args.preset])
        for m in settings.most_paths
        for shadow in (True, False)
    ]
    # All scores are final: now the truth.
    cells = sorted({tuple(cell) for run in runs for cell in run["cells"]})
    found = [table.row(*graph_of(cell)) for cell in cells]
    accuracies = dict(zip(cells, table.accuracy("test_acc_108", found), strict=True))
    params = dict(zip(cells, table.read("params")[found], strict=True))
    rows = []
    for m in settings.most_paths:
        for shadow in (True, False):
            same = [r for r in runs if (r["m"], r["shadow"]) == (m, shadow)]
            for calibrated in (False, True):
                rows.append(_judge(same, calibrated, accuracies, params))
                output.say(rows[-1])
    text = markdown_table(
        [
            "m",
            "batch norms",
            "calibrated",
            "tau (sd over seeds)",
            "tau by loss",
            "parameters' tau",
            "cells",
            "paper's tau (sd)",
        ],
        [_cells(row) for row in rows],
    )
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset: tau-b over "
        f"{settings.sampled_paths} paths, {SEEDS[args.preset]} seeds. Paths of one "
        "cell tie in the truth."
    )
    output.report(settings_dict(settings), {"rows": rows, "runs": runs})
    output.write_table(text, note)


def _run(experiment, seed, m, shadow):
    """Trains one supernet and scores paths, without any truth."""
    name = f"seed{seed}_{mixpath.supernet_name(m, shadow)}"
    known = experiment.output.done(name)
    if known:
        return known
    experiment.seed = seed
    net = experiment.supernet(m, shadow)
    # The same paths with and without shadow batch norms.
    paths = experiment.sampled(net, seed=(seed, m))
    return experiment.output.finish(
        name,
        {
            "seed": seed,
            "m": m,
            "shadow": shadow,
            "cells": [cell_of(net, path) for path in paths.tolist()],
            "learned": _scores(experiment, net, paths, recalibrate=False),
            "calibrated": _scores(experiment, net, paths, recalibrate=True),
        },
    )


def _scores(experiment, net, paths, recalibrate):
    """A dict from metric to scores; both metrics are of the same predictions."""
    score = experiment.evaluator(net, metric=METRICS, recalibrate=recalibrate)
    return dict(zip(METRICS, score(paths).T.tolist(), strict=True))


def _judge(runs, calibrated, accuracies, params):
    taus, rivals = {metric: [] for metric in METRICS}, []
    for run in runs:
        cells = [tuple(cell) for cell in run["cells"]]
        truth = [accuracies[cell] for cell in cells]
        scores = run["calibrated" if calibrated else "learned"]
        for metric in METRICS:
            taus[metric].append(ranking.kendall_tau(scores[metric], truth))
        rivals.append(ranking.kendall_tau([params[cell] for cell in cells], truth))
    return {
        "m": runs[0]["m"],
        "shadow": runs[0]["shadow"],
        "calibrated": calibrated,
        "taus": taus,
        "params_taus": rivals,
        "unique_cells": [len({tuple(c) for c in run["cells"]}) for run in runs],
    }


def _cells(row):
    paper = PAPER.get(row["m"], {}).get((row["shadow"], row["calibrated"]))
    return [
        row["m"],
        "shadow" if row["shadow"] else "one",
        "yes" if row["calibrated"] else "no",
        *(f"{np.mean(t):.3f} ({deviation(t):.3f})" for t in row["taus"].values()),
        f"{np.mean(row['params_taus']):.3f}",
        "/".join(map(str, row["unique_cells"])),
        f"{paper[0]} ({paper[1]})" if paper else "",
    ]


if __name__ == "__main__":
    main()
