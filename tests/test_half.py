"""Half-precision files compute what the float ones do, as nearly as 11 bits can."""

import keras
import numpy as np
import onnx
import onnxruntime
from models import SHAPE, convolution, randomize

from hardware.half import to_half
from keras_spos import to_onnx


def test_a_half_precision_file_runs(tmp_path):
    inputs = keras.Input(SHAPE)
    x = keras.Sequential(convolution("c", 3))(inputs)
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
    kinds = {t.data_type for t in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds
