"""A model is rebuilt in tf_keras, for TensorFlow Lite, or refused."""

import keras
import numpy as np
import pytest
from keras import layers
from models import randomize

from keras_spos import to_int8
from keras_spos.export import int8

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="of TensorFlow alone"
)
SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).random((3, *SHAPE), dtype="float32")


def test_slices_sums_and_layers_used_twice_in_tf_keras():
    pytest.importorskip("tf_keras")
    from keras_spos.export.tf_keras_twin import largest_difference, twin

    inputs = keras.Input(SHAPE)
    x, shared = layers.Conv2D(6, 1)(inputs), layers.Conv2D(2, 1)
    outputs = shared(x[..., ::2]) + shared(x[..., 1::2]) + shared(x[..., 3:])
    model = randomize(keras.Model(inputs, outputs))
    with int8._quiet():
        copy = twin(model)
    assert largest_difference(model, copy, IMAGES) < 1e-5
    assert len(copy.weights) == 4
    rows = slice(None)
    for key in (
        (..., slice(2)),
        (rows, rows, rows, rows),
        (..., 0, rows),
        (rows, rows),
        0,
    ):
        with pytest.raises(ValueError, match="Expected a slice x"):
            twin(keras.Model(inputs, x[key]))


def test_a_layer_that_is_another_in_tf_keras():
    pytest.importorskip("tf_keras")
    inputs = keras.Input(SHAPE)
    # x / 6 + 1 / 2; in Keras 2, x / 5 + 1 / 2.
    both = [layers.ReLU()(inputs), layers.Activation("hard_sigmoid")(inputs)]
    model = keras.Model(inputs, both)
    with pytest.raises(ValueError, match="in tf_keras differs from the model by"):
        int8._checked_twin(model, IMAGES)


def test_a_layer_without_counterpart(tmp_path):
    pytest.importorskip("tf_keras")
    inputs = keras.Input(SHAPE)
    outputs = layers.GlobalMaxPooling2D(name="largest")(inputs)
    model = randomize(keras.Model(inputs, outputs))
    with pytest.raises(ValueError, match="'largest' is a GlobalMaxPooling2D"):
        to_int8(model, IMAGES, tmp_path / "net.tflite", training=(IMAGES, [0, 1, 2]))
    assert not list(tmp_path.iterdir())
