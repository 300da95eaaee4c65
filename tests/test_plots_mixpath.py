"""MixPath's pictures show what they were given."""

import numpy as np

from keras_spos import plots


def test_histograms_share_their_axes(tmp_path):
    panels = {
        "m = 1": {"shadow": [0.1, 0.2]},
        "m = 2": {"shadow": [0.5, 0.6, 0.6], "one": [0.2]},
    }
    file = tmp_path / "figure.png"
    figure = plots.plot_histogram_panels(panels, file, bins=5)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(panels)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    means = [line.get_xdata()[0] for axes in figure.axes for line in axes.lines]
    np.testing.assert_allclose(means, [0.15, 1.7 / 3, 0.2])
    # Outlines: paths in each bin of 0.1, from 0.1 on.
    outlines = [axes.patches[1].get_path().vertices[:, 1] for axes in figure.axes]
    counts = [outline[1:-1:2].tolist() for outline in outlines]
    assert counts == [[1, 1, 0, 0, 0], [0, 0, 0, 0, 3]]
    assert file.read_bytes()[:4] == b"\x89PNG"


def test_histograms_of_many_names():
    names = [f"seed {i}" for i in range(12)]
    panel = dict.fromkeys(names, [0.1, 0.2])
    (axes,) = plots.plot_histogram_panels({"all": panel}).axes
    assert len({line.get_color() for line in axes.lines}) == 12


def test_ratios_of_shadow_batch_norms():
    two = np.array([1.0, -2.0, 4.0])
    figure = plots.plot_shadow_parameters(
        {"mean": ((two / 2).tolist(), two.tolist()), "scale": (two * 1.1, two)},
        expected={"mean": 0.5, "scale": 1.0},
    )
    (top, _, ratios, scales) = figure.axes
    np.testing.assert_array_equal(top.lines[1].get_ydata(), [-2, 1, 4])
    np.testing.assert_array_equal(top.lines[0].get_ydata(), [-1, 0.5, 2])
    assert [line.get_xdata()[0] for line in ratios.lines] == [0.5, 0.5]
    # All three channels in one bin.
    assert sorted(patch.get_height() for patch in scales.patches)[-2:] == [0, 3]


def test_ratios_around_their_median():
    """Without an expectation; those beyond are at the ends, a median of -3 away."""
    ratio = np.array([-9.0, -3.1, -3.0, -2.9, 7.0])
    figure = plots.plot_shadow_parameters({"mean": (ratio, np.ones(5))})
    bottom = figure.axes[1]
    assert [line.get_xdata()[0] for line in bottom.lines] == [-3, -3]
    bars = [p for p in bottom.patches if p.get_height()]
    centers = [p.get_x() + p.get_width() / 2 for p in bars]
    np.testing.assert_allclose(centers, [-5.9, -3.1, -2.9, -0.1])
    assert [p.get_height() for p in bars] == [1, 1, 2, 1]
