"""How supernets' scores compare with a benchmark: taus, a table, pictures.

This is where the benchmark's accuracies are read, once all scores are final.
"""

import numpy as np

from keras_spos import plots, ranking
from recipes.common import markdown_table, settings_dict


def judge(study, runs, truth, flops, params):
    """Reads the truth, now that all scores are final.

    Args:
        study: A `ranking.Study`.
        runs: What its `run` returned.
        truth: Name of the table's accuracy.
        flops: Name of its multiply-adds.
        params: Name of its parameters.

    Returns:
        A list of rows (dicts), one for each space, training and scoring, over
        seeds.
    """
    costs = {"flops": study.table.read(flops), "params": study.table.read(params)}
    truths = study.table.accuracy(truth)
    groups = {}
    for run in runs:
        rows = np.array(run["rows"])
        for scoring, scores in run["scores"].items():
            row = ranking.report(
                scores,
                truths[rows],
                {n: c[rows] for n, c in costs.items()},
                resamples=study.settings.resamples,
            )
            key = run["label"], run["training"], scoring
            groups.setdefault(key, []).append(row)
    return [
        {
            "space": label,
            "training": training,
            "scoring": scoring,
            "seeds": len(each),
            "tau_mean": float(np.mean([r["kendall_tau"]["value"] for r in each])),
            "tau_sd": deviation([r["kendall_tau"]["value"] for r in each]),
            "residual_tau_mean": float(
                np.mean([r["residual_tau_in_flops"]["value"] for r in each])
            ),
            "tau_with_flops_mean": float(
                np.mean([r["tau_with_flops"]["value"] for r in each])
            ),
            "each": each,
        }
        for (label, training, scoring), each in groups.items()
    ]


def finish(study, runs, rows, truth, flops, paper, note):
    """Writes the report, the table and the pictures, and prints the table."""
    table = markdown_table(
        [
            "space",
            "training",
            "scores",
            "seeds",
            "tau (sd over seeds)",
            "95 % interval, first seed",
            "residual tau",
            "tau of score and FLOPs",
            "FLOPs tau",
            "params tau",
            "top-10 regret",
            "paper",
        ],
        [_cells(row, paper) for row in rows],
    )
    truths = study.table.accuracy(truth)
    curves = {}
    for run in runs:
        tracked = run.get("tracked")
        if tracked:
            of_sample = truths[np.array(tracked["rows"])]
            taus = [ranking.kendall_tau(s, of_sample) for s in tracked["scores"]]
            run["tracked"]["taus"] = taus
            curves[run["label"]] = (taus, taus, taus)
            epochs = tracked["epochs"]
    if curves:
        plots.plot_curves(
            curves,
            study.output.path("tau_by_epoch.png"),
            y="Kendall's tau",
            positions=[epoch + 1 for epoch in epochs],
        )
    first = [r for r in runs if r["label"] == runs[0]["label"] and r["seed"] == 0]
    scores = {
        f"{run['training']}, {scoring}".replace(", ", ",\n"): values
        for run in first
        for scoring, values in run["scores"].items()
    }
    sample = np.array(first[0]["rows"])
    costs = study.table.read(flops)[sample]
    plots.plot_ranks(
        {**scores, "FLOPs alone\n": costs},
        truths[sample],
        costs,
        study.output.path("ranks.png"),
    )
    study.output.report(
        settings_dict(study.settings), {"rows": rows, "runs": runs, "note": note}
    )
    study.output.write_table(table, note)


def _cells(row, paper):
    first = row["each"][0]
    tau, regret = first["kendall_tau"], first["top10_regret"]["value"]
    published = paper.get((row["space"], row["training"], row["scoring"]), "")
    return [
        row["space"],
        row["training"],
        row["scoring"],
        row["seeds"],
        f"{row['tau_mean']:.3f} ({row['tau_sd']:.3f})",
        f"{tau['low']:.3f} to {tau['high']:.3f}",
        f"{row['residual_tau_mean']:.3f}",
        f"{row['tau_with_flops_mean']:.3f}",
        f"{first['flops_tau']['value']:.3f}",
        f"{first['params_tau']['value']:.3f}",
        f"{regret:.2f}",
        published,
    ]


def deviation(values):
    """Sample standard deviation; 0 of one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
