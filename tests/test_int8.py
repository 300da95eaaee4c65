"""Int8 files agree with the float network, and say what they cannot do."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from colours import SHAPE, colours, images_of_labels, network
from keras import layers
from models import randomize

from keras_spos import to_int8
from keras_spos.export import int8


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(*colours(600), batch_size=50, epochs=6, verbose=0)
    return model


def test_onnx_post_training(trained, tmp_path):
    x, y = colours(seed=1)
    path = tmp_path / "net.onnx"
    report = to_int8(trained, x[:50], str(path), validation=(x, y))
    assert report.bytes == path.stat().st_size
    assert report.method == "post-training"
    assert report.accuracy_before > 0.9
    assert report.accuracy_after > report.accuracy_before - 0.05
    proto = onnx.load(path)
    # Every convolution and the classifier have integer weights.
    floats = [
        t for t in proto.graph.initializer if t.data_type == 1 and len(t.dims) > 1
    ]
    assert not floats
    assert any(node.op_type == "QuantizeLinear" for node in proto.graph.node)


def test_onnx_of_causal_attention(tmp_path):
    """Beside a mask of -1e9, scores have one of 256 levels."""
    x = inputs = keras.Input((8, 6))
    x = layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    scores = x @ keras.ops.transpose(x, (0, 2, 1))
    mask = np.triu(np.full((8, 8), -1e9, "float32"), 1)
    x = keras.ops.softmax(scores + mask) @ x
    model = randomize(keras.Model(inputs, layers.Dense(3)(x)), scale=1.0)
    images = np.random.default_rng(0).normal(size=(60, 8, 6)).astype("float32")
    path = str(tmp_path / "net.onnx")
    to_int8(model, images[:30], path)
    expected = model.predict(images[30:], verbose=0)
    difference = int8._run_onnx(path, images[30:]) - expected
    assert np.abs(difference).mean() < 0.05 * np.abs(expected).max()


def test_onnx_of_rms_norms(tmp_path):
    """The squares of numbers of which some are thirty times as large as others."""
    x = inputs = keras.Input((16, 24))
    for activation in (None, "relu"):
        x = layers.Dense(32, activation)(x)
        x = layers.RMSNormalization()(x)
    model = keras.Model(inputs, layers.Dense(8)(x))
    images = np.random.default_rng(0).normal(size=(200, 16, 24))
    images *= np.random.default_rng(1).uniform(0.1, 3, (200, 16, 1))
    images = images.astype("float32")
    path = str(tmp_path / "net.onnx")
    to_int8(model, images[:100], path)
    expected = model.predict(images[100:], verbose=0)
    difference = int8._run_onnx(path, images[100:]) - expected
    assert np.std(difference) < 0.15 * np.std(expected)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_onnx_of_half_precision_inputs(kind, tmp_path):
    inputs = keras.Input(SHAPE, dtype=kind)
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    x, y = colours(20)
    report = to_int8(
        keras.Model(inputs, pooled), x, str(tmp_path / "a.onnx"), validation=(x, y)
    )
    assert abs(report.accuracy_after - report.accuracy_before) <= 0.1


def outputs_of(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def test_onnx_outputs_are_not_clipped(tmp_path):
    """Numbers that cancel on all representative images need not on others.

    One output is the last, one is used inside as well, and one is an input.
    """
    inputs = keras.Input((2, 2, 2))
    inner = layers.Conv2D(2, 1, use_bias=False)(inputs)
    last = layers.Conv2D(1, 1, use_bias=False)(inner)
    model = keras.Model(inputs, [last, inner, inputs])
    kernels = np.eye(2), np.array([[1.0], [-1.0]])
    model.set_weights([kernel[None, None] for kernel in kernels])
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (20, 2, 2, 2)).astype("float32")
    path = str(tmp_path / "net.onnx")
    to_int8(model, np.repeat(np.concatenate([x, -x])[..., :1], 2, axis=-1), path)
    expected = model.predict(x, verbose=0)
    for ours, theirs in zip(outputs_of(path, x), expected, strict=True):
        assert np.abs(ours - theirs).max() < 0.03 * np.abs(theirs).max()
    # What convolutions take is quantized still, for each channel of a kernel alone.
    graph = onnx.load(path).graph
    made = {name: node for node in graph.node for name in node.output}
    for conv in (node for node in graph.node if node.op_type == "Conv"):
        image, kernel = (made[name] for name in conv.input[:2])
        assert image.op_type == kernel.op_type == "DequantizeLinear"
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    assert [2] in [
        sizes[node.input[1]] for node in made.values() if "Deq" in node.op_type
    ]
    # Nothing is left of what was taken out.
    used = {name for node in graph.node for name in node.input}
    outputs = {output.name for output in graph.output}
    assert made.keys() - outputs <= used and sizes.keys() <= used


@pytest.mark.parametrize("ending", ["onnx", "tflite", "tuned"])
def test_a_label_for_each_pixel(ending, tmp_path):
    if ending != "onnx":
        tf = pytest.importorskip("tensorflow")
    if ending == "tuned":
        pytest.importorskip("tensorflow_model_optimization")
    model = images_of_labels()
    x, y = colours(20)
    y = np.broadcast_to(y[:, None, None], (20, *SHAPE[:2]))
    path = tmp_path / ("net.onnx" if ending == "onnx" else "net.tflite")
    training = (x, y) if ending == "tuned" else None
    rate = {"learning_rate": 1e-4}
    report = to_int8(model, x, path, training, validation=(x, y[..., None]), **rate)
    assert report.accuracy_before == 1.0
    assert report.accuracy_after > 0.95
    if ending != "onnx":
        with int8._quiet():
            interpreter = tf.lite.Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
        tensors = interpreter.get_tensor_details()
        # Input and output.
        assert sum(tensor["dtype"] == np.float32 for tensor in tensors) == 2
    if ending == "tuned":
        other = x, (y + 1) % 4
        arguments = {"epochs": 9, "batch_size": 5, "learning_rate": 0.3}
        report = to_int8(model, x, path, other, validation=other, **arguments)
        assert report.accuracy_before == 0 and report.accuracy_after > 0.9
    with pytest.raises(ValueError, match=r"each of shape \(8, 8\). Received: shapes"):
        to_int8(model, x, path, validation=(x, y[:, 0, 0]))


def test_probabilities_are_tuned_as_such(tmp_path):
    pytest.importorskip("tensorflow_model_optimization")
    logits = images_of_labels()
    outputs = layers.Softmax()(2 * logits.outputs[0])
    # Without this, tf_keras finds the softmax by itself.
    model = keras.Model(logits.inputs, layers.Reshape((*SHAPE[:2], 4))(outputs))
    x, y = colours(20)
    other = x, np.broadcast_to((y[:, None, None] + 1) % 4, (20, *SHAPE[:2]))
    arguments = {"epochs": 9, "batch_size": 5, "learning_rate": 0.1}
    path = tmp_path / "net.tflite"
    report = to_int8(model, x, path, other, validation=other, **arguments)
    assert report.accuracy_before == 0 and report.accuracy_after > 0.9


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_several_outputs(ending, tmp_path):
    if ending == "tflite":
        tf = pytest.importorskip("tensorflow")
    inputs = keras.Input(SHAPE, name="image")
    x = layers.GlobalAveragePooling2D()(inputs)
    outputs = [layers.Dense(n, name=name)(x) for n, name in ((5, "b"), (3, "a"))]
    model = randomize(keras.Model(inputs, outputs))
    x, y = colours(20)
    path = str(tmp_path / f"net.{ending}")
    for more in ({"validation": (x, y)}, {"training": (x, y)}):
        with pytest.raises(ValueError, match="of 2 outputs|writes TensorFlow Lite"):
            to_int8(model, x, path, **more)
    assert not list(tmp_path.iterdir())
    to_int8(model, x, path)
    if ending == "onnx":
        session = onnxruntime.InferenceSession(path)
        found = session.run(None, {session.get_inputs()[0].name: x[:1]})
    else:
        with int8._quiet():
            interpreter = tf.lite.Interpreter(model_path=path)
        outputs = interpreter.get_signature_runner()(image=x[:1])
        found = [outputs[f"output_{i}"] for i in range(2)]
    for a, b in zip(model(x[:1]), found, strict=True):
        np.testing.assert_allclose(a, b, atol=0.05)


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_other_precisions_are_written_as_float32_is(
    policy, ending, tmp_path, mixed_precision
):
    mixed_precision(policy)
    dtype = "float64" if policy == "float64" else "float32"
    inputs = keras.Input(SHAPE, dtype=dtype)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(4)(x)))
    x, y = colours()
    report = to_int8(model, x, tmp_path / f"a.{ending}", validation=(x, y))
    assert abs(report.accuracy_after - report.accuracy_before) < 0.05
    assert model.layers[1].compute_dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("tuned", [False, True])
def test_tflite(trained, tuned, tmp_path):
    if tuned:
        pytest.importorskip("tf_keras")
        pytest.importorskip("tensorflow_model_optimization")
    x, y = colours(seed=1)
    path = str(tmp_path / "net.tflite")
    before = [w.copy() for w in trained.get_weights()]
    training = colours(100, seed=2) if tuned else None
    report = to_int8(trained, x[:50], path, training=training, validation=(x, y))
    assert report.twin_difference < 1e-5 if tuned else report.twin_difference is None
    assert report.accuracy_after > report.accuracy_before - 0.05 > 0.85
    for a, b in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [0.01, 10])
def test_a_short_tuning_knows_the_ranges_of_activations(trained, size, tmp_path):
    """However large outputs are: tfmot begins with -6 to 6, and moves slowly."""
    pytest.importorskip("tensorflow_model_optimization")
    model = keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    head = model.get_layer("classifier")
    head.set_weights([size * w for w in head.get_weights()])
    x, _ = colours(seed=1)
    path = str(tmp_path / "net.tflite")
    to_int8(model, x[:50], path, training=colours(100, seed=2), learning_rate=0.0)
    expected = model.predict(x, verbose=0)
    difference = np.abs(int8._run_tflite(path, x) - expected).max()
    assert difference < 0.1 * np.abs(expected).max()
