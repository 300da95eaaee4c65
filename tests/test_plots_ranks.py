"""Figures of rankings show the ranks and values they were given."""

import numpy as np

from keras_spos import plots
from keras_spos.ranking import kendall_tau


def test_ranks(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=30)
    scores = {f"net {i}": truth + rng.normal(size=30) * i for i in range(5)}
    figure = plots.plot_ranks(scores, truth, truth * 1e6, tmp_path / "ranks.png")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == 5
    for axes, values in zip(panels, scores.values(), strict=True):
        assert f"tau {kendall_tau(values, truth):.3f}" in axes.get_title()
        x, y = axes.collections[0].get_offsets().T
        assert x[np.argmax(values)] == 1 and y[np.argmax(truth)] == 1
        np.testing.assert_array_equal(axes.collections[0].get_array(), truth * 1e6)
        assert sorted(x) == sorted(y) == list(range(1, 31))
    assert (tmp_path / "ranks.png").read_bytes()[:4] == b"\x89PNG"


def test_ranks_without_a_cost():
    (axes,) = plots.plot_ranks({"net": [0.1, 0.3, 0.2]}, [1, 3, 2]).axes
    assert axes.collections[0].get_offsets().tolist() == [[3, 3], [1, 1], [2, 2]]


def test_search_curves(tmp_path):
    evaluations = [10, 20, 30]
    values = np.array([[3.0, 1.0, 0.0], [5.0, 2.0, 0.5], [4.0, 3.0, 0.0]])
    figure = plots.plot_search_curves(
        {"evolution": (evaluations, values), "random": (evaluations, values + 1)},
        tmp_path / "curves.png",
    )
    (axes,) = figure.axes
    assert axes.lines[0].get_ydata().tolist() == [4, 2, 0]
    assert axes.lines[1].get_ydata().tolist() == [5, 3, 1]
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band if point[0] == 20} == {(20, 1.5), (20, 2.5)}
    # Linear below the lowest above 0.
    assert axes.get_yscale() == "symlog"
    assert axes.yaxis.get_transform().linthresh == 0.5
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_search_curves_that_lose_nothing():
    (axes,) = plots.plot_search_curves({"a": ([1, 2], np.zeros((3, 2)))}).axes
    assert axes.get_yscale() == "linear"


def test_what_was_found(tmp_path):
    costs, truth = np.arange(40) * 1e6, np.linspace(10, 90, 40)
    found = {"evolution": [(3e6, 70.0), (5e6, 80.0), (3e6, 70.0)], "random": [(1e6, 5)]}
    found["another"] = []
    file = tmp_path / "found.png"
    figure = plots.plot_found(costs, truth, found, file, limits=[6e6, 9e6])
    (axes,) = figure.axes
    everything, evolution, random, another = axes.collections
    np.testing.assert_array_equal(everything.get_offsets(), np.stack([costs, truth], 1))
    # What was found twice is drawn once, larger.
    assert evolution.get_offsets().tolist() == [[3e6, 70], [5e6, 80]]
    twice, once = evolution.get_sizes()
    assert twice > once and random.get_offsets().tolist() == [[1e6, 5]]
    assert not len(another.get_offsets())
    assert [line.get_xdata()[0] for line in axes.lines] == [6e6, 9e6]
    low, high = axes.get_ylim()
    assert low < 5 and high > 90
    assert [t.get_text() for t in axes.get_legend().texts] == ["all", *found]
    assert file.read_bytes()[:4] == b"\x89PNG"
