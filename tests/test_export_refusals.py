"""What `to_onnx` refuses: arguments, and files that compute another thing."""

import os

import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops
from models import model_of, small_net

import keras_spos as ks
from keras_spos.export import onnx_compare


def test_what_is_refused(tmp_path):
    net = small_net()
    file = tmp_path / "a.onnx"
    for model in (net, keras.Sequential([net])):
        with pytest.raises(ValueError, match="extract a subnet first"):
            ks.to_onnx(model, file)
    subnet = net.extract()
    for names in (["imgae"], ["image", "classifer"], "image"):
        with pytest.raises(ValueError, match=r"\['image', 'classifier'\], the inputs"):
            ks.to_onnx(subnet, file, channels_first=names)
    with pytest.raises(ValueError, match="opset >= 13"):
        ks.to_onnx(subnet, file, opset=9)
    with pytest.raises(ValueError, match="at least 1"):
        ks.to_onnx(subnet, file, batch_size=0)
    with pytest.raises(ValueError, match="has been called"):
        ks.to_onnx(keras.Sequential([layers.Dense(2)]), file)
    fixed = keras.Input((2,), batch_size=4)
    with pytest.raises(ValueError, match="batch size 4 built in"):
        ks.to_onnx(keras.Model(fixed, layers.ReLU()(fixed)), file)
    open_image = keras.Input((None, None, 3), name="image")
    with pytest.raises(ValueError, match=r"'image' of shape \(None, None, 3\).*verify"):
        ks.to_onnx(keras.Model(open_image, layers.ReLU()(open_image)), file)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_a_wrong_file_is_not_left(tmp_path, monkeypatch, wrong):
    from keras_spos.export import onnx_writer

    model = model_of(layers.Conv2D(4, 3), layers.GlobalAveragePooling2D())
    file = tmp_path / "a.onnx"
    file.write_bytes(b"what was there before")
    standard = onnx_writer._standard
    monkeypatch.setattr(onnx_writer, "_standard", lambda a: standard(a * wrong))
    with pytest.raises(ValueError, match="differ from the model's by"):
        ks.to_onnx(model, file)
    assert file.read_bytes() == b"what was there before"
    assert os.listdir(tmp_path) == ["a.onnx"]
    report = ks.to_onnx(model, file, verify=False)
    assert report.max_abs_difference is None
    assert onnx.load(file).producer_name == "keras_spos"


def test_a_model_that_random_images_do_not_suit(tmp_path):
    """The logarithm of negative numbers: the file gives what the model does."""
    model = model_of(ops.log, layers.Conv2D(2, 1, name="head"))
    file = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match="'head' are not finite.*verify=False"):
        ks.to_onnx(model, file)
    assert ks.to_onnx(model, file, verify=False).writer == "keras_spos"


def fresh_network():
    """A small, deep one: what it gives is near 1e-6."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    start = keras.initializers.RandomNormal(stddev=0.02, seed=1)
    for _ in range(6):
        x = layers.Conv2D(8, 3, padding="same", kernel_initializer=start)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(4, name="classifier")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


@pytest.mark.parametrize("wrong", [0, 1.01])
@pytest.mark.parametrize("axes", [2, 4])
def test_a_wrong_file_of_tiny_outputs(wrong, axes, tmp_path, monkeypatch):
    from keras_spos.export import onnx_writer

    model = fresh_network()
    report = ks.to_onnx(model, tmp_path / "a.onnx")
    assert 0 < report.max_abs_output < 1e-4
    # Beside an output of another size as well.
    twice = keras.Model(model.inputs, [model.inputs[0] * 10, *model.outputs])
    ks.to_onnx(twice, tmp_path / "a.onnx")
    standard = onnx_writer._standard
    monkeypatch.setattr(
        onnx_writer,
        "_standard",
        lambda a: standard(a * wrong if np.ndim(a) == axes else a),
    )
    for wrongly in (model, twice):
        with pytest.raises(ValueError, match="outputs 'classifier' differ"):
            ks.to_onnx(wrongly, tmp_path / "b.onnx")
    assert os.listdir(tmp_path) == ["a.onnx"]


def test_outputs_that_float32_cannot_tell_from_zero(tmp_path, monkeypatch):
    """1000 + x - 1000, x near 1e-3: folded into one convolution, Keras loses digits."""
    from keras_spos.export import onnx_writer

    conv, norm = layers.Conv2D(2, 1), layers.BatchNormalization(epsilon=0.0)
    model = model_of(conv, norm)
    conv.set_weights([np.full((1, 1, 6, 2), 1e-3), np.full(2, 1e3)])
    norm.set_weights([np.array([a] * 2) for a in (1.0, 0.0, 1e3, 1.0)])
    report = ks.to_onnx(model, tmp_path / "a.onnx")
    assert 1e-4 < report.max_abs_difference / report.max_abs_output < 0.1
    # A bias of 1 for 0 is beyond what a tenth of the tolerance moves 1000 by, 0.01.
    standard = onnx_writer._standard
    with monkeypatch.context() as patch:
        patch.setattr(onnx_writer, "_standard", lambda a: standard(a + (a.ndim == 1)))
        with pytest.raises(ValueError, match="differ from the model's by 1 "):
            ks.to_onnx(model, tmp_path / "b.onnx")
    nothing = layers.Dense(3, "relu", bias_initializer=keras.initializers.Constant(-99))
    inputs = keras.Input((4,))
    report = ks.to_onnx(keras.Model(inputs, nothing(inputs)), tmp_path / "a.onnx")
    assert (report.max_abs_difference, report.max_abs_output) == (0, 0)


def test_a_wrong_file_is_no_rounding_whatever_measures_that(monkeypatch, tmp_path):
    """What rounding may move is measured by a graph's own run, not against a call."""
    model = model_of(layers.Dense(3), shape=(4,))
    ks.to_onnx(model, tmp_path / "a.onnx")
    model.set_weights([2 * w for w in model.get_weights()])
    wrong = [np.zeros((1, 3))], []
    monkeypatch.setattr(onnx_compare, "run", lambda *args: wrong)
    with pytest.raises(ValueError, match="outputs 'dense.*' differ from the model's"):
        onnx_compare.compare(model, str(tmp_path / "a.onnx"), 1, 0, 1e-4)
