"""The style that all figures share: colours, axes, and how they are written.

Example:
    >>> figure, axes = new_figure((7, 4), "Accuracy")              # doctest: +SKIP
    >>> axes.plot(values, color=COLORS[0])                         # doctest: +SKIP
    >>> finish(figure, "accuracy.png")                             # doctest: +SKIP
"""

import os

import numpy as np

COLORS = (
    "#2f6db5",
    "#e07b39",
    "#3a9a6d",
    "#b4528f",
    "#8a7fc7",
    "#c9a227",
    "#5aa9c4",
    "#8c6d5a",
)
GREY = "#8a8f98"


def new_figure(size, title):
    """A figure with one pair of axes in the common style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    if title:
        axes.set_title(title, loc="left", fontweight="bold")
    return figure, axes


def style(axes):
    """The common style of axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c3c7ce")
    axes.tick_params(color="#c3c7ce", labelcolor="#3c4048")
    axes.grid(True, color="#e9ebee", linewidth=0.8)
    axes.set_axisbelow(True)


def palette(n):
    """`n` colours that can be told apart: named ones, or a colour map's if many."""
    if n <= len(COLORS):
        return COLORS[:n]
    from matplotlib import colormaps

    return [tuple(color) for color in colormaps["turbo"](np.linspace(0.06, 0.94, n))]


def text_color(color):
    """Black or white, whichever reads better on the colour."""
    from matplotlib.colors import to_rgb

    return "white" if np.dot(to_rgb(color), (0.299, 0.587, 0.114)) < 0.62 else "black"


def engineering(axes):
    """Writes large figures on the x axis as 330 M."""
    from matplotlib.ticker import EngFormatter

    if max(map(abs, axes.get_xlim())) >= 1e4:
        axes.xaxis.set_major_formatter(EngFormatter())


def finish(figure, path):
    """Writes a figure if there is a path to write it to, and returns it."""
    if path is not None:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        figure.savefig(path, dpi=150, bbox_inches="tight")
    return figure
