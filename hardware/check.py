"""How far a table is from the truth: whole random networks, measured and predicted.

    mean absolute percentage error, bias, Pearson, Kendall tau, and a picture

The networks are measured on the engine and device of the table. A correction is fitted
and cross-validated on them, and the table is rewritten with it. A space of too few
networks for that has all of them measured, and no correction.
"""

import dataclasses
import os

import numpy as np

from .fit import LEAST, fit_correction
from .manifest import write_json
from .measure import Settings, measure
from .statistics import agreement
from .table import NO_CORRECTION, read_table, with_correction


def check(manifest, table_path, engine, log, settings=None, correct=True, verbose=True):
    """Measures a folder's whole networks and compares a table with them.

    Args:
        manifest: The `Manifest`, with networks.
        table_path: The table.
        engine: The `Engine` that the table was measured on.
        log: See `measure`.
        settings: See `measure`; the statistic is the table's.
        correct: Whether to write the correction into the table.
        verbose: Whether to show progress.

    Returns:
        A report: "raw" and "corrected" errors, the "correction", and every network's
        path, measured and predicted latency. Predictions are held out: each by a
        correction that was not fitted on that network.
    """
    table = checked_table(manifest, table_path, engine)
    least = min(LEAST, manifest.paths)
    if len(manifest.networks) < least:
        count = min(60, manifest.paths)
        raise ValueError(
            f"Expected at least {least} whole networks in {manifest.folder}. Received: "
            f"{len(manifest.networks)}. Export them with python -m hardware blocks "
            f"--networks {count}, or run check where Keras is; for a supernet of your "
            f"own with export_networks(net, read_manifest(folder), {count})."
        )
    settings = dataclasses.replace(
        settings or Settings(), statistic=table.metadata["statistic"]
    )
    # By what they are: another seed exports other networks under the same names.
    networks = {
        f"{name}: {','.join(map(str, entry['path']))}": entry
        for name, entry in manifest.networks.items()
    }
    files = {name: manifest.path(entry) for name, entry in networks.items()}
    results = measure(
        files, engine, log, settings, f"networks of {manifest.digest}", verbose
    )
    names = [n for n in files if "error" not in results[n]]
    failures = {n: r["error"] for n, r in results.items() if "error" in r}
    if len(names) < least:
        some = [f"{n}: {error}" for n, error in list(failures.items())[:3]]
        raise ValueError(
            f"Expected at least {least} whole networks that run. Received: "
            f"{len(names)}; {len(failures)} failed, such as {'; '.join(some)}"
        )
    paths = np.array([networks[n]["path"] for n in names])
    measured = np.array([results[n]["latency_ms"] for n in names])
    space = table.data["space"]
    raw = with_correction(table.metadata, space, NO_CORRECTION)
    sums = raw(paths)
    correction, held_out = {**NO_CORRECTION, "fitted_on": 0}, sums
    if len(names) >= LEAST:
        correction, held_out = fit_correction(
            sums, raw.count(paths), measured, blocks=raw.block_latencies()
        )
    corrected = with_correction(table.metadata, space, correction)
    report = {
        "networks": len(names),
        "failures": failures,
        "raw": agreement(sums, measured),
        "correction": correction,
        "measured": [
            {
                "path": path.tolist(),
                "measured_ms": float(m),
                "spread_ms": results[n]["spread_ms"],
                "sum_ms": float(s),
                "predicted_ms": float(p),
            }
            for n, path, m, s, p in zip(
                names, paths, measured, sums, held_out, strict=True
            )
        ],
    }
    if correct:
        kept = {k: report[k] for k in ("networks", "raw")}
        corrected.metadata["check"] = kept
        corrected.save(table_path)
    return report


def checked_table(manifest, path, engine):
    """Reads a table, and refuses one of other blocks or of another engine."""
    return read_table(
        path, batch=manifest.batch, manifest=manifest.digest, **engine.describe()
    )


def describe(report):
    """The report in a few lines."""
    c = report["correction"]
    lines = [f"{report['networks']} whole networks"]
    rows = [("sum of blocks", report["raw"], "")]
    if c["kind"] != "none":
        rows.append(("corrected", c["held_out"], " (held out)"))
    for name, errors, note in rows:
        lines.append(
            f"{name}: MAPE {errors['mape_percent']:.2f} %, bias "
            f"{errors['bias_percent']:+.2f} %, Pearson {errors['pearson']:.4f}, "
            f"Kendall tau {errors['kendall_tau']:.4f}{note}"
        )
    lines.append(
        f"correction ({c['kind']}): {c['offset_ms']:+.4f} ms + {c['factor']:.4f} x sum "
        f"{c['per_block_ms']:+.5f} ms a block, fitted on {c['fitted_on']}"
    )
    return "\n".join(lines)


def save(report, path):
    """Writes the report as JSON and, where matplotlib is, a scatter picture."""
    write_json(path, report)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    _draw(figure.add_subplot(), report)
    figure.savefig(os.path.splitext(path)[0] + ".png", dpi=150)


def _draw(axes, report):
    """The sums and, where a correction was fitted, the corrected predictions."""
    series = [("sum_ms", "sum of blocks", "#c3c7ce")]
    title, errors = "sum of blocks", report["raw"]
    if report["correction"]["kind"] != "none":
        series.append(("predicted_ms", "corrected, held out", "#2563a8"))
        title, errors = "held out", report["correction"]["held_out"]
    rows = report["measured"]
    x = [r["measured_ms"] for r in rows]
    for name, label, color in series:
        y = [r[name] for r in rows]
        axes.scatter(x, y, s=22, color=color, label=label, linewidths=0)
    limits = [min(x), max(x)]
    axes.plot(limits, limits, color="#5b6068", linewidth=1, zorder=0, label="equal")
    axes.set_xlabel("measured whole, ms")
    axes.set_ylabel("predicted, ms")
    axes.set_title(
        f"{title}: MAPE {errors['mape_percent']:.1f} %, "
        f"tau {errors['kendall_tau']:.2f}",
        loc="left",
        fontweight="bold",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e9ebee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
