"""What the ONNX writer does not know is named."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_spos as ks
from keras_spos.export.onnx_functions import UnsupportedLayerError
from keras_spos.export.onnx_writer import write

TENSORFLOW = keras.backend.backend() == "tensorflow"


def relu(x):
    """Not Keras' own."""
    return ops.maximum(x, 0.5)


class Odd(layers.Conv2D):
    """Looks like a convolution, computes something else."""

    def call(self, inputs):
        return 2 * super().call(inputs)


def test_what_cannot_be_written_is_named(tmp_path):
    x = inputs = keras.Input((4, 4, 2))
    cases = {
        "Odd 'odd' is of an unknown type": Odd(2, 1, name="odd")(x),
        "Activation 'a': activation 'mish'": layers.Activation("mish", name="a")(x),
        r"axis=\[1\], which are not the last": layers.LayerNormalization(1)(x),
        "inputs of different rank": layers.Add()(
            [x, layers.Flatten()(layers.Conv2D(2, 4)(x))]
        ),
        "must have three axes": layers.MultiHeadAttention(2, 3)(x, x),
        "called with other arguments": layers.MultiHeadAttention(2, 3)(
            *[layers.Reshape((16, 2))(x)] * 2, attention_mask=np.eye(16)
        ),
        "masked' is called with other arguments": layers.GlobalAveragePooling1D(
            name="masked"
        )(layers.Reshape((16, 2))(x), layers.Dense(16)(layers.Flatten()(x))),
        "activation {": layers.Dense(2, layers.LeakyReLU(0.3))(x),
        "activation 'relu'": layers.Dense(2, relu)(x),
        "threshold=1": layers.ReLU(threshold=1.0)(x),
        "training=True": layers.BatchNormalization()(x, training=True),
        "only indices, and slices": x[0],
        "only indices, and slices with": x[:, ::-1],
        "ExpandDims.*the batch may be another axis": ops.expand_dims(x, 0),
        "the batch becomes part": ops.reshape(x, (-1, 8)),
        "the batch comes first": ops.transpose(x, (1, 0, 2, 3)),
        "of all that is in a batch": ops.sum(x),
        "antialias=True": layers.Resizing(3, 3, antialias=True)(x),
        "interpolation='bicubic'": layers.Resizing(3, 3, "bicubic")(x),
        "initial=3": ops.max(x, 1, initial=3),
        "Squeeze.*the batch may be another axis": ops.squeeze(x[:, :1]),
    }
    for message, outputs in cases.items():
        with pytest.raises(UnsupportedLayerError, match=message):
            write(keras.Model(inputs, outputs))
    if not TENSORFLOW:
        with pytest.raises(ValueError, match="Odd 'odd'.*KERAS_BACKEND=tensorflow"):
            ks.to_onnx(keras.Model(inputs, next(iter(cases.values()))), tmp_path / "a")
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(UnsupportedLayerError, match="each channel, which come fir"):
            write(keras.Model(inputs, layers.Rescaling([1.0, 2.0])(x)))
    finally:
        keras.config.set_image_data_format("channels_last")
    with pytest.raises(UnsupportedLayerError, match="open size"):
        write(keras.Model(y := keras.Input((None, 4, 2)), layers.ReLU()(y)))


def test_recurrent_layers_that_cannot_be_written():
    gru, both = layers.GRU, layers.Bidirectional
    back = {"return_sequences": True, "go_backwards": True}
    forth = gru(2, return_sequences=True)
    cases = {
        "go_backwards=True with": gru(2, **back),
        "GRU 'states': return_state=True": gru(2, return_state=True, name="states"),
        "GRU 'kept': stateful=True": gru(2, stateful=True, name="kept"),
        "activation 'relu6'": layers.LSTM(2, "relu6"),
        # ONNX Runtime overflows where its input is above 88.
        "activation 'softplus'": gru(2, recurrent_activation="softplus"),
        "activation 'relu'": layers.SimpleRNN(2, relu),
        "it holds a RNN": both(layers.RNN(layers.GRUCell(2))),
        "its forward layer has": both(gru(2, **back), backward_layer=forth),
    }
    words = keras.Input((5, 3), 4)
    for message, layer in cases.items():
        with pytest.raises(UnsupportedLayerError, match=message):
            write(keras.Model(words, layer(words)))
