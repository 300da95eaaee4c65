"""TensorFlow Lite files are written of any layer that it knows, without tf_keras."""

import keras
import numpy as np
import pytest
from keras import layers
from models import randomize

from keras_spos import to_int8
from keras_spos.export import int8

SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).random((30, *SHAPE), dtype="float32")


def network(*graph):
    x = inputs = keras.Input(SHAPE, name="an image")
    for layer in graph:
        x = layer(x)
    return randomize(keras.Model(inputs, x, name="net"), scale=0.5)


def u_net(x):
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(6, 3, padding="same")(x))
    y = layers.LeakyReLU(0.2)(layers.SeparableConv2D(8, 3, 2, padding="same")(x))
    y = layers.RandomFlip()(layers.UpSampling2D(interpolation="bilinear")(y))
    y = layers.Maximum()([layers.Conv2DTranspose(6, 3, padding="same")(y), x])
    return layers.Concatenate()([layers.Rescaling(2.0, -1)(y), x])


def volumes(x):
    x = layers.Conv3D(4, 2)(layers.Reshape((4, 4, 4, 3))(x))
    return layers.Dense(5, "gelu")(layers.GlobalMaxPooling3D()(x))


@pytest.mark.parametrize("graph", [u_net, volumes])
def test_layers_that_keras_2_lacks_or_calls_otherwise(graph, tmp_path):
    model = network(graph)
    path = str(tmp_path / "net.tflite")
    report = to_int8(model, IMAGES, path)
    assert report.twin_difference is None and report.method == "post-training"
    expected = model.predict(IMAGES, verbose=0)
    differences = int8._run_tflite(path, IMAGES) - expected
    assert np.std(differences) < 0.08 * np.std(expected)


def test_files_that_are_far_from_the_model_are_warned_of(tmp_path):
    """Beside a mask of -1e9, all numbers are one."""
    mask = np.array([0.0, -1e9, 0.0], "float32")
    model = network(layers.Conv2D(3, 1), lambda x: keras.ops.softmax(9 * x + mask))
    with pytest.warns(UserWarning, match="Output 0 of the file is off by .*%"):
        to_int8(model, IMAGES, tmp_path / "net.tflite")


@pytest.mark.parametrize(
    "graph, message",
    [
        ([layers.Reshape((8, 24)), layers.LSTM(4)], "without loops. Received: 'net'"),
        ([layers.Resizing(9, 9, "bicubic")], "does not take 'net': .*ResizeBicubic"),
    ],
)
def test_what_tensorflow_lite_does_not_take(graph, message, tmp_path):
    with pytest.raises(ValueError, match=f"{message}.*ONNX"):
        to_int8(network(*graph), IMAGES, tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())
