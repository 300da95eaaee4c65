"""Int8 files agree with the float network, and say what they cannot do."""

import itertools

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from models import randomize

from keras_spos import spaces, to_int8, to_onnx
from keras_spos.export import int8, int8_arguments
from keras_spos.layers import PACT, QuantizedConv2D

# What is written depends on weights alone, and JAX takes minutes to train the network.
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a minute on JAX, and no other law"
)
SHAPE = (8, 8, 3)


def network():
    """Slices, both paddings, depthwise convolutions and batch norms."""
    net = spaces.shufflenet_v2(
        SHAPE,
        4,
        stem_channels=8,
        stage_channels=(16,),
        stage_blocks=(2,),
        head_channels=32,
        dropout=0.0,
    )
    return net.extract((1, 0), fresh=True)


def colours(n=120, seed=0):
    """Images of four kinds that differ in their mean colour, and their labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    means = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [-2, -2, -2]])
    x = rng.normal(size=(n, *SHAPE)) * 0.3 + means[y][:, None, None]
    return x.astype("float32"), y


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


def test_labels_of_any_shape_and_a_file_that_is_whole(trained, tmp_path, monkeypatch):
    x, y = colours(seed=1)
    path = tmp_path / "net.onnx"
    report = to_int8(trained, x[:9], path, validation=(x, y))
    column = to_int8(trained, x[:9], path, validation=(x, y[:, None]))
    assert column == report
    before = path.read_bytes()
    for wrong in (y[:1], np.eye(4)[y], y[:0]):
        with pytest.raises(ValueError, match="n integer labels. Received: shapes"):
            to_int8(trained, x[:9], path, validation=(x, wrong))

    def fails(source, target, *_, **options):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fails)
    with pytest.raises(OSError, match="No space"):
        to_int8(trained, x[:9], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_whose_accuracy_cannot_be_measured_is_not_left(
    trained, tmp_path, monkeypatch
):
    def fails(path, images):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("keras_spos.export.int8._run_onnx", fails)
    x, y = colours(9)
    with pytest.raises(RuntimeError, match="out of memory"):
        to_int8(trained, x, tmp_path / "net.onnx", validation=(x, y))
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_where_nothing_can_be_written(ending, tmp_path, monkeypatch):
    """It is noticed before any work."""
    monkeypatch.setattr(f"keras_spos.export.int8._write_{ending}", None)
    monkeypatch.setattr("keras_spos.export.onnx_export._write", None)
    model, x = network(), colours(3)[0]
    folder, temporary = (tmp_path / f"{name}.{ending}" for name in "ab")
    folder.mkdir()
    (tmp_path / f"b.{ending}.tmp").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    for path in (folder, temporary, tmp_path / "file" / f"c.{ending}"):
        for write in (lambda p: to_int8(model, x, p), lambda p: to_onnx(model, p)):
            with pytest.raises(OSError, match="can be written to. Received: "):
                write(path)
    assert sorted(tmp_path.iterdir()) == before


def images_of_labels():
    """A model whose outputs are images: a class for each pixel, by its colour."""
    inputs = keras.Input(SHAPE)
    conv = layers.Conv2D(4, 1, name="classes")
    model = keras.Model(inputs, conv(inputs))
    kernel = np.zeros((1, 1, 3, 4))
    kernel[0, 0, :, :3] = np.eye(3)
    kernel[..., 3] = -1
    # Logits that would be no probabilities.
    conv.set_weights([kernel, np.full(4, -3.0)])
    return model


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
        pytest.importorskip("tf_keras")
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


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_several_outputs(ending, tmp_path):
    if ending == "tflite":
        tf = pytest.importorskip("tensorflow")
        pytest.importorskip("tf_keras")
    inputs = keras.Input(SHAPE)
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
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[:1])
        interpreter.invoke()
        details = interpreter.get_output_details()
        found = [interpreter.get_tensor(d["index"]) for d in details]
    for a, b in zip(model(x[:1]), found, strict=True):
        np.testing.assert_allclose(a, b, atol=0.05)


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_other_precisions_are_written_as_float32_is(
    policy, ending, tmp_path, mixed_precision
):
    if ending == "tflite":
        pytest.importorskip("tf_keras")
    mixed_precision(policy)
    dtype = "float64" if policy == "float64" else "float32"
    inputs = keras.Input(SHAPE, dtype=dtype)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(4)(x)))
    x, y = colours()
    report = to_int8(model, x, tmp_path / f"a.{ending}", validation=(x, y))
    assert abs(report.accuracy_after - report.accuracy_before) < 0.05
    assert model.layers[1].compute_dtype == policy.removeprefix("mixed_")


def test_images_that_come_in_batches(tmp_path):
    """Of a generator or tf.data, alone or with labels: as they do in an array."""
    import tensorflow as tf

    model, (x, y) = images_of_labels(), colours(12)

    def file(images):
        to_int8(model, images, tmp_path / "net.onnx")
        return (tmp_path / "net.onnx").read_bytes()

    expected = file(x)
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    for images in (
        tf.constant(x),
        list(x),
        dataset,
        dataset.batch(5),
        dataset.map(lambda image, label: image).batch(5),
        (x[i : i + 5] for i in range(0, 12, 5)),
    ):
        assert file(images) == expected
    endless = itertools.repeat(x[:1])
    assert len(int8_arguments.calibration_images(endless, model)) == 1000
    for wrong, received in (
        (5, "int"),
        ("abc", "str"),
        ((x, y), "tuple"),
        ({"image": x}, "str"),
        (dataset.batch(5).batch(2), r"\(2, 5, 8, 8, 3\)"),
        (iter(()), "n=0"),
        (x[:0], "n=0"),
        (x[0], r"\(8, 8, 3\)"),
        (None, "NoneType"),
    ):
        with pytest.raises(ValueError, match=f"have shape .*Received: {received}"):
            to_int8(model, wrong, tmp_path / "other.onnx")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("tuned", [False, True])
def test_tflite(trained, tuned, tmp_path):
    pytest.importorskip("tf_keras")
    if tuned:
        pytest.importorskip("tensorflow_model_optimization")
    x, y = colours(seed=1)
    path = str(tmp_path / "net.tflite")
    before = [w.copy() for w in trained.get_weights()]
    training = colours(100, seed=2) if tuned else None
    report = to_int8(trained, x[:50], path, training=training, validation=(x, y))
    assert report.twin_difference < 1e-5
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


def test_what_is_refused(tmp_path):
    model, x = network(), colours(3)[0]
    path = str(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="ending in .tflite or .onnx. Received: .*bin"):
        to_int8(model, x, str(tmp_path / "net.bin"))
    with pytest.raises(ValueError, match="writes TensorFlow Lite files"):
        to_int8(model, x, path, training=colours(3))
    with pytest.raises(ValueError, match=r"Received: \(3, 4, 8, 3\)"):
        to_int8(model, x[:, :4], path)
    inputs = keras.Input(SHAPE)
    quantized = keras.Model(inputs, QuantizedConv2D(2, 3, 2, 2, name="q")(inputs))
    inside = keras.Model(inputs, quantized(inputs))
    rounded = keras.Model(inputs, PACT(4, name="q")(inputs))
    for wrong in (quantized, inside, rounded):
        with pytest.raises(ValueError, match="'q' is quantized already"):
            to_int8(wrong, x, path)
    with pytest.raises(ValueError, match="finite representative images"):
        to_int8(model, np.full_like(x, np.nan), path)
    one = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="of several outputs. Received: .* 1"):
        to_int8(one, x, path, validation=(x, np.zeros(3)))
    for pair in ((x[:, :4], [0, 1, 2]), (x[:0], [])):
        with pytest.raises(ValueError, match="n integer labels. Received: shapes"):
            to_int8(model, x, path, validation=pair)
    for pair in (x, (x,), (x, [0, 1, 4]), (x, [-1, 0, 0]), (x, [0.5, 1, 2]), iter([])):
        with pytest.raises(ValueError, match="two arrays for val|to be 0 to 3. Rec"):
            to_int8(model, x, path, validation=pair)
    with pytest.raises(ValueError, match="images and labels. Received: tuple of 3"):
        to_int8(model, x, path, validation=(x, np.zeros(len(x)), np.ones(len(x))))
    two = keras.Model(
        [inputs, other := keras.Input(SHAPE)], layers.Add()([inputs, other])
    )
    with pytest.raises(ValueError, match="model of one input. Received: .* of .'"):
        to_int8(two, x, path)
    with pytest.raises(ValueError, match="has been called on a batch"):
        to_int8(keras.Sequential([layers.Dense(2)]), x, path)
    net = spaces.shufflenet_v2(SHAPE, 4, stage_channels=(32,), stage_blocks=(1,))
    with pytest.raises(ValueError, match="Extract a subnet first"):
        to_int8(net, x, path)
    pixels = keras.Input(SHAPE, dtype="uint8")
    of_bytes = keras.Model(pixels, model(layers.Rescaling(1 / 255)(pixels)))
    fractions = np.full((3, *SHAPE), 0.5, "float32")
    whole = fractions.astype("uint8")
    for given, pair in ((fractions, None), (whole, (fractions, [0, 1, 2]))):
        with pytest.raises(ValueError, match="uint8 is what.* float32 from 0.5 to"):
            to_int8(of_bytes, given, path, validation=pair)
    assert not list(tmp_path.iterdir())
