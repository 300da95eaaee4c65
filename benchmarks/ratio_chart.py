"""A chart of ratios: bars that begin at 1, on a logarithmic axis."""


def draw_ratios(file, ratios, label):
    """Draws a bar for each of a dict from name to ratio, the first one on top."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(7, 0.8 + 0.3 * len(ratios)), layout="constrained")
    axes = figure.add_subplot()
    lengths = [ratio - 1 for ratio in ratios.values()]
    bars = axes.barh(list(ratios), lengths, left=1)
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    texts = [f"{ratio:.2f}" for ratio in ratios.values()]
    axes.bar_label(bars, texts, padding=3, bbox=white)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    narrow = max(ratios.values(), default=1) < 100 * min(ratios.values(), default=1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if narrow else (1,)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.3)
    axes.set_xlabel(label)
    figure.savefig(file, dpi=120)
