"""The ONNX file equals the Keras model, for every layer that the writer knows."""

import os
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops
from models import randomize, small_net

import keras_spos as ks
from keras_spos.onnx_functions import UnsupportedLayerError
from keras_spos.onnx_layers import WRITERS
from keras_spos.onnx_writer import write

TENSORFLOW = keras.backend.backend() == "tensorflow"
DATA_FORMATS = ["channels_last"]
if not TENSORFLOW:  # TensorFlow cannot run it on a CPU.
    DATA_FORMATS.append("channels_first")


def model_of(*graph, shape=(8, 7, 6)):
    """A model that runs its functions, or layers, one after the other."""
    x = inputs = keras.Input(shape, name="image")
    for function in graph:
        x = function(x)
    return randomize(keras.Model(inputs, x), scale=0.5)


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


def relu(x):
    """Not Keras' own."""
    return ops.maximum(x, 0.5)


def attentions(x):
    """Self-attention, and that of other sizes, whose inputs come by name."""
    x = layers.Reshape((8, 42))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    y = layers.Dense(5, "gelu")(x[:, 1:4])
    # Keras on JAX takes no other width for values.
    width = 4 if TENSORFLOW else 2
    attend = layers.MultiHeadAttention(3, 2, width, use_bias=False, output_shape=7)
    return attend(y, value=x, key=layers.Dense(3)(x))


def sequence(x):
    x = layers.Reshape((56, 6))(x)
    x = layers.Conv1D(4, 3, 2, padding="same")(x)
    x = layers.BatchNormalization()(layers.DepthwiseConv1D(3)(x))
    x = layers.AveragePooling1D(3, 2, padding="same")(layers.MaxPooling1D(2)(x))
    return layers.GlobalMaxPooling1D()(x), layers.GlobalAveragePooling1D()(x)


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
    "norms": norms(-1),
    "layer_norms": [
        layers.Conv2D(6, 1),
        layers.LayerNormalization(epsilon=0.1),
        layers.LayerNormalization([-1, 1, 2], center=False, scale=False),
    ],
    "attentions": [attentions],
    "sequence": [sequence],
    "norm_alone": [layers.BatchNormalization()],
    "norm_and_its_input": [norm_and_its_input],
    "padded_twice": [padded_twice],
    "max_pool": [layers.MaxPooling2D(3, 2, padding="same")],
    "average_pool": [layers.AveragePooling2D(3, 2, padding="same")],
    "global_max": [layers.GlobalMaxPooling2D(), layers.Dense(3, "softmax")],
    "dense_on_maps": [layers.Conv2D(3, 2), layers.Dense(4, "tanh")],
    "flatten": [layers.Conv2D(3, 2), layers.Flatten(), layers.Dense(2, use_bias=False)],
    "shuffle": [channel_shuffle],
    "dealt": [dealt],
    "reshape": [layers.Conv2D(3, 1), layers.Reshape((4, -1, 6))],
    "squeeze_and_excite": [squeeze_and_excite],
    "slices": [lambda x: layers.Conv2D(3, 1)(x)[:, 1:, :-1:2, 1::2]],
    "ellipsis": [lambda x: x[..., :2], layers.Conv2D(2, 1)],
    "arithmetic": [lambda x: (x * 2 + x - 1.5) / 4],
    "mixed_layouts": [mixed_layouts],
    "relu": [layers.ReLU(6.0), layers.ReLU(negative_slope=0.1, max_value=0.4)],
    "softmax": [layers.Conv2D(3, 1), layers.Softmax(), layers.Softmax(axis=1)],
    "activations": [
        layers.Activation(name)
        for name in (
            *("hard_silu", "silu", "elu", "sigmoid", "linear", "gelu", "leaky_relu"),
            *("selu", "softplus", "softsign", "softmax"),
        )
    ],
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
    for opset in (13, 17, 21) if name in ("norms", "slices", "relu") else (17,):
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
        layers.MaxPooling2D(2, **first),
        layers.Flatten(**first),
    )
    report = ks.to_onnx(model, tmp_path / "a.onnx", tolerance=3e-6)
    assert report.inputs == {"image": ("batch", 8, 7, 6)}
    # Keras flattens with the channels last.
    assert report.nodes == {"Conv": 1, "MaxPool": 1, "Transpose": 1, "Flatten": 1}


def test_every_known_layer_is_tested():
    graphs = [model_of(*graph) for graph in MODELS.values()]
    flat = [op for model in graphs for op in all_operations(model)]
    # Those of quantized layers have a file of their own.
    stock = {kind for kind in WRITERS if not kind.__module__.startswith("keras_spos")}
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
    graph = write(model).graph
    kernel, bias = (onnx.numpy_helper.to_array(t) for t in graph.initializer)
    np.testing.assert_array_equal(kernel, np.full((1, 1, 3, 3), 1.5))
    np.testing.assert_array_equal(bias, [(1 - 5) * 3 / 4 + 4])
    transpose, convolution, back = graph.node
    assert (transpose.op_type, back.op_type) == ("Transpose", "Transpose")
    pads = {a.name: a for a in convolution.attribute}["pads"]
    assert list(pads.ints) == [1, 1, 1, 1]


def test_the_published_network(request, tmp_path):
    """SPOS's network: one Transpose, 76 convolutions, nothing left of batch norm."""
    if not TENSORFLOW:
        pytest.skip("takes JAX half a minute, operation by operation")
    net = request.getfixturevalue("imagenet_net")
    subnet = net.extract("spos_block_search", fresh=True)
    rng = np.random.default_rng(0)
    for variable in subnet.variables:
        low, high = (-0.5, 0.5) if "mean" in variable.path else (0.5, 2.0)
        if "kernel" not in variable.path and keras.backend.is_float_dtype(
            variable.dtype
        ):
            variable.assign(rng.uniform(low, high, variable.shape))
    report = ks.to_onnx(subnet, tmp_path / "spos.onnx", batch_size=1)
    assert report.max_abs_output > 0.1
    assert report.max_abs_difference < 1e-4
    assert report.nodes == {
        "Transpose": 1,
        "Conv": 76,
        "Relu": 48,
        "Reshape": 16,
        "Gather": 32,
        "Concat": 20,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
    }
    assert report.bytes == os.path.getsize(tmp_path / "spos.onnx") < 13.5e6


def small_model():
    graph = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)
    return model_of(*graph)


def test_batch_size_is_fixed_or_open(tmp_path):
    model = small_model()
    for batch_size, written in ((None, "batch"), (1, 1), (5, 5)):
        report = ks.to_onnx(model, tmp_path / "a.onnx", batch_size=batch_size)
        assert report.inputs == {"image": (written, 8, 7, 6)}
        assert report.outputs == {model.output_names[0]: (written, 2)}
        assert 0 <= report.max_abs_difference < 1e-5


def test_a_subnet(tmp_path):
    net = randomize(small_net())
    report = ks.to_onnx(net.extract((1, 2)), tmp_path / "a.onnx", batch_size=2)
    assert list(report.outputs) == ["classifier"]
    assert "BatchNormalization" not in report.nodes


def test_several_inputs_and_outputs(tmp_path):
    a = keras.Input((2, 2, 3), name="a", dtype="uint8")
    b = keras.Input((3,), name="b")
    x = layers.Conv2D(3, 1, name="x")(layers.Rescaling(1 / 255)(a))
    y = layers.Add(name="y")([layers.GlobalAveragePooling2D()(x), b])
    model = keras.Model({"b": b, "a": a}, {"twice": [x, x], "sum": y, "copy": b})
    report = ks.to_onnx(randomize(model), tmp_path / "a.onnx")
    assert (report.writer, len(report.outputs)) == ("keras_spos", 4)
    assert set(report.inputs) == {"a", "b"}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_half_precision_is_exported_as_float32(policy, tmp_path, mixed_precision):
    mixed_precision(policy)
    model = model_of(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU())
    report = ks.to_onnx(model, tmp_path / "a.onnx")
    assert report.nodes["Conv"] == 1
    assert model.layers[1].compute_dtype in policy


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_other_layers_go_through_tf2onnx(tmp_path, capfd):
    model = model_of(layers.UpSampling2D(2), layers.Conv2DTranspose(3, 2))
    report = ks.to_onnx(model, tmp_path / "a.onnx", batch_size=2)
    assert report.writer == "tf2onnx"
    assert report.inputs == {"image": (2, 8, 7, 6)}
    assert ks.to_onnx(model, tmp_path / "b.onnx").inputs["image"][1:] == (8, 7, 6)
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx"]
    assert capfd.readouterr().out == ""
    model = model_of(lambda x: keras.ops.sum(keras.ops.fft2((x, x))[0], -1))
    with pytest.raises(ValueError, match="FFT2 .* Nor can tf2onnx: "):
        ks.to_onnx(model, tmp_path / "c.onnx")


class Odd(layers.Conv2D):
    """Looks like a convolution, computes something else."""

    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_words_of_a_small_vocabulary(tmp_path):
    inputs = keras.Input((4,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(5, 3)(inputs))
    report = ks.to_onnx(keras.Model(inputs, x), tmp_path / "words.onnx")
    assert report.max_abs_difference < 1e-6


def test_what_cannot_be_written_is_named(tmp_path):
    x = inputs = keras.Input((4, 4, 2))
    cases = {
        "Odd 'odd' is of an unknown type": Odd(2, 1, name="odd")(x),
        "Activation 'a': activation 'mish'": layers.Activation("mish", name="a")(x),
        r"axis=\[1\], which are not the last": layers.LayerNormalization(1)(x),
        "must have three axes": layers.MultiHeadAttention(2, 3)(x, x),
        "called with other arguments": layers.MultiHeadAttention(2, 3)(
            *[layers.Reshape((16, 2))(x)] * 2, use_causal_mask=True
        ),
        "masked' is called with other arguments": layers.GlobalAveragePooling1D(
            name="masked"
        )(layers.Reshape((16, 2))(x), layers.Dense(16)(layers.Flatten()(x))),
        "activation {": layers.Dense(2, layers.LeakyReLU(0.3))(x),
        "activation 'relu'": layers.Dense(2, relu)(x),
        "threshold=1": layers.ReLU(threshold=1.0)(x),
        "training=True": layers.BatchNormalization()(x, training=True),
        "only slices": x[:, 0],
    }
    for message, outputs in cases.items():
        with pytest.raises(UnsupportedLayerError, match=message):
            write(keras.Model(inputs, outputs))
    if not TENSORFLOW:
        with pytest.raises(ValueError, match="Odd 'odd'.*KERAS_BACKEND=tensorflow"):
            ks.to_onnx(keras.Model(inputs, next(iter(cases.values()))), tmp_path / "a")
    with pytest.raises(UnsupportedLayerError, match="open size"):
        write(keras.Model(y := keras.Input((None, 4, 2)), layers.ReLU()(y)))


def test_what_is_refused(tmp_path):
    net = small_net()
    file = tmp_path / "a.onnx"
    for model in (net, keras.Sequential([net])):
        with pytest.raises(ValueError, match="extract a subnet first"):
            ks.to_onnx(model, file)
    subnet = net.extract()
    with pytest.raises(ValueError, match="opset >= 13"):
        ks.to_onnx(subnet, file, opset=9)
    with pytest.raises(ValueError, match="at least 1"):
        ks.to_onnx(subnet, file, batch_size=0)
    with pytest.raises(ValueError, match="has been called"):
        ks.to_onnx(keras.Sequential([layers.Dense(2)]), file)
    fixed = keras.Input((2,), batch_size=4)
    with pytest.raises(ValueError, match="batch size 4 built in"):
        ks.to_onnx(keras.Model(fixed, layers.ReLU()(fixed)), file)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_a_wrong_file_is_not_left(tmp_path, monkeypatch, wrong):
    from keras_spos import onnx_writer

    model = small_model()
    file = tmp_path / "a.onnx"
    file.write_bytes(b"what was there before")
    standard = onnx_writer._standard
    monkeypatch.setattr(onnx_writer, "_standard", lambda a: standard(a * wrong))
    with pytest.raises(ValueError, match="differ from the model's by"):
        ks.to_onnx(model, file)
    assert file.read_bytes() == b"what was there before"
    assert os.listdir(tmp_path) == ["a.onnx"]
    report = ks.to_onnx(model, file, verify=False)
    assert report.max_abs_difference is None
    assert onnx.load(file).producer_name == "keras_spos"


SCRIPT = """
import sys
sys.modules["tensorflow"] = sys.modules["tf2onnx"] = None  # As if not installed.
import keras
import keras_spos as ks
layers = [keras.Input((4, 4, 3)), keras.layers.Conv2D(4, 3, name="conv")]
report = ks.to_onnx(keras.Sequential(layers), sys.argv[1], batch_size=1)
assert report.max_abs_difference < 1e-5 and report.outputs == {"conv": (1, 2, 2, 4)}
"""


def test_needs_no_tensorflow(tmp_path):
    pytest.importorskip("jax")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "a.onnx")],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        check=True,
    )
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)


def test_a_piece_of_a_network_hands_images_on_as_runtimes_do(tmp_path):
    x = inputs = keras.Input((8, 6, 4), name="left")
    x = layers.Concatenate()([x[..., 0::2], layers.Conv2D(3, 1)(x[..., 1::2])])
    model = randomize(keras.Model(inputs, x))
    ends = [*(t.name for t in model.inputs), *model.output_names]
    report = ks.to_onnx(model, tmp_path / "a.onnx", channels_first=ends)
    assert list(report.inputs.values()) == [("batch", 4, 8, 6)]
    assert list(report.outputs.values()) == [("batch", 5, 8, 6)]
    assert "Transpose" not in report.nodes
