"""Figures show what they were given, and touch nothing global."""

import sys

import numpy as np
import pytest
from landscapes import Landscape, make_space, make_table
from matplotlib.colors import to_hex

from keras_spos import plots, search
from keras_spos.plots.style import COLORS, palette

SPACE = make_space(*[3] * 6)
FLOPS = make_table(SPACE, base=1e6)


@pytest.fixture(scope="module")
def results():
    options = {"costs": [FLOPS], "verbose": False}
    return {
        "evolution": search.evolve(
            SPACE, Landscape(SPACE), population=20, generations=4, **options
        ),
        "random": search.random_search(
            SPACE, Landscape(SPACE), evaluations=80, batch=20, **options
        ),
    }


def lines(figure, label):
    (axes,) = figure.axes
    return [line for line in axes.lines if line.get_label() == label]


def is_png(path):
    return path.read_bytes()[:4] == b"\x89PNG"


def test_history(results, tmp_path):
    figure = plots.plot_history(results, tmp_path / "new" / "history.png")
    (best,) = lines(figure, "evolution")
    scores = results["evolution"].history.scores
    np.testing.assert_array_equal(best.get_ydata(), np.maximum.accumulate(scores))
    (axes,) = figure.axes
    colors = [line.get_color() for name in results for line in lines(figure, name)]
    dashes = [axes.lines[i].get_color() for i in (0, 2)]
    dots = [to_hex(one.get_facecolor()[0]) for one in axes.collections[:2]]
    assert colors == dashes == dots == list(COLORS[:2])
    everything = np.concatenate([r.history.scores for r in results.values()])
    below = (everything < axes.get_ylim()[0]).sum()
    assert [text.get_text() for text in axes.texts] == [
        f"{below} of 160 candidates below"
    ]
    assert is_png(tmp_path / "new" / "history.png")


def test_history_compares_means_of_as_many(results):
    options = {"population": 20, "generations": 4, "topk": 3, "verbose": False}
    three = search.evolve(SPACE, Landscape(SPACE), **options)
    ten = results["random"]
    (axes,) = plots.plot_history({"three": three, "ten": ten}).axes
    assert axes.lines[-1].get_label() == "mean of the top 3"
    for result, dashed in ((three, axes.lines[0]), (ten, axes.lines[2])):
        first = np.sort(result.history.scores[:20])
        np.testing.assert_allclose(dashed.get_ydata()[0], first[-3:].mean())
        assert list(dashed.get_xdata()) == [20, 40, 60, 80]


def test_history_of_equal_scores():
    flat = search.random_search(
        SPACE, lambda paths: np.full(len(paths), 0.5), evaluations=4, verbose=False
    )
    (axes,) = plots.plot_history(flat).axes
    assert axes.get_ylim()[0] < 0.5 < axes.get_ylim()[1]


def test_front(results, tmp_path):
    figure = plots.plot_front(
        results, "flops", tmp_path / "front.png", limit=1e6 + 20, title="Table"
    )
    (axes,) = figure.axes
    history = results["random"].history
    dots = axes.collections[1].get_offsets().T
    np.testing.assert_array_equal(dots, [history.costs["flops"], history.scores])
    assert list(axes.lines[-1].get_xdata()) == [1e6 + 20] * 2
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("Table", "flops")
    assert axes.xaxis.get_major_formatter()(2e6) == "2 M"
    (front,) = lines(figure, "random")
    costs, scores = front.get_xdata(), front.get_ydata()
    assert np.all(np.diff(costs) > 0) and np.all(np.diff(scores) > 0)
    assert set(zip(costs, scores, strict=True)) <= set(zip(*dots, strict=True))
    assert scores[-1] == results["random"].best.score
    assert is_png(tmp_path / "front.png")
    with pytest.raises(ValueError, match="has the costs .'flops'.. Received: 'params'"):
        plots.plot_front(results, "params")
    (axes,) = plots.plot_front(results["random"], "flops").axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets().T, dots)


def test_histogram_does_not_draw_legal_values_beyond_the_limit(tmp_path):
    costs = np.linspace(0, 10, 101)
    figure = plots.plot_histogram(
        {"all": costs, "legal": costs[costs < 6.05]},
        tmp_path / "histogram.png",
        markers={"limit": 6.05},
        bins=7,
    )
    (axes,) = figure.axes
    right = [patch.get_path().get_extents().x1 for patch in axes.patches]
    assert right[2] == right[3] > 6.05  # the bins reach as far for both, but ...
    heights = axes.patches[2].get_path().vertices
    assert heights[heights[:, 0] > 6.05 + 1e-9][:, 1].max() == 0
    assert list(axes.lines[0].get_xdata()) == [6.05] * 2
    outline = axes.patches[3].get_path().vertices
    area = np.diff(outline[::2, 0]) @ outline[1:-1:2, 1]
    np.testing.assert_allclose(area, 1)
    assert is_png(tmp_path / "histogram.png")
    (alone,) = plots.plot_histogram(costs, bins=7).axes
    assert len(alone.patches) == 2 and alone.get_legend() is None


@pytest.mark.parametrize("limit", [-3, 10.7, 50])
def test_histogram_draws_all_values_when_the_limit_is_beyond_them(limit):
    costs = np.linspace(0, 10, 101)
    figure = plots.plot_histogram({"all": costs}, markers={"limit": limit}, bins=20)
    box = figure.axes[0].patches[0].get_path().get_extents()
    assert box.x0 <= 0 and box.x1 >= 10 and box.y1 > 0


@pytest.mark.parametrize("positions", [None, [5, 10], np.array([5, 10])])
def test_curves_stand_where_they_are_told(positions):
    curves = {"a": ([0.2, 0.4], [0.1, 0.3], [0.3, 0.5])}
    figure = plots.plot_curves(curves, positions=positions)
    (line,), (band,) = figure.axes[0].lines, figure.axes[0].collections
    steps = [1, 2] if positions is None else [5, 10]
    np.testing.assert_array_equal(line.get_xydata().T, [steps, (0.2, 0.4)])
    ends = zip([*steps, *steps], (0.1, 0.3, 0.3, 0.5), strict=True)
    assert set(map(tuple, band.get_paths()[0].vertices)) == set(ends)


@pytest.mark.parametrize("sizes", [[3] * 6, [12, 3, 12]])
def test_architecture(sizes, tmp_path):
    space = make_space(*sizes)
    path = space.sample(1)[0]
    figure = plots.plot_architecture(space, {"a": path, "b": path}, tmp_path / "a.png")
    (axes,) = figure.axes
    assert [int(text.get_text()) for text in axes.texts] == [*path, *path]
    assert len(axes.patches) == 2 * len(sizes)
    (legend,) = figure.legends
    colors = {
        text.get_text(): patch.get_facecolor()
        for text, patch in zip(legend.texts, legend.get_patches(), strict=True)
    }
    few = max(sizes) == 3  # Then all are explained, drawn or not.
    options = list(space.describe(path).values())
    assert set(colors) == {*options, *(space.decisions[0].options if few else ())}
    drawn = [patch.get_facecolor() for patch in axes.patches]
    assert drawn == [colors[option] for option in options] * 2
    assert len(set(drawn)) == len(set(options))
    assert is_png(tmp_path / "a.png")
    assert len(plots.plot_architecture(space, path).axes[0].texts) == len(sizes)
    with pytest.raises(ValueError, match="a dict from names to paths. Received: 3 pat"):
        plots.plot_architecture(space, [path] * 3)


def test_pyplot_is_not_imported(results):
    before = sys.modules.pop("matplotlib.pyplot", None)
    plots.plot_history(next(iter(results.values())))
    assert "matplotlib.pyplot" not in sys.modules
    if before is not None:
        sys.modules["matplotlib.pyplot"] = before


def test_many_colours_can_be_told_apart():
    assert [len(set(palette(n))) for n in (1, 8, 9, 30)] == [1, 8, 9, 30]
