"""Figures of searches, architectures, rankings and the papers' own.

Each function returns a `matplotlib.figure.Figure` and writes it if given a file name.
No window is opened and no global state of matplotlib is touched.

Example:
    >>> from keras_spos import plots
    >>> plots.plot_history({"evolution": a}, "figure_2.png")       # doctest: +SKIP
    >>> plots.plot_front(results, "flops", limit=330e6)            # doctest: +SKIP
    >>> plots.plot_architecture(net.space, a.best.path)            # doctest: +SKIP
"""

from keras_spos.plots.mixpath import plot_histogram_panels, plot_shadow_parameters
from keras_spos.plots.ranks import plot_found, plot_ranks, plot_search_curves
from keras_spos.plots.searches import (
    plot_architecture,
    plot_curves,
    plot_front,
    plot_histogram,
    plot_history,
)
from keras_spos.plots.settings import plot_settings

__all__ = [
    "plot_architecture",
    "plot_curves",
    "plot_found",
    "plot_front",
    "plot_histogram",
    "plot_histogram_panels",
    "plot_history",
    "plot_ranks",
    "plot_search_curves",
    "plot_settings",
    "plot_shadow_parameters",
]
