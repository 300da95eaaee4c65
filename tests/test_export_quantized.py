"""Quantized networks are exported with their quantization, to integers."""

import keras
import numpy as np
import onnx
import pytest
from models import SHAPE, randomize

from keras_spos import spaces, to_onnx
from keras_spos.export import onnx_quantized, onnx_writer
from keras_spos.layers import PACT, QuantizedConv2D


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bits", [(1, 2), (4, 4), (7, 8), (8, 8), (32, 4), (32, 32)])
def test_one_convolution(bits, bias, tmp_path):
    inputs = keras.Input(SHAPE, name="image")
    x = QuantizedConv2D(4, 3, *bits, strides=2, use_bias=bias, name="conv")(inputs)
    outputs = PACT(bits[1], name="pact")(x)
    model = randomize(keras.Model(inputs, outputs))
    for layer in (model.get_layer("conv"), model.get_layer("pact")):
        if bits[1] != 32:
            layer.alpha.assign(1.3)
    report = to_onnx(model, tmp_path / "net.onnx", tolerance=1e-5)
    assert report.writer == "keras_spos"
    integers = bits[0] < 8 and not bias
    expected = 0 if bits[1] == 32 else 1 + integers
    assert report.nodes.get("QuantizeLinear", 0) == expected
    (kernel,) = [
        onnx.numpy_helper.to_array(t)
        for t in onnx.load(report.path).graph.initializer
        if t.name == "conv/kernel"
    ]
    levels = np.unique(kernel)
    if bits[0] < 8:
        top = 2 ** bits[0] - 1
        assert kernel.dtype == np.int8
        assert set(levels.tolist()) <= set(range(-top, top + 1, 2))
    else:
        assert kernel.dtype == np.float32


TENSORFLOW_ONLY = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a minute on JAX, and no other law"
)


@TENSORFLOW_ONLY
def test_a_subnet_of_a_quantized_space(tmp_path):
    net = spaces.quantized_resnet(
        (16, 16, 3), 4, (1, 1), stage_channels=(4, 8), alpha=2.0
    )
    path = (2, 3, 0, 1)
    net = randomize(net)
    for layer in net._flatten_layers():
        for alpha in getattr(layer, "alphas", {}).values():
            alpha.assign(2.0)
    report = to_onnx(net.extract(path), tmp_path / "net.onnx", batch_size=2)
    assert report.max_abs_difference <= 1e-4 * max(1, report.max_abs_output)
    assert report.nodes["QuantizeLinear"] == 5
    # Weights of all quantized convolutions are integers: 5 of weights, 5 of inputs.
    assert report.nodes["DequantizeLinear"] == 10


@pytest.mark.parametrize("integers", [True, False])
def test_an_activation_on_the_edge_of_two_levels(integers, tmp_path, monkeypatch):
    """1.5, of levels 0 to 3: it is 2, and 1 if its last digit is another."""
    inputs = keras.Input((1, 1, 1))
    edge, pact = keras.layers.Conv2D(1, 1), PACT(2, 3.0, name="pact")
    model = keras.Model(inputs, 10 * pact(edge(inputs)))
    activations = onnx_quantized.activations
    monkeypatch.setattr(
        onnx_quantized, "activations", lambda *a: activations(*a[:4], integers)
    )
    standard = onnx_writer._standard

    def export(ours, written):
        """The model's activation is one number, and the file's another."""
        edge.set_weights([np.zeros((1, 1, 1, 1)), np.array([ours])])
        monkeypatch.setattr(
            onnx_writer,
            "_standard",
            lambda a: standard(np.full(1, written) if a.shape == (1,) else a),
        )
        return to_onnx(model, tmp_path / "a.onnx")

    assert export(1.5, 1.5).max_abs_output == 20
    # What follows is compared from level 1 on.
    report = export(1.5, np.nextafter(np.float32(1.5), np.float32(0)))
    assert (report.max_abs_difference, report.max_abs_output) == (0, 10)
    for ours, written in ((1.5, 0.4), (1.5, 2.6), (1.4, 1.6), (0.4, 3.5)):
        with pytest.raises(ValueError, match="quantized inputs of layer 'pact' differ"):
            export(ours, written)


def wider_steps(monkeypatch):
    step = onnx_quantized.step
    monkeypatch.setattr(onnx_quantized, "step", lambda a, bits: step(a, bits - 1))


def another_range(monkeypatch):
    step = onnx_quantized.step
    monkeypatch.setattr(onnx_quantized, "step", lambda a, bits: step(1.01 * a, bits))


def fewer_weight_bits(monkeypatch):
    dorefa = onnx_quantized.dorefa
    monkeypatch.setattr(onnx_quantized, "dorefa", lambda w, bits: dorefa(w, bits - 1))


def weights_of_zero(monkeypatch):
    standard = onnx_writer._standard
    monkeypatch.setattr(
        onnx_writer, "_standard", lambda a: standard(a * (np.ndim(a) != 4))
    )


def a_classifier_of_zero(monkeypatch):
    standard = onnx_writer._standard
    monkeypatch.setattr(
        onnx_writer, "_standard", lambda a: standard(a * (np.ndim(a) != 2))
    )


BREAKS = [
    wider_steps,
    another_range,
    fewer_weight_bits,
    weights_of_zero,
    a_classifier_of_zero,
]


@pytest.fixture(scope="module")
def quantized():
    keras.utils.set_random_seed(0)
    return spaces.quantized_resnet(
        (16, 16, 3),
        4,
        (2, 2),
        stage_channels=(8, 16),
        bits=((1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4), (8, 8)),
    )


@TENSORFLOW_ONLY
@pytest.mark.parametrize("batch_size", [1, 32, None])
def test_right_files_are_accepted(quantized, batch_size, tmp_path):
    """With 32 images of four bits there are activations on the edge of two levels."""
    for path in (
        (2, 2) * 4,
        (0, 0) * 4,
        (1, 1) * 4,
        (1, 3) * 4,
        (2, 0, 0, 2, 1, 3) * 2,
    ):
        model = quantized.extract(path[:8])
        report = to_onnx(model, tmp_path / "a.onnx", batch_size=batch_size)
        assert report.max_abs_difference <= 1e-4 * report.max_abs_output


@TENSORFLOW_ONLY
def test_hundreds_of_thousands_of_activations(tmp_path):
    """Some are on the edge of two levels, whatever the weights."""
    keras.utils.set_random_seed(2)
    net = spaces.resnet18_quantized((32, 32, 3), 10)
    model = net.extract(net.named_paths["4W4A"])
    report = to_onnx(model, tmp_path / "a.onnx", batch_size=8)
    assert report.max_abs_difference <= 1e-4 * report.max_abs_output


@TENSORFLOW_ONLY
@pytest.mark.parametrize("wrong", BREAKS)
@pytest.mark.parametrize("path", [(1, 5) * 4, (1, 1) * 4])
def test_wrong_files_are_refused(quantized, path, wrong, tmp_path, monkeypatch):
    model = quantized.extract(path)
    wrong(monkeypatch)
    for batch_size in (1, 32):
        with pytest.raises(ValueError, match="differ from the model's by"):
            to_onnx(model, tmp_path / "a.onnx", batch_size=batch_size)
    assert not list(tmp_path.iterdir())
