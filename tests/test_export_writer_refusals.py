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
        "a mask must be a tensor of 3": layers.MultiHeadAttention(2, 3)(
            *[layers.Reshape((16, 2))(x)] * 2, attention_mask=np.eye(16)
        ),
        "masked' is called with other arguments": layers.GlobalAveragePooling1D(
            name="masked"
        )(layers.Reshape((16, 2))(x), layers.Dense(16)(layers.Flatten()(x))),
        "activation {": layers.Dense(2, layers.LeakyReLU(0.3))(x),
        "activation 'relu'": layers.Dense(2, relu)(x),
        "threshold=1": layers.ReLU(threshold=1.0)(x),
        "training=True": layers.BatchNormalization()(x, training=True),
        "only indices, and slices with": x[:, ::-1],
        "antialias=True": layers.Resizing(3, 3, antialias=True)(x),
        "interpolation='bicubic'": layers.Resizing(3, 3, "bicubic")(x),
        "initial=3": ops.max(x, 1, initial=3),
        "Where.*a choice of bool": ops.where(x > 0, x > 1, x > 2),
        "Where.*a choice of int32": ops.where(x > 0, ops.cast(x, "int32"), 0),
        "Add.*takes or gives int32": ops.cast(x, "int32") + 1,
        "Squeeze.*a batch of one would go": ops.squeeze(x[:, :1]),
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


def test_the_batch_stays_the_first_axis():
    """A file's outputs have the batch there: also where another axis is as long."""
    x = keras.Input((4, 4))
    for outputs in (
        ops.concatenate([x, x], 0),
        layers.Concatenate(axis=0)([x, x]),
        ops.expand_dims(x, 0),
        ops.reshape(x, (-1, 8)),
        ops.sum(x),
    ):
        for batch_size in (None, 4):
            with pytest.raises(UnsupportedLayerError, match="first axis is not the ba"):
                write(keras.Model(x, outputs), batch_size)
    for message, outputs in {
        "only indices, and slices with": x[0],
        "the batch comes first": ops.transpose(x, (1, 0, 2)),
        "of all that is in a batch": ops.sum(x, 0),
        "the batch cannot be taken apart": ops.unstack(x, 4, axis=0)[0],
    }.items():
        with pytest.raises(UnsupportedLayerError, match="first axis is not the batch"):
            write(keras.Model(x, outputs))
        with pytest.raises(UnsupportedLayerError, match=message):
            write(keras.Model(x, outputs), 4)
    with pytest.raises(UnsupportedLayerError, match="first axis is not the batch"):
        write(keras.Model(x, ops.einsum("nac->ac", x)))
    kept = (ops.einsum("nac,nbc->nab", x, x), ops.matmul(np.ones((3, 4), "float32"), x))
    proto, _ = write(keras.Model(x, kept))
    assert [y.type.tensor_type.shape.dim[0].dim_param for y in proto.graph.output] == [
        "batch",
        "batch",
    ]


def test_a_batch_size_that_is_built_in_is_needed(tmp_path):
    x = keras.Input((3,))
    model = keras.Model(x, x + np.arange(12, dtype="float32").reshape(4, 3))
    with pytest.raises(ValueError, match="Add 'add.*does not take any number of im"):
        ks.to_onnx(model, tmp_path / "a.onnx", verify=False)
    with pytest.raises(ValueError, match="Add 'add.*does not take 3 of images"):
        ks.to_onnx(model, tmp_path / "a.onnx", batch_size=3)
    assert not list(tmp_path.iterdir())
    assert ks.to_onnx(model, tmp_path / "a.onnx", batch_size=4).batch_size == 4
