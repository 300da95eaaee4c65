"""Half-precision files compute what the float ones do, as nearly as 11 bits can."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from models import SHAPE, convolution, randomize

from hardware.half import to_half
from keras_spos import to_onnx


@pytest.mark.parametrize("larger", [False, True])
def test_a_half_precision_file_runs(tmp_path, larger):
    inputs = keras.Input(SHAPE)
    x = keras.Sequential(convolution("c", 3))(inputs)
    if larger:
        x = keras.layers.UpSampling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = randomize(keras.Model(inputs, keras.layers.Dense(4)(x)))
    path = str(tmp_path / "model.onnx")
    to_onnx(model, path)
    images = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype("float32")
    results = []
    for half in (False, True):
        if half:
            to_half(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        (output,) = session.run(
            None, {given.name: images.astype(np.float16 if half else np.float32)}
        )
        results.append(output)
    assert results[1].dtype == np.float16
    np.testing.assert_allclose(results[1], results[0], rtol=0.01, atol=0.01)
    constants = onnx.load(path).graph.initializer
    floats = [t.name for t in constants if t.data_type == onnx.TensorProto.FLOAT]
    assert all("scales" in name for name in floats) and bool(floats) == larger
