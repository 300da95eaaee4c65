"""MixPath's recipes train, measure and report."""

import json
import sys

import keras
import numpy as np
import pytest
from keras import layers

from recipes import mixpath_figure5, mixpath_table4


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a recipe's smoke preset; returns its folder and its report's result."""

    def run(recipe, *words):
        folder = tmp_path / recipe.__name__
        words = ["--preset", "smoke", "--output-dir", str(folder), *words]
        monkeypatch.setattr(sys, "argv", [recipe.__name__, *words])
        recipe.main()
        return folder, json.loads((folder / "report.json").read_text())["result"]

    return run


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="a minute of compiling; the steps are tested one by one",
)
def test_one_supernet_for_two_recipes(run, monkeypatch):
    monkeypatch.setattr(mixpath_table4, "IMAGES", 1)
    folder, ratios = run(mixpath_figure5)
    assert (folder / "figure5.png").stat().st_size > 1000
    assert set(ratios["first block"]) == {"mean", "variance", "scale", "offset"}
    supernet = str(folder / "m2_sbn.keras")
    _, similar = run(mixpath_table4, "--supernet", supernet)
    alike = similar["feature map, block output"]
    assert 0 < alike["mean"] <= 1
    # Two groups, one pair each.
    assert np.shape(alike["per_pair"]) == (2, 1) and similar["pairs"] == [[0, 1]]


def test_directional_derivatives():
    dense = layers.Dense(3, use_bias=False)
    dense.build((None, 2))
    kernel = keras.ops.convert_to_numpy(dense.kernel)
    x, tangents = np.ones((2, 2), "float32"), np.eye(2, dtype="float32")
    columns = mixpath_table4.jvp(lambda x: dense(x) ** 2, x, tangents)
    np.testing.assert_allclose(columns, 2 * kernel.sum(0) * kernel, 1e-5)
