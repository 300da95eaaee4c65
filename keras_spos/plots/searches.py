"""Figures of searches and architectures.

Example:
    >>> results = {"evolution": a, "random search": b}             # doctest: +SKIP
    >>> plot_history(results, "figure_2.png")                      # doctest: +SKIP
"""

import numpy as np

from keras_spos.plots.style import (
    COLORS,
    GREY,
    engineering,
    finish,
    new_figure,
    palette,
    text_color,
)
from keras_spos.search.result import front


def plot_history(results, path=None, ylabel="score", title=None, hide=0.2):
    """Scores against evaluations, as in SPOS, Figure 2.

    Args:
        results: A search `Result`, or a dict from a name to each of several.
        path: A file to write, such as ``"history.png"``.
        ylabel: What the score is.
        title: The figure's title.
        hide: Share of the lowest candidates that may lie below the axis, so that a few
            bad ones do not flatten the rest. How many do is written there.

    Returns:
        A `Figure`: each candidate (dots), the best score so far (lines) and the mean of
        the top k so far (dashed).
    """
    if not isinstance(results, dict):
        results = {"search": results}
    figure, axes = new_figure((7.2, 4.6), title)
    dashed = {"linestyle": (0, (4, 2)), "linewidth": 1.3}
    colors = palette(len(results))
    # A mean of fewer is higher: the same k for all.
    k = min(len(result.topk) for result in results.values())
    for (name, result), color in zip(results.items(), colors, strict=True):
        scores = result.history.scores
        evaluations = np.arange(1, len(scores) + 1)
        axes.scatter(evaluations, scores, s=9, color=color, alpha=0.25, linewidths=0)
        rows = result.history.by_generation(k)
        means = [np.mean(row["topk"]) for row in rows]
        axes.plot([row["evaluations"] for row in rows], means, color=color, **dashed)
        best = np.maximum.accumulate(scores)
        axes.step(
            evaluations, best, where="post", color=color, linewidth=2.2, label=name
        )
    everything = np.concatenate([r.history.scores for r in results.values()])
    low, high = np.quantile(everything, hide), everything.max()
    room = (high - low) or 1.0
    axes.set_ylim(low - 0.03 * room, high + 0.06 * room)
    below = int((everything < axes.get_ylim()[0]).sum())
    if below:
        text = f"{below} of {len(everything)} candidates below"
        axes.annotate(
            text,
            (0.99, 0.02),
            xycoords="axes fraction",
            ha="right",
            color="#5b6068",
            fontsize=9,
            bbox={"facecolor": "w", "edgecolor": "none", "alpha": 0.8, "pad": 2},
        )
    axes.plot([], [], color=GREY, linewidth=2.2, label="best so far")
    axes.plot([], [], color=GREY, **dashed, label=f"mean of the top {k}")
    axes.scatter([], [], s=12, color=GREY, label="candidate")
    axes.set_xlabel("evaluated architectures")
    axes.set_ylabel(ylabel)
    axes.set_xlim(left=0)
    # In one row if the names are short.
    ncols = 5 if _longest([*results, ""]) * len(results) <= 24 else 3
    figure.legend(loc="outside lower center", ncols=ncols, frameon=False, fontsize=9)
    return finish(figure, path)


def plot_front(
    results, cost, path=None, limit=None, xlabel=None, ylabel="score", title=None
):
    """Score against a cost: every candidate, and the non-dominated ones joined.

    Args:
        results: A search `Result` that recorded the cost, or a dict from a name to each
            of several.
        cost: Name of the cost's table, such as ``"flops"``.
        path: A file to write.
        limit: A cost to mark by a vertical line.
        xlabel: What the cost is. Defaults to its name.
        ylabel: What the score is.
        title: The figure's title.

    Returns:
        A `Figure`.
    """
    if not isinstance(results, dict):
        results = {"search": results}
    figure, axes = new_figure((7.2, 4.4), title)
    for (name, result), color in zip(
        results.items(), palette(len(results)), strict=True
    ):
        history = result.history
        if cost not in history.costs:
            raise ValueError(
                f"{name!r} has the costs {sorted(history.costs)}. Received: {cost!r}."
            )
        x, y = history.costs[cost], history.scores
        axes.scatter(x, y, s=8, color=color, alpha=0.18, linewidths=0)
        best = front(history, [cost])
        axes.step(
            x[best],
            y[best],
            where="post",
            color=color,
            linewidth=1.6,
            marker="o",
            markersize=5.5,
            markeredgecolor="w",
            label=name,
        )
    if limit is not None:
        axes.axvline(limit, color=GREY, linestyle=(0, (4, 2)), linewidth=1.3)
        axes.annotate(
            "limit",
            (limit, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            color="#5b6068",
        )
    axes.set_xlabel(cost if xlabel is None else xlabel)
    axes.set_ylabel(ylabel)
    engineering(axes)
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="w")
    return finish(figure, path)


def plot_histogram(values, path=None, xlabel="cost", markers=None, bins=50, title=None):
    """How a cost or score is distributed, for one group or several.

    Args:
        values: A float array ``[n]``, or a dict from a name to each of several.
        path: A file to write.
        xlabel: What the values are.
        markers: Dict from a label to a value to mark by a vertical line. The first one
            is an edge between bins if it is within the values.
        bins: Number of bins over the range of all values.
        title: The figure's title.

    Returns:
        A `Figure`; the area of each histogram is 1.
    """
    if not isinstance(values, dict):
        values = {"all": values}
    figure, axes = new_figure((7.2, 3.8), title)
    markers = markers or {}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    for value in list(markers.values())[:1]:
        # A bin that a limit cuts would draw legal values beyond it; one that lies
        # beyond all values cuts none, and would shift the bins away from them.
        if not edges[0] <= value <= edges[-1]:
            break
        shift = value - edges[np.abs(edges - value).argmin()]
        width = edges[1] - edges[0]
        edges = np.concatenate([[edges[0] - width], edges, [edges[-1] + width]]) + shift
    for (name, data), color in zip(values.items(), palette(len(values)), strict=True):
        options = {"bins": edges, "density": True, "color": color}
        axes.hist(data, histtype="stepfilled", alpha=0.3, label=name, **options)
        axes.hist(data, histtype="step", linewidth=1.6, **options)
    for i, (label, value) in enumerate(markers.items()):
        axes.axvline(value, color="#3c4048", linestyle=(0, (4, 2)), linewidth=1.3)
        axes.annotate(
            label,
            (value, 0.95 - 0.08 * (i % 3)),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
        )
    axes.set_xlabel(xlabel)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    engineering(axes)
    if len(values) > 1:
        axes.legend(frameon=False)
    return finish(figure, path)


def plot_architecture(space, paths, path=None, title=None):
    """Draws architectures as rows of blocks, one colour per option.

    Args:
        space: The `SearchSpace`.
        paths: One path, or a dict from names to paths.
        path: A file to write.
        title: The figure's title.

    Returns:
        A `Figure`.
    """
    from matplotlib.patches import FancyBboxPatch, Patch

    if not isinstance(paths, dict):
        several = len(space.validate(paths))
        if several > 1:
            raise ValueError(
                "Expected one path, or a dict from names to paths. "
                f"Received: {several} paths."
            )
        paths = {"": paths}
    paths = {name: space.path(one) for name, one in paths.items()}
    used = {label for one in paths.values() for label in space.describe(one).values()}
    labels = list(dict.fromkeys(o for d in space.decisions for o in d.options))
    if len(labels) > len(COLORS):
        labels = [label for label in labels if label in used]
    colors = dict(zip(labels, palette(len(labels)), strict=True))
    names = [decision.name for decision in space.decisions]
    width = 0.46 * len(names) + 0.09 * (_longest(paths) + _longest(labels)) + 0.8
    height = 0.46 * len(paths) + 0.085 * _longest(names) + (0.6 if title else 0.2)
    figure, axes = new_figure((width, max(height, 0.23 * len(labels) + 0.2)), title)
    for row, one in enumerate(paths.values()):
        for column, option in enumerate(one):
            color = colors[space.decisions[column].options[option]]
            axes.add_patch(
                FancyBboxPatch(
                    (column - 0.38, row - 0.38),
                    0.76,
                    0.76,
                    boxstyle="round,pad=0,rounding_size=0.12",
                    facecolor=color,
                    edgecolor="none",
                )
            )
            axes.text(
                column,
                row,
                option,
                ha="center",
                va="center",
                color=text_color(color),
                fontsize=9,
                fontweight="bold",
            )
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(paths) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_yticks(range(len(paths)), list(paths))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, color="#5b6068")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    handles = [Patch(color=colors[label], label=label) for label in labels]
    figure.legend(
        handles=handles, loc="outside right center", frameon=False, handlelength=1
    )
    return finish(figure, path)


def plot_curves(curves, path=None, x="epoch", y="accuracy", title=None, positions=None):
    """Lines with bands, such as accuracy of sampled paths by epoch (SPOS, Figure 1).

    Args:
        curves: Dict from a name to (middle, low, high), each a sequence ``[n]``.
        path: A file to write.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        title: The figure's title.
        positions: Where on the horizontal axis the points are. Defaults to 1, 2, ...

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure, axes = new_figure((7, 4.2), title)
    for (name, (middle, low, high)), color in zip(
        curves.items(), palette(len(curves)), strict=True
    ):
        steps = range(1, len(middle) + 1) if positions is None else positions
        axes.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)
        axes.plot(steps, middle, color=color, marker="o", markersize=4, label=name)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return finish(figure, path)


def _longest(texts):
    return max(map(len, texts))
