"""Figures of widths and bit widths: what a network has in each block.

Example:
    >>> paths = {"found": result.best.path, "2W2A": net.named_paths["2W2A"]}
    >>> plot_settings(bitops, paths, "bits.png")                   # doctest: +SKIP
"""

import numpy as np

from keras_spos.plots.style import finish, new_figure, text_color


def plot_settings(table, paths, path=None, title=None):
    """A map of networks against blocks: the options in words, the cost in colour.

    Args:
        table: A `CostTable`, such as `bitops_table(net)`.
        paths: Dict from a name to a path.
        path: A file to write.
        title: The figure's title.

    Returns:
        A `Figure`. The darker a block, the larger its share of the dearest choice that
        any block of the space offers.
    """
    from matplotlib import colormaps

    space = table.space
    rows = {name: space.path(one) for name, one in paths.items()}
    texts = [
        [
            "\n".join(space.decisions[d].options[one[d]] for d in block.decisions)
            for block in table.blocks
        ]
        for one in rows.values()
    ]
    costs = np.array(
        [
            [
                block.costs[tuple(one[d] for d in block.decisions)]
                for block in table.blocks
            ]
            for one in rows.values()
        ]
    )
    lines = max(text.count("\n") + 1 for row in texts for text in row)
    longest = max(len(t) for row in texts for text in row for t in text.split("\n"))
    cell = max(0.09 * longest + 0.12, 0.5), 0.19 * lines + 0.16
    names = [f"{name}\n{table(one)[0]:.4g} {table.unit}" for name, one in rows.items()]
    margin = 0.085 * max(len(t) for name in names for t in name.split("\n")) + 0.3
    size = (
        cell[0] * len(table.blocks) + margin,
        max(cell[1], 0.42) * len(rows) + 0.9 + (0.3 if title else 0),
    )
    figure, axes = new_figure(size, title)
    high = max(block.costs.max() for block in table.blocks)
    shades = colormaps["YlGnBu"](0.05 + 0.85 * costs / (high or 1.0))
    axes.imshow(shades, aspect="auto")
    for row, column in np.ndindex(costs.shape):
        axes.text(
            column,
            row,
            texts[row][column],
            ha="center",
            va="center",
            fontsize=8,
            color=text_color(shades[row, column]),
        )
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xticks(
        range(len(table.blocks)),
        [block.name.removeprefix("block_") for block in table.blocks],
        fontsize=8,
    )
    axes.set_xlabel("block")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return finish(figure, path)
