"""A model is rebuilt in tf_keras, for TensorFlow Lite, or refused."""

import keras
import numpy as np
import pytest
from keras import layers
from models import randomize

from keras_spos import to_int8
from keras_spos.export import int8

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="of TensorFlow alone"
)
SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).random((3, *SHAPE), dtype="float32")


def twin_of(model):
    pytest.importorskip("tf_keras")
    with int8._quiet():
        copy, difference = int8._checked_twin(model, IMAGES)
    assert difference < 1e-5
    return copy


def test_slices_sums_and_layers_used_twice_in_tf_keras():
    inputs = keras.Input(SHAPE)
    x, shared = layers.Conv2D(6, 1)(inputs), layers.Conv2D(2, 1)
    outputs = shared(x[..., ::2]) + shared(x[..., 1::2]) + shared(x[..., 3:])
    parts = x[..., 1:3, ::2], x[..., 0, :], x[:, ::2], x[:, 1]
    twin_of(randomize(keras.Model(inputs, [outputs, *parts])))


def test_a_layer_that_is_another_in_tf_keras(monkeypatch):
    """Such as a sigmoid of straight lines, of which it has one of another slope."""
    from keras_spos.export import tf_keras_layers

    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, layers.Activation("hard_sigmoid")(inputs))
    twin_of(model)
    monkeypatch.setattr(tf_keras_layers, "_INSIDE", ("hard_sigmoid",))
    with pytest.raises(ValueError, match="in tf_keras differs from the model by"):
        int8._checked_twin(model, IMAGES)


def test_a_layer_without_counterpart(tmp_path):
    pytest.importorskip("tf_keras")
    inputs = keras.Input(SHAPE)
    x = layers.LayerNormalization(name="norm")(inputs)
    model = keras.Model(inputs, layers.GlobalMaxPooling2D()(x))
    with pytest.raises(ValueError, match="'norm' is a LayerNormalization"):
        to_int8(model, IMAGES, tmp_path / "net.tflite", training=(IMAGES, [0, 1, 2]))
    assert not list(tmp_path.iterdir())


def conv(x, filters=8, size=3, **more):
    return layers.Conv2D(filters, size, padding="same", **more)(x)


def conv_norm(x, activation="relu", **more):
    x = layers.BatchNormalization()(conv(x, use_bias=False, **more))
    return layers.Activation(activation)(x)


def squeeze_and_excite(x):
    x = conv_norm(x, "hard_silu")
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = conv(gate, 4, 1, activation="silu")
    return x * conv(gate, 8, 1, activation="hard_sigmoid")


def norms_not_after_convolutions(x):
    y = conv(x)
    y = layers.BatchNormalization()(y) + layers.Average()([y, conv_norm(x)])
    return layers.ReLU()(layers.BatchNormalization()(y))


def read_by_relus_and_others(x):
    """As the nodes of a cell."""
    a = conv(x)
    b = conv(layers.ReLU()(a)) + a
    c = layers.Add()([conv(layers.ReLU()(b)), b, a, layers.Identity()(a)])
    return layers.Multiply()([conv(layers.ReLU()(c)), c, layers.Average()([a, b, c])])


def scaled(x):
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[1, 2, 3])(x)
    return conv_norm(layers.Rescaling(1.5, [0.1, 0.2, -0.1])(x))


def separable(x):
    x = layers.SeparableConv2D(6, 3, 2, activation="relu")(x)
    x = layers.Conv2DTranspose(8, 2, 2)(x)
    return layers.LeakyReLU(0.1)(layers.BatchNormalization()(x))


def pooled(x):
    x = layers.AveragePooling2D(2)(conv_norm(x))
    return conv_norm(layers.UpSampling2D(interpolation="bilinear")(x))


def operations(x):
    x = conv_norm(x)
    a, b = keras.ops.split(x, 2, axis=-1)
    x = keras.ops.concatenate([keras.ops.maximum(a, b) - b, b], axis=-1)
    return keras.ops.transpose(layers.GaussianNoise(0.1)(x), (0, 2, 1, 3))


def nested(x):
    a, b = (keras.Input((8, 8, 3)) for _ in range(2))
    model = keras.Model([a, b], [conv_norm(a, filters=2), conv_norm(a - b)])
    a, b = model([x, x])
    return conv_norm(layers.Concatenate()([a, b, *model([x, x + x])]))


NETS = [
    squeeze_and_excite,
    norms_not_after_convolutions,
    read_by_relus_and_others,
    scaled,
    separable,
    pooled,
    operations,
    nested,
]


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_all_numbers_are_integers_after_tuning(net, tmp_path):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorflow_model_optimization")
    inputs = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(net(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(4)(x)))
    twin_of(model)
    images = np.random.default_rng(1).normal(size=(60, *SHAPE)).astype("float32")
    path = str(tmp_path / "net.tflite")
    to_int8(model, images, path, training=(images, [0] * 60), learning_rate=0.0)
    with int8._quiet():
        interpreter = tf.lite.Interpreter(model_path=path)
    tensors = interpreter.get_tensor_details()
    floats = [t["name"] for t in tensors if t["dtype"] == np.float32]
    assert len(floats) == 2, floats  # Input and output.
    expected = model.predict(images, verbose=0)
    spread = np.std(expected, axis=0).mean()
    difference = int8._run_tflite(path, images) - expected
    assert np.std(difference, axis=0).mean() < 0.1 * spread


def test_images_of_bytes(tmp_path):
    pytest.importorskip("tensorflow_model_optimization")
    inputs = keras.Input(SHAPE, dtype="uint8")
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.set_weights([np.array([[-1, 1]] * 3), np.array([1.5, -1.5])])
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE)).astype("uint8")
    images[::2] //= 2
    data = images, np.arange(40) % 2
    path = tmp_path / "net.tflite"
    report = to_int8(model, images, path, data, validation=data, learning_rate=0.0)
    assert report.twin_difference < 1e-5
    assert report.accuracy_before == report.accuracy_after


def test_factors_are_not_trained(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_model_optimization")
    from keras_spos.export import tf_keras_tuning

    kept = []

    def tuned(*args):
        kept.append(before(*args))
        return kept[0]

    before = tf_keras_tuning.tuned
    monkeypatch.setattr(tf_keras_tuning, "tuned", tuned)
    inputs = keras.Input(SHAPE)
    x = conv(layers.Rescaling(1 / 255, 0.5)(inputs))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model = randomize(keras.Model(inputs, outputs))
    data = 255 * IMAGES, [0, 1, 1]
    to_int8(model, data[0], tmp_path / "a.tflite", data, epochs=2, learning_rate=0.01)
    values = {w.name.split("/")[-1]: w.numpy() for w in kept[0].weights}
    assert np.allclose(values["depthwise_kernel:0"], 1 / 255, 1e-6)
    assert not np.allclose(values["kernel:0"], model.layers[-1].kernel)
