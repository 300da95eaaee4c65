"""The map of widths and bit widths says what each block has."""

import numpy as np
from matplotlib import colormaps

from keras_spos import CostTable, Decision, SearchSpace
from keras_spos.costs import Block
from keras_spos.plots import plot_settings


def test_every_block_of_every_network(tmp_path):
    space = SearchSpace(
        [
            Decision("block_0_width", ("0.5x", "1x")),
            Decision("block_0_bits", ("1W2A", "4W4A")),
            Decision("block_1_width", ("0.5x", "1x")),
        ]
    )
    costs = np.array([[1.0, 2.0], [3.0, 4.0]])
    blocks = [Block("block_0", (0, 1), costs), Block("block_1", (2,), [1.0, 2.0])]
    table = CostTable(space, 0, blocks, "bitops", "G")
    paths = {"a": (0, 1, 1), "b": (1, 1, 0)}
    figure = plot_settings(table, paths, tmp_path / "map.png")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == [
        "0.5x\n4W4A",
        "1x",
        "1x\n4W4A",
        "0.5x",
    ]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a\n4 G", "b\n5 G"]
    shades = np.asarray(axes.images[0].get_array())[..., :3].mean(axis=-1)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1"]
    # Darker is dearer: 2, 2; 4, 1. The dearest choice is nearly as dark as can be.
    dark = axes.images[0].get_array()[1, 0]
    np.testing.assert_array_equal(dark, colormaps["YlGnBu"](0.9))
    assert shades[1, 0] < shades[0, 0] == shades[0, 1] < shades[1, 1]
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_blocks_that_cost_nothing(tmp_path):
    space = SearchSpace([Decision("block_0", ("a", "b"))])
    table = CostTable(space, 1.0, [Block("block_0", (0,), [0.0, 0.0])], "flops", "")
    figure = plot_settings(table, {"a": (0,)}, tmp_path / "map.png")
    assert np.all(np.isfinite(figure.axes[0].images[0].get_array()))
