"""Quantized networks are exported with their quantization, to integers."""

import keras
import numpy as np
import onnx
import pytest
from models import SHAPE, randomize

from keras_spos import spaces, to_onnx
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


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a minute on JAX, and no other law"
)
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
