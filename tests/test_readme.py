"""What the README shows runs as printed, but for sizes."""

import functools
import pathlib
import re

import keras
import numpy as np
import pytest

from keras_spos import search

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
FIRST, OWN, LOOK = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[:3]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the same on JAX, in a minute"
)
def test_in_a_minute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = functools.partial(search.evolve, population=4, generations=2, topk=2)
    monkeypatch.setattr(search, "evolve", small)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 32, 32, 3)), rng.integers(0, 10, (8, 1))
    names = {"x_train": x, "y_train": y, "x_val": x, "y_val": y}
    exec(FIRST.replace("epochs=50", "epochs=1, verbose=0"), names)
    assert names["result"].best.costs["flops"] <= 27e6
    assert (tmp_path / "best.onnx").stat().st_size > 1e6
    few = functools.partial(search.nsga2, population=4, generations=2)
    monkeypatch.setattr(search, "nsga2", few)
    exec(LOOK, names)
    for picture in ("front.png", "network.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_own_model(tmp_path):
    names = {}
    exec("import keras\nimport keras_spos as ks\n" + OWN, names)
    shown = re.search(r"describe\(\(0, 2, 1\)\)  # (.*)", OWN)[1]
    assert names["net"].space.describe((0, 2, 1)) == eval(shown)
