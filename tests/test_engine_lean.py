"""Layers that the engine runs in its own way compute what Keras computes."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import OTHER_NORMS, plain_model

from keras_spos.engine.steps import cut

tf = pytest.importorskip("tensorflow")
if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's substitutes", allow_module_level=True)

from keras_spos.engine.tensorflow import substitutes  # noqa: E402


def _gradients(model, replace, jit_compile=False):
    """Output, and gradients of inputs and weights, of a model as one unit."""
    (step,) = cut(model)
    unit = step.unit
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(size=(3, *model.input_shape[1:])), "float32")
    weights = [tf.convert_to_tensor(v) for v in unit.trainable]
    state = [tf.convert_to_tensor(v) for v in unit.non_trainable]

    @tf.function(jit_compile=jit_compile)
    def run():
        with tf.GradientTape() as tape:
            tape.watch([x, *weights])
            (y,), _, _ = unit.run([x], weights, state, True, (), replace)
            factors = tf.reshape(tf.range(tf.size(y), dtype=tf.float32), tf.shape(y))
            loss = tf.reduce_sum(y * tf.sin(factors))
        return y, tape.gradient(loss, [x, *weights])

    return [run()[0], *run()[1]]


def _check(model, jit_compile=False):
    stock = _gradients(model, None)
    ours = _gradients(model, substitutes(jit_compile), jit_compile)
    for a, b in zip(stock, ours, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max())


@contextlib.contextmanager
def _counting(monkeypatch, name):
    """A list that gets an entry for each call of a substitute."""
    calls = []
    stock = getattr(substitutes(False), name)

    def count(*args):
        calls.append(name)
        return stock(*args)

    monkeypatch.setattr(f"keras_spos.engine.tensorflow_lean.{name}", count)
    yield calls
    assert calls


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 4, 5, 7, 9, (3, 5), (7, 4)])
def test_depthwise(kernel, stride, padding, monkeypatch):
    def build(x):
        return layers.DepthwiseConv2D(
            kernel, stride, padding, depth_multiplier=2, use_bias=False
        )(x)

    model = plain_model((12, 11, 3), build)
    with _counting(monkeypatch, "depthwise"):
        _check(model)


def _padded(x):
    x = layers.ZeroPadding2D(((1, 2), (3, 0)))(x)
    return x, layers.DepthwiseConv2D(5, 2, use_bias=False)(x)


@pytest.mark.parametrize("uses", [1, 2])
def test_padded_depthwise(uses):
    def build(x):
        padded, y = _padded(x)
        # The padding is computed all the same for whoever else uses it.
        return y if uses == 1 else y + ops.mean(padded * padded)

    _check(plain_model((12, 11, 3), build))


@pytest.mark.parametrize(
    "pad",
    [
        lambda x: ops.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]], mode="reflect"),
        lambda x: ops.pad(x, [[0, 0], [1, 2], [3, 0], [1, 2]]),
        lambda x: ops.pad(x, [[1, 2], [1, 2], [3, 0], [0, 0]]),
        layers.ZeroPadding2D(((0, 0), (3, 0))),
    ],
    ids=["reflected", "channels", "images", "columns"],
)
def test_other_paddings(pad):
    def build(x):
        return layers.DepthwiseConv2D(5, 2, use_bias=False)(pad(x))

    _check(plain_model((12, 11, 3), build))


def test_padding_is_left_to_the_convolution():
    model = plain_model((12, 11, 3), lambda x: _padded(x)[1])
    (step,) = cut(model)

    @tf.function
    def run(x, kernel):
        (y,), _, _ = step.unit.run([x], [kernel], [], True, (), substitutes(False))
        return y

    graph = run.get_concrete_function(tf.zeros((1, 12, 11, 3)), model.weights[0]).graph
    (convolution,) = [
        x for x in graph.get_operations() if x.type == "DepthwiseConv2dNative"
    ]
    assert list(convolution.get_attr("explicit_paddings")) == [0, 0, 1, 2, 3, 0, 0, 0]
    read = convolution.inputs[0].op
    while read.type in ("Identity", "IdentityN"):
        read = read.inputs[0].op
    assert read.type == "Placeholder"


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 5, "use_bias": True},
        {"kernel_size": 5, "activation": "relu"},
        {"kernel_size": 5, "dilation_rate": 2},
    ],
)
def test_other_depthwise_convolutions_are_left_alone(arguments, monkeypatch):
    def fail(*args):
        raise AssertionError

    monkeypatch.setattr("keras_spos.engine.tensorflow_lean.depthwise", fail)
    arguments = {"use_bias": False, "padding": "same", **arguments}
    _check(plain_model((12, 12, 3), layers.DepthwiseConv2D(**arguments)))


@pytest.mark.parametrize("axis", [-1, 3, 1])
def test_concatenation(axis):
    def build(x):
        return layers.Concatenate(axis)([x, ops.tanh(x), 2 * x])

    _check(plain_model((4, 5, 3), build))


def test_concatenation_keeps_nothing(monkeypatch):
    def build(x):
        return layers.Concatenate()([x, x])

    with _counting(monkeypatch, "concatenate"):
        _check(plain_model((4, 5, 3), build))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_unstacking(dtype, monkeypatch):
    def build(x):
        x = ops.cast(layers.Reshape((4, 5, 3, 2))(x), dtype)
        first, second = ops.unstack(x, axis=-1)
        return ops.cast(first * second + first, "float32")

    model = plain_model((4, 5, 6), build)
    if dtype == "float32":
        with _counting(monkeypatch, "unstack"):
            _check(model)
    else:
        _check(model)


def test_unstacking_of_which_one_part_is_used():
    def build(x):
        return ops.unstack(layers.Reshape((4, 5, 3, 2))(x), axis=-1)[1]

    _check(plain_model((4, 5, 6), build))


@pytest.mark.parametrize("axis, parts", [(1, 4), (-1, 6)])
def test_other_unstacking_is_left_alone(axis, parts):
    def build(x):
        return ops.unstack(x, num=parts, axis=axis)[2] * 2.0

    _check(plain_model((4, 5, 6), build))


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise(stride):
    def build(x):
        return layers.Conv2D(7, 1, stride)(x)

    _check(plain_model((5, 6, 3), build))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(affine):
    def build(x):
        return layers.BatchNormalization(center=affine, scale=affine)(x)

    model = plain_model((5, 6, 3), build)
    model.layers[-1].moving_variance.assign([1.0, 2.0, 3.0])
    _check(model)


@pytest.mark.parametrize("make", OTHER_NORMS.values(), ids=OTHER_NORMS)
def test_other_batch_norms_are_left_alone(make):
    _check(plain_model((3, 3, 3), make()))


def test_under_xla():
    def build(x):
        x = layers.DepthwiseConv2D(5, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(layers.Conv2D(6, 1, use_bias=False)(x))
        first, second = ops.unstack(layers.Reshape((5, 6, 3, 2))(x), axis=-1)
        return layers.Concatenate()([first * second, first])

    model = plain_model((5, 6, 3), build)
    next(x for x in model.layers if "batch" in x.name).moving_variance.assign([1] * 6)
    _check(model, jit_compile=True)
