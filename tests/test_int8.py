"""Int8 files agree with the float network, and say what they cannot do."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from models import randomize

from keras_spos import spaces, to_int8
from keras_spos.layers import QuantizedConv2D

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
    with pytest.raises(ValueError, match="'q' is quantized already"):
        to_int8(quantized, x, path)
    net = spaces.shufflenet_v2(SHAPE, 4, stage_channels=(32,), stage_blocks=(1,))
    with pytest.raises(ValueError, match="Extract a subnet first"):
        to_int8(net, x, path)
    assert not list(tmp_path.iterdir())


def test_a_layer_without_counterpart(tmp_path):
    pytest.importorskip("tf_keras")
    inputs = keras.Input(SHAPE)
    outputs = layers.GlobalMaxPooling2D(name="largest")(inputs)
    model = randomize(keras.Model(inputs, outputs))
    with pytest.raises(ValueError, match="'largest' is a GlobalMaxPooling2D"):
        to_int8(model, colours(3)[0], str(tmp_path / "net.tflite"))
