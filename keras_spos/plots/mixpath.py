"""Figures of the MixPath paper: histograms and batch norm parameters."""

import numpy as np

from keras_spos.plots.style import COLORS, GREY, finish, palette, style


def plot_histogram_panels(panels, path=None, xlabel="accuracy", bins=30):
    """Histograms in panels side by side, on common axes (MixPath, Figure 6).

    Args:
        panels: Dict from a panel's title to a dict from a name to values ``[n]``.
        path: A file to write.
        xlabel: What the values are.
        bins: Number of bins over the range of all values.

    Returns:
        A `Figure`.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    colors = dict(zip(names, palette(len(names)), strict=True))
    everything = [values for panel in panels.values() for values in panel.values()]
    edges = np.histogram_bin_edges(np.concatenate(everything), bins)
    figure, axes = _panels(len(panels), (2.6 * len(panels) + 0.6, 3.2))
    for one, (title, panel) in zip(axes, panels.items(), strict=True):
        for name, values in panel.items():
            color = colors[name]
            options = {"bins": edges, "color": color}
            one.hist(values, histtype="stepfilled", alpha=0.3, label=name, **options)
            one.hist(values, histtype="step", linewidth=1.6, **options)
            one.axvline(np.mean(values), color=color, linestyle=(0, (4, 2)))
        one.set_title(title, loc="left", fontweight="bold")
    axes[0].set_ylabel("paths")
    figure.supxlabel(xlabel, fontsize=10)
    handles = {
        label: handle
        for one in axes
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper center",
        ncols=len(handles),
        frameon=False,
    )
    return finish(figure, path)


def plot_shadow_parameters(parts, expected=None, path=None):
    """Parameters of two shadow batch norms, and their ratios (MixPath, Figure 5).

    Args:
        parts: Dict from a parameter's name to (for one path, for two), each ``[n]``.
        expected: Dict from a parameter's name to where its ratio should centre.
        path: A file to write.

    Returns:
        A `Figure`.
    """
    figure, axes = _panels(len(parts), (2.7 * len(parts), 5.2), rows=2)
    for column, (name, pair) in enumerate(parts.items()):
        one, two = map(np.asarray, pair)
        top, bottom = axes[0][column], axes[1][column]
        order = np.argsort(two)
        top.plot(one[order], color=COLORS[0], label="one path", linewidth=1)
        top.plot(two[order], color=COLORS[1], label="two paths")
        top.set_title(name, loc="left", fontweight="bold")
        top.set_xlabel("channel, sorted")
        ratio = one / two
        center = (expected or {}).get(name, float(np.median(ratio)))
        reach = max(1.0, abs(center))
        edges = np.linspace(center - reach, center + reach, 31)
        bottom.hist(np.clip(ratio, edges[0], edges[-1]), bins=edges, color=COLORS[2])
        bottom.axvline(center, color=GREY, linestyle=(0, (4, 2)), label="expected")
        median = float(np.median(ratio))
        bottom.axvline(median, color="#3c4048", label="median")
        bottom.set_xlabel("one path / two paths")
    axes[0][0].legend(frameon=False, fontsize=8)
    axes[1][0].legend(frameon=False, fontsize=8)
    axes[1][0].set_ylabel("channels (beyond: at the ends)")
    return finish(figure, path)


def _panels(columns, size, rows=1):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    shared = {"sharex": True, "sharey": True} if rows == 1 else {}
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for one in axes.flat:
        style(one)
    return figure, axes[0] if rows == 1 else axes
