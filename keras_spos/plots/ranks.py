"""Figures of rankings: predicted against true, and what a search loses on a table.

Example:
    >>> plot_ranks({"recalibrated": scores}, truth, flops, "ranks.png")
    ...                                                            # doctest: +SKIP
"""

import numpy as np

from keras_spos.plots.style import (
    COLORS,
    GREY,
    engineering,
    finish,
    new_figure,
    palette,
)
from keras_spos.ranking import kendall_tau


def plot_ranks(
    scores, truth, cost=None, path=None, cost_label="FLOPs", truth_label="true rank"
):
    """A panel for each ranking: the rank by score against the rank by truth.

    Args:
        scores: Dict from a name to `n` scores.
        truth: `n` numbers.
        cost: `n` costs for the dots' colours, or None.
        path: A file to write.
        cost_label: What the cost is.
        truth_label: Label of the vertical axes.

    Returns:
        A `Figure`. Rank 1 is the best; each title has Kendall's tau.
    """
    from matplotlib.figure import Figure

    columns = min(len(scores), 4)
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.9, 3.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    by_truth = _ranks(truth)
    n = len(by_truth)
    for axes in grid.flat[len(scores) :]:
        axes.remove()
    dots = None
    for axes, (name, values) in zip(grid.flat, scores.items(), strict=False):
        colors = {"c": cost, "cmap": "viridis"}
        if cost is None:
            colors = {"color": COLORS[0]}
        dots = axes.scatter(
            _ranks(values),
            by_truth,
            s=float(np.clip(4000 / n, 1, 14)),
            alpha=float(np.clip(300 / n, 0.15, 0.8)),
            linewidths=0,
            **colors,
        )
        axes.plot([1, n], [1, n], color=GREY, linewidth=0.8)
        axes.set_title(f"{name}\ntau {kendall_tau(values, truth):.3f}", fontsize=10)
        axes.set_xlabel("rank by score")
        axes.set_xlim(n + 1, 0)
        axes.set_ylim(n + 1, 0)
        axes.spines[["top", "right"]].set_visible(False)
    for row in grid:
        row[0].set_ylabel(truth_label)
    if cost is not None:
        used = list(grid.flat[: len(scores)])
        bar = figure.colorbar(dots, ax=used, label=cost_label, shrink=0.8)
        bar.solids.set_alpha(1)
        if max(cost) >= 1e4:
            from matplotlib.ticker import EngFormatter

            bar.ax.yaxis.set_major_formatter(EngFormatter())
    return finish(figure, path)


def plot_search_curves(
    curves, path=None, y="regret", x="evaluated architectures", title=None, log=True
):
    """Medians over seeds with the range of the middle half.

    Args:
        curves: Dict from a name to (evaluations ``[n]``, values ``[seeds, n]``).
        path: A file to write.
        y: What the values are.
        x: What the evaluations are.
        title: The figure's title.
        log: Whether the vertical axis is logarithmic, down to the lowest value above 0.

    Returns:
        A `Figure`.
    """
    figure, axes = new_figure((6.4, 4.2), title)
    lowest = np.inf
    for (name, (evaluations, values)), color in zip(
        curves.items(), palette(len(curves)), strict=True
    ):
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
        axes.fill_between(evaluations, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(evaluations, middle, color=color, linewidth=1.8, label=name)
        above = np.asarray(values)[np.asarray(values) > 0]
        lowest = min(lowest, above.min() if len(above) else np.inf)
    if log and np.isfinite(lowest):
        axes.set_yscale("symlog", linthresh=lowest)
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(left=0)
    engineering(axes)
    axes.legend(frameon=False)
    return finish(figure, path)


def plot_found(
    costs, truth, found, path=None, limits=(), xlabel="FLOPs", ylabel="accuracy"
):
    """What searches found among all architectures of a table.

    Args:
        costs: `n` costs, of all architectures.
        truth: Their accuracies.
        found: Dict from a name to (cost, accuracy) pairs.
        path: A file to write.
        limits: Costs to mark by vertical lines.
        xlabel: What the costs are.
        ylabel: What the accuracies are.

    Returns:
        A `Figure`. The vertical axis leaves out the lowest tenth of all architectures.
    """
    figure, axes = new_figure((7.2, 4.4), None)
    axes.scatter(costs, truth, s=3, color=GREY, alpha=0.25, linewidths=0, label="all")
    for limit in limits:
        axes.axvline(limit, color=GREY, linestyle=(0, (4, 2)), linewidth=1.3)
    for (name, pairs), color in zip(found.items(), palette(len(found)), strict=True):
        # Searches find some networks again and again: these are larger.
        pairs = np.reshape(pairs, (-1, 2))  # There may be none.
        pairs, times = np.unique(pairs, axis=0, return_counts=True)
        size = 18 * np.sqrt(times)
        axes.scatter(*pairs.T, s=size, color=color, edgecolors="w", label=name)
    lowest = min([np.quantile(truth, 0.1), *(a for p in found.values() for _, a in p)])
    margin = 0.04 * (np.max(truth) - lowest)
    axes.set_ylim(lowest - margin, np.max(truth) + margin)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    engineering(axes)
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="w")
    return finish(figure, path)


def _ranks(values):
    """Ranks from the best, 1; ties share their mean rank."""
    from scipy import stats  # Slow to import.

    return stats.rankdata(-np.asarray(values, dtype=np.float64))
