"""What the README shows runs as printed, but for sizes."""

import functools
import pathlib
import re

import keras
import numpy as np
import pytest
from photos import smooth

import keras_spos as ks
from keras_spos import search

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
FIRST, OWN, LOOK, PHOTOS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[:4]


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


def test_a_folder_of_photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            smooth(240, 260, seed=i).save(tmp_path / "photos" / name / f"{i}.jpg")
    inputs = keras.Input((224, 224, 3))
    options = [keras.layers.Conv2D(2, k, strides=8) for k in (1, 3)]
    x = keras.layers.GlobalAveragePooling2D()(ks.ChoiceBlock(options)(inputs))
    net = ks.Supernet(inputs, keras.layers.Dense(2)(x))
    net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    names = {"net": net, "ks": ks}
    text = PHOTOS
    for shown, small in {
        '"photos"': '"photos", 2, 2',
        "128": "4",
        "120": "1, verbose=0",
        "2000": "4",
    }.items():
        assert shown in text
        text = text.replace(shown, small, 1)
    exec(text, names)
    assert len(names["train"]) == 2
    scores = names["score"]([(0,), (1,)])
    assert np.all((scores >= 0) & (scores <= 1))
