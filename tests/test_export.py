"""ONNX files: their batch sizes, inputs and outputs, and who writes them."""

import os
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers, ops
from models import data, model_of, randomize, small_net

import keras_spos as ks

TENSORFLOW = keras.backend.backend() == "tensorflow"


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
    assert report.writer == "keras_spos"
    assert set(report.outputs) == {"x", "x_2", "y", "b_2"}
    assert set(report.inputs) == {"a", "b"}


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"]
)
def test_other_precisions_are_exported_as_float32(policy, tmp_path, mixed_precision):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no double precision unless told")
    mixed_precision(policy)
    model = model_of(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU())
    report = ks.to_onnx(model, tmp_path / "a.onnx")
    assert report.nodes["Conv"] == 1
    assert model.layers[1].compute_dtype in policy


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_inputs_are_exported_as_float32(kind, tmp_path):
    inputs = keras.Input((4, 4, 3), dtype=kind)
    model = randomize(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)))
    path = tmp_path / "a.onnx"
    assert ks.to_onnx(model, path).writer == "keras_spos"
    (given,) = onnxruntime.InferenceSession(path).get_inputs()
    assert given.type == "tensor(float)"


def test_half_precision_keeps_what_layers_have_adapted(tmp_path, mixed_precision):
    mixed_precision("mixed_bfloat16")
    norm = layers.Normalization()
    images = 3 * data(20, (4, 4, 3))[0] + 5
    norm.adapt(images)
    x = inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(norm(x)))
    ks.to_onnx(model, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (outputs,) = session.run(None, {session.get_inputs()[0].name: images})
    expected = model.predict(images, verbose=0)
    assert np.abs(outputs - expected).max() < 0.02 * np.abs(expected).max()


def test_half_precision_keeps_names_of_inputs(tmp_path, mixed_precision):
    """Without a name of its own, an input's is not the one of its layer."""
    mixed_precision("mixed_bfloat16")
    x = inputs = keras.Input((4, 5, 3))
    model = randomize(keras.Model(inputs, layers.Conv2D(2, 1)(x)))
    assert inputs.name != model.layers[0].name
    file = tmp_path / "a.onnx"
    report = ks.to_onnx(model, file, channels_first=[inputs.name])
    assert report.inputs == {inputs.name: ("batch", 3, 4, 5)}


def doubled(x):
    return 2 * x


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_half_precision_with_functions_of_the_users(tmp_path, mixed_precision):
    mixed_precision("mixed_float16")
    inner = model_of(layers.Dense(2, activation=doubled), shape=(3,))
    model = model_of(inner, layers.Lambda(doubled), shape=(3,))
    ks.to_onnx(model, tmp_path / "a.onnx")


def test_pixels_are_normalized(tmp_path):
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    x = layers.Normalization(mean=[9.0, 99.0, 120.0], variance=[4.0, 9.0, 50.0])(inputs)
    model = randomize(keras.Model(inputs, layers.Conv2D(2, 1)(x)))
    assert ks.to_onnx(model, tmp_path / "a.onnx").writer == "keras_spos"


@keras.saving.register_keras_serializable("tests")
class Shifted(layers.Layer):
    """Keeps a tensor that is no weight."""

    def build(self, shape):
        self.shift = keras.ops.ones((shape[-1],))

    def call(self, x):
        return x + self.shift


@keras.saving.register_keras_serializable("tests")
class ShiftedTwice(layers.Layer):
    """Keeps tensors in a list."""

    def build(self, shape):
        self.shifts = [keras.ops.ones((shape[-1],)) for _ in range(2)]

    def call(self, x):
        return x + self.shifts[0] + self.shifts[1]


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_tensors_that_tf2onnx_would_make_inputs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Nor can tf2onnx: .*inputs \['image'\]"):
        ks.to_onnx(model_of(ShiftedTwice()), tmp_path / "a.onnx", verify=False)
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_tensors_of_layers_are_constants_to_tf2onnx(tmp_path):
    learned = layers.Normalization()
    learned.adapt(np.random.default_rng(0).normal(3, 2, (20, 5, 4)))
    model = model_of(learned, Shifted(), layers.RNN(layers.GRUCell(3)), shape=(5, 4))
    mean = learned.mean
    report = ks.to_onnx(model, tmp_path / "a.onnx")
    assert report.writer == "tf2onnx"
    assert list(report.inputs) == ["image"]
    assert learned.mean is mean


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_images_of_any_size_if_nothing_is_compared(tmp_path):
    inputs = keras.Input((None, None, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs))
    report = ks.to_onnx(model, tmp_path / "a.onnx", verify=False)
    assert report.inputs == {"image": ("batch", None, None, 3)}
    assert report.outputs == {"conv": ("batch", None, None, 2)}


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_gelu_beside_layers_that_only_tf2onnx_knows(tmp_path, capfd):
    cell = layers.RNN(layers.GRUCell(3))
    model = model_of(cell, layers.Dense(4, "gelu"), shape=(5, 4))
    assert ks.to_onnx(model, tmp_path / "a.onnx").writer == "tf2onnx"
    assert "not supported" not in capfd.readouterr().err


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_other_layers_go_through_tf2onnx(tmp_path, capfd):
    graph = (
        layers.RandomFlip(),
        layers.UnitNormalization(),
    )
    model = model_of(*graph)
    report = ks.to_onnx(model, tmp_path / "a.onnx", batch_size=2)
    assert report.writer == "tf2onnx"
    assert report.inputs == {"image": (2, 8, 7, 6)}
    assert ks.to_onnx(model, tmp_path / "b.onnx").inputs["image"][1:] == (8, 7, 6)
    assert list(report.outputs) == model.output_names
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx"]
    assert capfd.readouterr().out == ""
    model = model_of(lambda x: keras.ops.sum(keras.ops.fft2((x, x))[0], -1))
    with pytest.raises(ValueError, match="FFT2 .* Nor can tf2onnx: "):
        ks.to_onnx(model, tmp_path / "c.onnx")


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_outputs_that_tf2onnx_writes_have_the_names_of_their_layers(tmp_path):
    image, words = keras.Input((4, 4, 3), name="image"), keras.Input((5, 3), name="b")
    x = [layers.UpSampling2D(n, name=f"up_{n}")(image) for n in range(1, 12)]
    x.append(layers.RNN(layers.LSTMCell(2), name="lstm")(words))  # A loop.
    model = randomize(keras.Model([image, words], [*x, x[0], image]))
    report = ks.to_onnx(model, tmp_path / "a.onnx")
    assert report.writer == "tf2onnx"
    ups = [f"up_{n}" for n in range(1, 12)]
    assert list(report.outputs) == [*ups, "lstm", "up_1_2", "image_2"]
    # tf2onnx calls outputs in a dict by its keys.
    model = keras.Model(image, {"up_3": x[1], "up_2": x[2]})
    report = ks.to_onnx(model, tmp_path / "a.onnx")
    assert list(report.outputs) == ["up_3", "up_2"]


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_words_of_a_small_vocabulary(tmp_path, dtype):
    inputs = keras.Input((4,), dtype=dtype)
    x = layers.Dense(3, "gelu")(layers.Embedding(5, 3)(inputs))
    x = layers.GlobalAveragePooling1D()(x)
    report = ks.to_onnx(keras.Model(inputs, x), tmp_path / "words.onnx")
    assert report.max_abs_difference < 1e-6
    assert report.writer == "keras_spos"


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_what_keras_has_quantized(tmp_path):
    model = model_of(layers.Dense(4), shape=(8,))
    model.layers[1].quantize("int8")
    assert ks.to_onnx(model, tmp_path / "a.onnx").writer == "tf2onnx"


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
def test_words_that_are_masked(tmp_path):
    inputs = keras.Input((4,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(5, 3, mask_zero=True)(inputs))
    report = ks.to_onnx(keras.Model(inputs, x), tmp_path / "words.onnx")
    assert report.writer == "tf2onnx"


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
    model = randomize(keras.Model(inputs, [x, x]))
    ends = [*(t.name for t in model.inputs), *model.output_names]
    report = ks.to_onnx(model, tmp_path / "a.onnx", channels_first=ends)
    assert list(report.inputs.values()) == [("batch", 4, 8, 6)]
    assert list(report.outputs.values()) == [("batch", 5, 8, 6)] * 2
    assert "Transpose" not in report.nodes


@pytest.mark.skipif(not TENSORFLOW, reason="tf2onnx traces TensorFlow")
@pytest.mark.parametrize("several", [False, True])
def test_pieces_that_only_tf2onnx_knows(tmp_path, several):
    """An image is handed on with channels first, a sequence as it is."""
    image, words = keras.Input((8, 6, 4), name="left"), keras.Input((5, 3), name="b")
    x = layers.UnitNormalization()(layers.Conv2D(6, 3, strides=2)(image))
    y = layers.RNN(layers.GRUCell(4), return_sequences=True)(words)
    inputs, outputs = ([image, words], [x, y]) if several else (image, x)
    model = randomize(keras.Model(inputs, outputs))
    ends = [*(t.name for t in model.inputs), *model.output_names]
    report = ks.to_onnx(model, tmp_path / "a.onnx", channels_first=ends)
    assert report.writer == "tf2onnx"
    assert report.inputs["left"] == ("batch", 4, 8, 6)
    assert report.outputs[model.output_names[0]] == ("batch", 6, 3, 2)
    if several:
        assert report.inputs["b"] == ("batch", 5, 3)
        assert report.outputs[model.output_names[1]] == ("batch", 5, 4)


def test_words_and_masks_of_text(tmp_path):
    """Also where a model that takes a mask is called on words."""
    words, mask = keras.Input((5,), dtype="int32"), keras.Input((5,), dtype="bool")
    inner = keras.Input((5,), dtype="bool")
    weights = keras.Model(inner, ops.expand_dims(ops.cast(inner, "float32"), -1))
    found = ops.not_equal(words, 3) & mask
    x = layers.Embedding(9, 4)(words)
    model = keras.Model([words, mask], [ops.sum(x * weights(found), 1), weights(words)])
    assert ks.to_onnx(model, tmp_path / "a.onnx").writer == "keras_spos"


def test_integers_that_float32_does_not_tell_apart(tmp_path):
    words = keras.Input((3,), dtype="int32")
    ks.to_onnx(keras.Model(words, ops.equal(words, 2**24 + 1)), tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    numbers = 2**24 + np.array([[0, 1, 2]], "int32")
    (found,) = session.run(None, {session.get_inputs()[0].name: numbers})
    assert found.tolist() == [[False, True, False]]
