"""The ONNX file equals the Keras model, for every layer that the writer knows."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from keras.src.applications import convnext
from models import model_of
from onnx_operations import OPERATIONS
from onnx_sequences import SEQUENCES

import keras_spos as ks
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


def turned(x):
    """A tensor and what permutes it, which is no node: inside, and as outputs."""
    x, y = layers.Conv2D(3, 1)(x), layers.Dense(3)(x)
    tensors = [x, layers.Permute((2, 1, 3))(x), y, layers.Permute((2, 1, 3))(y)]
    return [*tensors, *(layers.Flatten()(tensor) for tensor in tensors)]


def group_norms(x):
    x = layers.GroupNormalization(3)(x)
    x = layers.GroupNormalization(2, epsilon=0.1, center=False)(layers.Conv2D(4, 1)(x))
    x = layers.RMSNormalization(epsilon=0.1)(layers.Conv2D(4, 1)(x))
    y = layers.GroupNormalization(-1, scale=False)(layers.Conv2D(4, 1)(x))
    y = layers.GroupNormalization(4, axis=1)(y)
    rows = layers.RMSNormalization([1, 2, 3])(layers.Conv2D(2, 1)(y))
    return rows, layers.GroupNormalization(2)(layers.GlobalMaxPooling2D()(y))


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


def volumes(x):
    """What there is for video and scans, on 4 by 7 by 2 voxels."""
    x = layers.Reshape((4, 7, 2, -1))(x)
    y = layers.Conv3D(4, (3, 2, 1), (1, 2, 1), "same", dilation_rate=1)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv3DTranspose(3, (2, 3, 1), (1, 2, 1), "same")(y)
    pools = (
        layers.AveragePooling3D((2, 3, 1), 1, "same"),
        layers.MaxPooling3D((1, 2, 2)),
    )
    y = layers.ZeroPadding3D(((1, 0), (0, 2), (1, 1)))(pools[1](pools[0](y)))
    y = layers.UpSampling3D((1, 2, 3))(layers.Cropping3D(((0, 1), (1, 0), (0, 0)))(y))
    ends = layers.GlobalAveragePooling3D(), layers.GlobalMaxPooling3D()
    return [end(y) for end in ends]


def sequences(x):
    x = layers.Conv1D(4, 3)(layers.ZeroPadding1D((1, 2))(layers.Reshape((-1, 3))(x)))
    return layers.UpSampling1D(3)(layers.Cropping1D((2, 1))(x))


def slopes(x):
    """PReLU of each element and of each channel, where channels are last, and first."""
    uniform = {"alpha_initializer": "uniform"}
    x = layers.PReLU(**uniform)(x)
    x = layers.PReLU(**uniform, shared_axes=[1, 2])(layers.Conv2D(5, 3)(x))
    return layers.PReLU(**uniform)(layers.Dense(4)(layers.Flatten()(x)))


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
    **OPERATIONS,
    **SEQUENCES,
    "conv_stride": [layers.Conv2D(5, 3, 2, padding="same", activation="relu")],
    "conv_dilated": [layers.Conv2D(5, 3, padding="same", dilation_rate=2)],
    "conv_groups": [layers.Conv2D(4, (3, 1), groups=2, activation="relu6")],
    "depthwise": [layers.DepthwiseConv2D((5, 5), 2, "same", depth_multiplier=2)],
    "transposed": [transposed],
    "volumes": [volumes],
    "sequences": [sequences],
    "slopes": [slopes],
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
    "reshape": [layers.Conv2D(3, 1), layers.Reshape((4, -1, 6))],
    "squeeze_and_excite": [squeeze_and_excite],
    "mixed_layouts": [mixed_layouts],
    "open_sizes": [open_sizes],
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
