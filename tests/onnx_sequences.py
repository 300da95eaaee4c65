"""Models of sequences, for the ONNX writer; see `models.model_of`."""

import keras
from keras import layers

TENSORFLOW = keras.backend.backend() == "tensorflow"


def causal_attention(x):
    """Also where there are more queries than keys, and fewer."""
    x = layers.RMSNormalization()(layers.Reshape((8, 42))(x))
    x = layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    attend = layers.MultiHeadAttention(2, 3)
    y, z = attend(x, x[:, 2:], use_causal_mask=True), layers.MultiHeadAttention(1, 2)
    return [y, z(x[:, 3:], x, use_causal_mask=True), layers.Conv1D(2, 1)(y)]


def attentions(x):
    """Self-attention, and that of other sizes, whose inputs come by name."""
    x = layers.Reshape((8, 42))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    y = layers.Dense(5, "gelu")(x[:, 1:4])
    # Keras on JAX takes no other width for values.
    width = 4 if TENSORFLOW else 2
    attend = layers.MultiHeadAttention(3, 2, width, use_bias=False, output_shape=7)
    return attend(y, value=x, key=layers.Dense(3)(x))


def masked_attention(x):
    """Of each head, of all, with dropout and without; some queries meet no key."""
    x = layers.Reshape((8, 42))(x)
    near = keras.ops.greater(keras.ops.einsum("nqc,nkc->nqk", x, x), 1.0)
    by_head = keras.ops.expand_dims(near, 1)
    later = near[:, 1:2]
    return [
        layers.MultiHeadAttention(2, 3)(x, x, attention_mask=later),
        layers.MultiHeadAttention(1, 2)(x, x, attention_mask=by_head),
        layers.MultiHeadAttention(2, 3, dropout=0.1)(
            x, x, attention_mask=keras.ops.cast(near, "float32"), use_causal_mask=True
        ),
        layers.MultiHeadAttention(2, 3)(
            x, x, attention_mask=by_head, use_causal_mask=True
        ),
    ]


def sequence(x):
    x = layers.Reshape((56, 6))(x)
    x = layers.Conv1D(4, 3, 2, padding="same")(x)
    x = layers.BatchNormalization()(layers.DepthwiseConv1D(3)(x))
    x = layers.AveragePooling1D(3, 2, padding="same")(layers.MaxPooling1D(2)(x))
    return layers.GlobalMaxPooling1D()(x), layers.GlobalAveragePooling1D()(x)


def recurrent(x):
    """Every kind, forwards and backwards, and the gates of older GRUs."""
    x = layers.Reshape((8, 42))(x)
    x = layers.LSTM(5, return_sequences=True)(x)
    y = layers.GRU(4, return_sequences=True, use_bias=False)(x)
    return [
        layers.LSTM(3, "softsign", "relu", use_bias=False, go_backwards=True)(y),
        layers.GRU(3, reset_after=False, bias_initializer="random_normal")(y),
        layers.GRU(3, go_backwards=True, bias_initializer="random_normal")(x),
        layers.SimpleRNN(3, bias_initializer="random_normal")(x),
        layers.Conv1D(2, 3)(y),
    ]


def both_ways(x):
    x = layers.Reshape((8, 42))(x)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    y = layers.Bidirectional(layers.GRU(3, return_sequences=True), "ave")(x)
    apart = layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True), None)
    ways = layers.GRU(3), layers.LSTM(3, "tanh", "sigmoid", go_backwards=True)
    return [
        layers.Subtract()(list(apart(y))),
        layers.Bidirectional(layers.LSTM(2), "sum")(y),
        layers.Bidirectional(layers.GRU(2), "mul")(x),
        layers.Bidirectional(layers.LSTM(2))(x),
        layers.Bidirectional(ways[0], backward_layer=ways[1])(x),
    ]


def causal(x):
    """Of time, as in WaveNet, and back to more steps."""
    x = layers.Reshape((56, 6))(x)
    x = layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(x)
    x = layers.SeparableConv1D(4, 3, padding="same")(x)
    x = layers.Conv1D(4, 2, strides=3, padding="causal")(x)
    return layers.Conv1DTranspose(3, 4, 3, padding="same")(x)


SEQUENCES = {
    "causal_attention": [causal_attention],
    "attentions": [attentions],
    "masked_attention": [masked_attention],
    "sequence": [sequence],
    "recurrent": [recurrent],
    "both_ways": [both_ways],
    "causal": [causal],
}
