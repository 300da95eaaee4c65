"""The ONNX file equals the Keras model, for every layer that the writer knows."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops
from keras.src.applications import convnext
from models import model_of

import keras_spos as ks
from keras_spos.export.onnx_functions import UnsupportedLayerError
from keras_spos.export.onnx_layers import WRITERS
from keras_spos.export.onnx_writer import write

TENSORFLOW = keras.backend.backend() == "tensorflow"


def squeeze_and_excite(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(2, 1, activation="relu")(gate)
    gate = layers.Conv2D(6, 1, activation="hard_sigmoid")(gate)
    return layers.Multiply()([x, gate])


def channel_shuffle(x):
    x = layers.Conv2D(6, 1)(x)
    x = layers.Reshape((8, 7, 2, 3))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    return layers.Conv2D(4, 1)(layers.Reshape((8, 7, 6))(x))


def dealt(x):
    """Channels taken apart after a convolution, and the input's, into uneven parts."""
    pairs = layers.Reshape((8, 7, 3, 2))(layers.Conv2D(6, 1)(x))
    a, b = ops.unstack(pairs, axis=-1)
    c, d = ops.split(x, [2], axis=-1)
    e, f = ops.split(layers.Conv2D(4, 1)(x), 2, axis=-1)
    return layers.Conv2D(4, 1)(a), b, c, layers.Conv2D(4, 1)(d), layers.Add()([e, f])


def padded_twice(x):
    """Padding that two convolutions and a pooling read."""
    x = layers.ZeroPadding2D(((1, 0), (2, 1)))(x)
    a, b = layers.Conv2D(4, 3)(x), layers.DepthwiseConv2D(3, padding="same")(x)
    return layers.Flatten()(a), layers.MaxPooling2D(2)(b), layers.Flatten()(x)


def norm_and_its_input(x):
    """A convolution that a batch norm and another layer read."""
    x = layers.Conv2D(6, 1)(x)
    return layers.Add()([layers.BatchNormalization()(x), x])


def mixed_layouts(x):
    """One input has been convolved, the other has not."""
    y = layers.Conv2D(6, 1)(x)
    lower, upper = layers.Minimum()([x, y]), layers.Maximum()([y, x])
    joined = layers.Concatenate()([x, y, layers.Average()([y, x, y])])
    return layers.Subtract()([y, x]), lower, upper, joined


def open_sizes(x):
    """A model in a model in a model, whose inputs may be of any size."""

    def nested(*graph):
        y = inputs = keras.Input((None, None, 6))
        for layer in graph:
            y = layer(y)
        return keras.Model(inputs, y)

    inner = nested(
        layers.Conv2D(4, 3),
        layers.Conv2D(5, 3, 2, "same"),
        lambda y: y[:, 1:, :-1],
    )
    outer = nested(
        inner,
        layers.Conv2DTranspose(3, 3, 3, "same"),
        layers.Cropping2D(1),
        layers.Reshape((-1, 2, 3)),
    )
    return layers.Conv2D(2, 1)(outer(x))


def positions(x):
    """Numbers that are no layer's: of each row, of each row and channel, of each."""
    row = np.linspace(-1, 1, 8, dtype="float32")[:, None, None]
    rows_and_channels = ops.convert_to_tensor(row * np.arange(3, dtype="float32"))
    y = layers.Conv2D(3, 1)(x) * rows_and_channels
    return x + row, y, y - np.float32(0.3)


def turned(x):
    """A tensor and what permutes it, which is no node: inside, and as outputs."""
    x, y = layers.Conv2D(3, 1)(x), layers.Dense(3)(x)
    tensors = [x, layers.Permute((2, 1, 3))(x), y, layers.Permute((2, 1, 3))(y)]
    return [*tensors, *(layers.Flatten()(tensor) for tensor in tensors)]


def relu(x):
    """Not Keras' own."""
    return ops.maximum(x, 0.5)


def causal_attention(x):
    """Also where there are more queries than keys, and fewer."""
    x = layers.RMSNormalization()(layers.Reshape((8, 42))(x))
    x = layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    attend = layers.MultiHeadAttention(2, 3)
    y, z = attend(x, x[:, 2:], use_causal_mask=True), layers.MultiHeadAttention(1, 2)
    return [y, z(x[:, 3:], x, use_causal_mask=True), layers.Conv1D(2, 1)(y)]


def group_norms(x):
    x = layers.GroupNormalization(3)(x)
    x = layers.GroupNormalization(2, epsilon=0.1, center=False)(layers.Conv2D(4, 1)(x))
    x = layers.RMSNormalization(epsilon=0.1)(layers.Conv2D(4, 1)(x))
    y = layers.GroupNormalization(-1, scale=False)(layers.Conv2D(4, 1)(x))
    y = layers.GroupNormalization(4, axis=1)(y)
    rows = layers.RMSNormalization([1, 2, 3])(layers.Conv2D(2, 1)(y))
    return rows, layers.GroupNormalization(2)(layers.GlobalMaxPooling2D()(y))


def attentions(x):
    """Self-attention, and that of other sizes, whose inputs come by name."""
    x = layers.Reshape((8, 42))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    y = layers.Dense(5, "gelu")(x[:, 1:4])
    # Keras on JAX takes no other width for values.
    width = 4 if TENSORFLOW else 2
    attend = layers.MultiHeadAttention(3, 2, width, use_bias=False, output_shape=7)
    return attend(y, value=x, key=layers.Dense(3)(x))


def augmentations(x):
    """Every layer of Keras that augments images in training, and then noise."""
    x = layers.Conv2D(3, 1)(x)
    known = [kind for kind in WRITERS if "image_preprocessing" in kind.__module__]
    assert layers.RandomFlip in known and layers.RandomCrop not in known
    known.remove(layers.Resizing)
    if not TENSORFLOW:
        known.remove(layers.MixUp)  # Keras' warns on JAX.
    for kind in known:
        name = kind.__name__
        if name == "RandomPosterization":
            x = kind(4)(x)
        elif name == "RandomTranslation":
            x = kind(0.2, 0.2)(x)
        elif name in ("MixUp", "CutMix", "AugMix", "RandAugment", "RandomFlip"):
            x = kind()(x)
        else:
            x = kind(0.2)(x)
    for kind in (layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout):
        x = kind(0.3)(x)
    x = layers.SpatialDropout1D(0.3)(layers.Reshape((56, 3))(x))
    return layers.SpatialDropout3D(0.3)(layers.Reshape((2, 4, 7, 3))(x))


def adapted(**arguments):
    layer = layers.Normalization(**arguments)
    layer.adapt(np.random.default_rng(0).normal(3, 2, (9, 8, 7, 3)))
    return layer


def normalizations(x):
    """By channel, in all, by row and channel, and back; before and after others."""
    x = layers.Conv2D(3, 1)(layers.Normalization(mean=1.0, variance=4.0)(x))
    y = layers.Conv2D(3, 1)(adapted()(x))
    y = adapted(axis=(1, 3))(y)
    y = layers.Rescaling([0.5, 2.0, 1.0], np.array([0.1, 0.0, 0.3]))(y)
    return adapted(axis=None)(y), adapted(invert=True)(layers.Conv2D(3, 1)(y))


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


def more_and_fewer_axes(x):
    """Around a convolution, whose channels come first in the file."""
    y = ops.expand_dims(layers.Conv2D(3, 1)(x), (1, -1))
    z = layers.GlobalAveragePooling2D(keepdims=True)(ops.squeeze(y, (1, 5)))
    return y, ops.squeeze(z, (1, -2)), ops.expand_dims(ops.squeeze(z, 1), -2)


def operations(x):
    """Functions instead of layers, before and after a convolution."""
    y = ops.relu(layers.Conv2D(6, 1)(x))
    z = ops.concatenate([ops.maximum(x, y), ops.minimum(y, 0.3)], axis=-1)
    z = ops.reshape(z, (-1, 8, 7, 3, 4))
    z = ops.transpose(z, (0, 1, 2, -1, 3))
    return [
        layers.Conv2D(2, 1)(ops.reshape(z, (-1, 8, 7, 12))),
        ops.mean(y, (1, 2)),
        ops.max(y, -1, keepdims=True),
        ops.sum(y, 1),
        ops.mean(ops.transpose(x, (0, 3, 2, 1)), -1),
    ]


def attention_by_hand(x):
    """Products of tensors, and of numbers; an einsum and a product of matrices."""
    x = ops.reshape(layers.Conv2D(4, 1)(x), (-1, 56, 4))
    scores = ops.einsum("nqc,nkc->nqk", x, ops.sqrt(ops.square(x) + 0.1))
    total = ops.exp(-ops.absolute(scores))
    y = ops.matmul(total / ops.sum(total, -1, keepdims=True), x)
    rows = np.linspace(-1, 1, 2 * 56, dtype="float32").reshape(2, 56)
    return ops.log(ops.square(y) + 1), ops.matmul(rows, y), y @ rows.reshape(4, 28)


def activations(x):
    x = layers.Conv2D(4, 1)(x)
    functions = ("gelu", "hard_sigmoid", "hard_silu", "relu6", "selu", "sigmoid")
    functions += ("silu", "softplus", "softsign", "tanh")
    outputs = [getattr(ops, name)(x) for name in functions]
    outputs += [ops.gelu(x, approximate=False), ops.softmax(x, axis=1)]
    return [*outputs, ops.leaky_relu(x, 0.3), ops.elu(x, 0.5)]


def causal(x):
    """Of time, as in WaveNet, and back to more steps."""
    x = layers.Reshape((56, 6))(x)
    x = layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(x)
    x = layers.SeparableConv1D(4, 3, padding="same")(x)
    x = layers.Conv1D(4, 2, strides=3, padding="causal")(x)
    return layers.Conv1DTranspose(3, 4, 3, padding="same")(x)


def transposed(x):
    """Each padding; kernels smaller and larger than strides, of odd and even sizes."""
    layer = layers.Conv2DTranspose
    outputs = [
        layer(3, size, strides, padding, activation="relu", use_bias=size != 2)(x)
        for padding in ("same", "valid")
        for size in (1, 2, 3, (4, 5))
        for strides in (1, 2, 3, (1, 4))
    ]
    outputs.append(layer(3, 3, 1, padding="same", dilation_rate=2)(x))
    outputs.append(layer(3, 3, 1, padding="valid", dilation_rate=(2, 3))(x))
    return [layers.Conv2D(2, 1)(y) for y in outputs]


def u_net(x):
    x = layers.Conv2D(4, 3, padding="same")(layers.Cropping2D(((0, 0), (0, 1)))(x))
    y = layers.SeparableConv2D(6, 3, 2, "same", depth_multiplier=2)(x)
    y = layers.SeparableConv2D(6, (1, 3), use_bias=False, activation="relu")(y)
    y = layers.UpSampling2D((2, 6), interpolation="bilinear")(y)
    return layers.UpSampling2D((1, 3))(layers.Concatenate()([x, y]))


def resized(x):
    """Smaller and larger, to sizes that scales would miss, before a convolution."""
    sizes = (5, 4), (13, 15), (4, 14), (16, 3), (8, 7)
    kinds = ("bilinear", "nearest")
    resizes = [layers.Resizing(*size, kind) for size in sizes for kind in kinds]
    y = layers.Conv2D(3, 1)(x)
    return [*(layers.Conv2D(2, 1)(layer(x)) for layer in resizes), resizes[0](y)]


def norms(axis):
    return [
        layers.Conv2D(6, 2, use_bias=False),
        layers.BatchNormalization(axis),
        layers.BatchNormalization(axis, center=False, scale=False, epsilon=1e-5),
        layers.ReLU(),
        layers.BatchNormalization(axis, scale=False),
    ]


MODELS = {
    "conv_stride": [layers.Conv2D(5, 3, 2, padding="same", activation="relu")],
    "conv_dilated": [layers.Conv2D(5, 3, padding="same", dilation_rate=2)],
    "conv_groups": [layers.Conv2D(4, (3, 1), groups=2, activation="relu6")],
    "depthwise": [layers.DepthwiseConv2D((5, 5), 2, "same", depth_multiplier=2)],
    "causal": [causal],
    "recurrent": [recurrent],
    "both_ways": [both_ways],
    "operations": [operations],
    "attention_by_hand": [attention_by_hand],
    "functional_activations": [activations],
    "more_and_fewer_axes": [more_and_fewer_axes],
    "transposed": [transposed],
    "u_net": [u_net],
    "resized": [resized],
    "norms": norms(-1),
    "layer_norms": [
        layers.Conv2D(6, 1),
        convnext.LayerScale(0.5, 6),
        layers.LayerNormalization(epsilon=0.1),
        layers.LayerNormalization([-1, 1, 2], center=False, scale=False),
    ],
    "group_norms": [group_norms],
    "attentions": [attentions],
    "causal_attention": [causal_attention],
    "sequence": [sequence],
    "normalizations": [normalizations],
    "norm_alone": [layers.BatchNormalization()],
    "norm_and_its_input": [norm_and_its_input],
    "padded_twice": [padded_twice],
    "max_pool": [layers.MaxPooling2D(3, 2, padding="same")],
    "average_pool": [layers.AveragePooling2D(3, 2, padding="same")],
    "global_max": [layers.GlobalMaxPooling2D(), layers.Dense(3, "softmax")],
    "words": [layers.Permute((2, 1, 3)), layers.Embedding(9, 2)],
    "dense_on_maps": [layers.Conv2D(3, 2), layers.Dense(4, "tanh")],
    "flatten": [layers.Conv2D(3, 2), layers.Flatten(), layers.Dense(2, use_bias=False)],
    "shuffle": [channel_shuffle],
    "dealt": [dealt],
    "reshape": [layers.Conv2D(3, 1), layers.Reshape((4, -1, 6))],
    "squeeze_and_excite": [squeeze_and_excite],
    "slices": [lambda x: layers.Conv2D(3, 1)(x)[:, 1:, :-1:2, 1::2]],
    "indices": [lambda x: layers.Conv2D(3, 1)(x)[:, 0, ::2, -1], lambda x: x[:, 2]],
    "ellipsis": [lambda x: x[..., :2], layers.Conv2D(2, 1)],
    "arithmetic": [lambda x: (x * 2 + x - 1.5) / 4],
    "mixed_layouts": [mixed_layouts],
    "open_sizes": [open_sizes],
    "positions": [positions],
    "turned": [turned],
    "relu": [layers.ReLU(6.0), layers.ReLU(negative_slope=0.1, max_value=0.4)],
    "bent_relu": [layers.LeakyReLU(0.4), layers.ELU(0.3)],
    "softmax": [layers.Conv2D(3, 1), layers.Softmax(), layers.Softmax(axis=1)],
    "activations": [
        layers.Activation(name)
        for name in (
            *("hard_silu", "silu", "elu", "sigmoid", "linear", "gelu", "leaky_relu"),
            *("selu", "softplus", "softsign", "softmax"),
        )
    ],
    "augmentations": [augmentations],
    "training_only": [
        layers.Dropout(0.5),
        layers.SpatialDropout2D(0.5),
        layers.ActivityRegularization(0.1),
        layers.Identity(),
        layers.Rescaling(1 / 255, -0.5),
    ],
    "nested": [
        keras.Sequential([layers.Conv2D(3, 1), layers.BatchNormalization()]),
        layers.ReLU(),
    ],
}


@pytest.mark.parametrize("name", MODELS)
def test_file_equals_model(name, tmp_path):
    model = model_of(*MODELS[name])
    for opset in (
        (13, 17, 21)
        if name in ("norms", "slices", "relu", "operations", "group_norms", "resized")
        else (17,)
    ):
        report = ks.to_onnx(model, tmp_path / "a.onnx", opset=opset, tolerance=3e-6)
        assert (report.writer, report.opset) == ("keras_spos", opset)
        assert list(report.inputs) == ["image"]
        assert list(report.outputs) == model.output_names


@pytest.mark.skipif(TENSORFLOW, reason="TensorFlow runs channels_first on GPUs only")
def test_channels_first(tmp_path):
    first = {"data_format": "channels_first"}
    model = model_of(
        layers.ZeroPadding2D(1, **first),
        layers.Conv2D(5, 3, 2, padding="same", **first),
        layers.BatchNormalization(axis=1),
        layers.Cropping2D(((0, 1), (1, 0)), **first),
        layers.MaxPooling2D(2, **first),
        layers.Flatten(**first),
    )
    report = ks.to_onnx(model, tmp_path / "a.onnx", tolerance=3e-6)
    assert report.inputs == {"image": ("batch", 8, 7, 6)}
    # Keras flattens with the channels last.
    known = ("Conv", "Slice", "MaxPool", "Transpose", "Flatten")
    assert report.nodes == dict.fromkeys(known, 1)


def test_every_known_layer_is_tested():
    graphs = [model_of(*graph) for graph in MODELS.values()]
    flat = [op for model in graphs for op in all_operations(model)]
    # Those of quantized layers have a file of their own.
    stock = {kind for kind in WRITERS if not kind.__module__.startswith("keras_spos")}
    stock -= set() if TENSORFLOW else {layers.MixUp}
    assert stock <= {type(op) for op in flat}


def all_operations(model):
    for op in getattr(model, "_functional", model).operations:
        yield from all_operations(op) if hasattr(op, "operations") else [op]


def test_convolutions_take_in_norms_and_padding():
    """gamma (2 x + 1 - mean) / sqrt(variance + epsilon) + beta, by hand."""
    x = inputs = keras.Input((1, 1, 1))
    conv, norm = layers.Conv2D(1, 3), layers.BatchNormalization(epsilon=0.0)
    model = keras.Model(inputs, norm(conv(layers.ZeroPadding2D(1)(x))))
    conv.set_weights([np.full((3, 3, 1, 1), 2.0), np.array([1.0])])
    norm.set_weights([np.array([v]) for v in (3.0, 4.0, 5.0, 16.0)])
    graph = write(model)[0].graph
    kernel, bias = (onnx.numpy_helper.to_array(t) for t in graph.initializer)
    np.testing.assert_array_equal(kernel, np.full((1, 1, 3, 3), 1.5))
    np.testing.assert_array_equal(bias, [(1 - 5) * 3 / 4 + 4])
    transpose, convolution, back = graph.node
    assert (transpose.op_type, back.op_type) == ("Transpose", "Transpose")
    pads = {a.name: a for a in convolution.attribute}["pads"]
    assert list(pads.ints) == [1, 1, 1, 1]


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
        "an axis before the batch": ops.expand_dims(x, 0),
        "the batch becomes part": ops.reshape(x, (-1, 8)),
        "the batch comes first": ops.transpose(x, (1, 0, 2, 3)),
        "of all that is in a batch": ops.sum(x),
        "antialias=True": layers.Resizing(3, 3, antialias=True)(x),
        "interpolation='bicubic'": layers.Resizing(3, 3, "bicubic")(x),
        "initial=3": ops.max(x, 1, initial=3),
        "the batch may be squeezed": ops.squeeze(x[:, :1]),
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
