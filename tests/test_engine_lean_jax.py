"""Layers that the engine runs in its own way on JAX compute what Keras computes."""

import gc

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import OTHER_NORMS, cross_entropy, data, plain_model, small_net

from keras_spos.engine.steps import cut

if keras.backend.backend() != "jax":
    pytest.skip("JAX's substitutes", allow_module_level=True)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from keras_spos.engine import Engine, jax_lean  # noqa: E402
from keras_spos.engine.lean import Substitutes  # noqa: E402

ON_GPU = Substitutes(jax_lean.normalize, depthwise=jax_lean.depthwise_on_gpu)


@pytest.fixture
def sums(monkeypatch):
    """The images whose kernel's gradient was taken as sums of products."""
    images = []
    stock = jax_lean._sums_of_products
    monkeypatch.setattr(
        jax_lean,
        "_sums_of_products",
        lambda x, *args: images.append(x) or stock(x, *args),
    )
    return images


def _run(model, substitutes, training=True):
    """Output, and gradients of inputs and weights, of a model as one unit."""
    (step,) = cut(model)
    unit = step.unit
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(3, *model.input_shape[1:])), "float32")
    state = [v.value for v in unit.non_trainable]

    @jax.jit
    def run(x, weights):
        def loss(x, weights):
            arguments = (x, weights, state, training)
            (y,), _, _ = unit.run([x], *arguments[1:], substitutes=substitutes)
            return ops.sum(y * jnp.sin(jnp.arange(y.size).reshape(y.shape))), y

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(x, weights)

    (_, y), gradients = run(x, [v.value for v in unit.trainable])
    return [y, *jax.tree.leaves(gradients)]


def _check(model, substitutes, **options):
    stock = _run(model, None, **options)
    ours = _run(model, substitutes, **options)
    assert len(ours) > 1
    for a, b in zip(stock, ours, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 4, 7, (3, 5), (7, 4)])
def test_depthwise(kernel, stride, padding, monkeypatch):
    calls = []
    stock = jax_lean._pads
    monkeypatch.setattr(
        jax_lean, "_pads", lambda *args: calls.append(args) or stock(*args)
    )
    layer = layers.DepthwiseConv2D(kernel, stride, padding, use_bias=False)
    _check(plain_model((12, 11, 3), layer), jax_lean.substitutes(True))
    assert len(calls) == 1


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 4, 7, (3, 5), (7, 4)])
def test_depthwise_on_gpus(kernel, stride, padding, sums):
    layer = layers.DepthwiseConv2D(kernel, stride, padding, use_bias=False)
    _check(plain_model((12, 11, 3), layer), ON_GPU)
    assert len(sums) == (np.max(kernel) > 3)


@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_of_bfloat16_on_gpus(kernel, sums):
    layer = layers.DepthwiseConv2D(
        kernel, padding="same", use_bias=False, dtype="mixed_bfloat16"
    )
    model = plain_model((12, 11, 3), layer)
    exact = layers.DepthwiseConv2D(kernel, padding="same", use_bias=False)
    reference = plain_model((12, 11, 3), exact)
    exact.set_weights(layer.get_weights())
    for a, b in zip(_run(reference, None), _run(model, ON_GPU), strict=True):
        # Half a unit in the last of 8 binary places, of inputs, kernel and result.
        assert np.linalg.norm(b - a) < 3 * 2**-9 * np.linalg.norm(a)
    assert [x.dtype for x in sums] == ["float32"] * (kernel > 3)


@pytest.mark.parametrize("substitutes", [jax_lean.substitutes(True), ON_GPU])
def test_depthwise_that_is_left_to_keras(substitutes):
    for layer in (
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        layers.DepthwiseConv2D(3, dilation_rate=2, use_bias=False),
        layers.DepthwiseConv2D(3, use_bias=True, activation="relu"),
        layers.DepthwiseConv2D(3, (2, 1), use_bias=False),
        layers.DepthwiseConv2D(3, use_bias=False, data_format="channels_first"),
    ):
        _check(plain_model((12, 11, 3), layer), substitutes)


@pytest.mark.parametrize("make", OTHER_NORMS.values(), ids=OTHER_NORMS)
def test_other_batch_norms_are_left_alone(make):
    model = plain_model((3, 3, 3), make())
    _check(model, jax_lean.substitutes(True))


@pytest.mark.parametrize("training", [True, False])
def test_a_block(training):
    def build(x):
        x = layers.Conv2D(6, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.DepthwiseConv2D(5, 2, "same", use_bias=False)(x)
        return layers.Conv2D(4, 1, use_bias=False)(layers.BatchNormalization()(x))

    _check(plain_model((8, 8, 3), build), jax_lean.substitutes(True), training=training)


def test_operations_are_left_alone_where_nothing_is_compiled():
    assert jax_lean.substitutes(False).depthwise is None


def test_the_backward_pass_keeps_what_convolutions_and_pooling_give():
    inputs = keras.Input((8, 8, 4))
    x = inputs
    for layer in (layers.Conv2D(5, 1), layers.DepthwiseConv2D(5, use_bias=False)):
        x = layers.ReLU(6.0)(layers.BatchNormalization()(layer(x)))
    x = layers.Conv2D(3, 1)(layers.MaxPooling2D(2)(x))
    engine = Engine(keras.Model(inputs, layers.Activation("silu")(x)))
    _, _, tape = engine.forward(np.ones((2, 8, 8, 4), "float32"), (), (0,))
    ((*_, (pullback, known, *_)),) = tape.records
    kept = [a.shape for a in jax.tree.leaves(pullback) if a.shape[:1] == (2,)]
    assert sorted(kept) == [(2, 2, 2, 3), (2, 2, 2, 5), (2, 4, 4, 5), (2, 8, 8, 5)]
    # The input is the caller's own, and so are the weights: not copies.
    assert [a.shape for a in known if a.shape[:1] == (2,)] == [(2, 8, 8, 4)]
    weights = {v.value.unsafe_buffer_pointer() for v in engine.model.trainable_weights}
    own = {a.unsafe_buffer_pointer() for a in known}
    assert len(own & weights) == len(weights) - 1  # The last bias has no part in it.
    everything = {a.unsafe_buffer_pointer() for a in jax.tree.leaves(pullback)}
    assert not everything & weights


def test_what_was_compiled_for_a_supernet_goes_with_it():
    def left():
        net = small_net()
        # Of weights that are updated together, gradients are functions of their own.
        optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1.0)
        net.compile(optimizer, cross_entropy())
        net.train_on_batch(*data(4))
        del net, optimizer
        gc.collect()
        return len(jax.devices()[0].client.live_executables())

    first = left()
    assert left() <= first
