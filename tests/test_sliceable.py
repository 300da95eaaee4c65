"""A sliceable layer at a width is the stock layer on the leading part of its weight."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import randomize, values

from keras_spos.layers import (
    SliceableBatchNormalization,
    SliceableConv2D,
    SliceableDense,
    SliceableDepthwiseConv2D,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 5, 5, 6)).astype("float32")

# The layer, what to call it with besides inputs, and the inputs' shape.
CASES = {
    "conv": lambda: SliceableConv2D((2, 3, 7), 3, padding="same", activation="relu"),
    "dense": lambda: SliceableDense((2, 3, 7), activation="tanh"),
    "depthwise": lambda: SliceableDepthwiseConv2D(3, strides=2, depth_multiplier=2),
    "dilated": lambda: SliceableDepthwiseConv2D(
        2, padding="same", dilation_rate=2, activation="relu", use_bias=False
    ),
    "norm": lambda: SliceableBatchNormalization(epsilon=0.1),
}


def stock_at(layer, channels, width):
    """The stock layer with leading slices of the weights."""
    stock = layer.at(width=width)
    assert type(stock).__module__.startswith("keras.")
    stock.build((None, 5, 5, channels))
    for own, whole in zip(stock.weights, layer.weights, strict=True):
        part = whole.value[tuple(slice(n) for n in own.shape)]
        own.assign(ops.copy(ops.convert_to_tensor(part)))
    return stock


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("channels", [2, 6])
def test_every_width_equals_the_stock_layer(name, channels):
    layer = CASES[name]()
    layer.build((None, 5, 5, 6))
    randomize(layer)
    x = IMAGES[..., :channels]
    for width in range(3) if hasattr(layer, "widths") else (None,):
        arguments = {} if width is None else {"width": width}
        stock = stock_at(layer, channels, width)
        y = layer(x, **arguments)
        np.testing.assert_allclose(
            ops.convert_to_numpy(y), ops.convert_to_numpy(stock(x)), atol=1e-5
        )
        symbolic = layer(keras.Input((5, 5, channels)), **arguments)
        assert symbolic.shape[1:] == y.shape[1:]
        assert width is None or y.shape[-1] == (2, 3, 7)[width]


@pytest.mark.parametrize("trainable", [True, False])
def test_norm_updates_the_channels_it_was_given(trainable):
    layer = SliceableBatchNormalization(momentum=0.8, trainable=trainable)
    layer.build((None, 5, 5, 6))
    randomize(layer)
    stock = stock_at(layer, 4, None)
    before = values(layer.non_trainable_variables)
    x = IMAGES[..., :4]
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x, training=True)),
        ops.convert_to_numpy(stock(x, training=True)),
        atol=1e-5,
    )
    after = values(layer.non_trainable_variables)
    for a, b, expected in zip(
        before, after, values(stock.non_trainable_variables), strict=True
    ):
        np.testing.assert_allclose(b[:4], expected, rtol=1e-5)
        np.testing.assert_array_equal(a[4:], b[4:])


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="in double if told only")
def test_norm_in_double_precision():
    layer = SliceableBatchNormalization(dtype="float64")
    layer.build((None, 5, 5, 6))
    randomize(layer)
    x = IMAGES[..., :4].astype("float64")
    stock = stock_at(layer, 4, None)
    np.testing.assert_allclose(layer(x), stock(x), rtol=1e-12)
    layer(x, training=True)
    stock(x, training=True)
    for whole, own in zip(layer.weights, stock.weights, strict=True):
        np.testing.assert_allclose(whole.numpy()[:4], own.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_config_makes_the_same_layer(name):
    layer = CASES[name]()
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    assert getattr(again, "widths", None) == getattr(layer, "widths", None)


@pytest.mark.parametrize("kind", [SliceableConv2D, SliceableDense])
def test_a_width_trained_anew_has_its_own_initializer(kind):
    narrow, wide = keras.initializers.Zeros(), keras.initializers.Ones()
    size = {"kernel_size": 1} if kind is SliceableConv2D else {}
    layer = kind((1, 4), **size, kernel_initializer=[narrow, wide])
    for made in (layer, kind.from_config(layer.get_config())):
        for width, value in ((0, 0.0), (1, 1.0)):
            stock = made.at(width=width)
            stock.build((None, 5, 5, 3))
            np.testing.assert_array_equal(values(stock.weights)[0], value)
    layer.build((None, 5, 5, 3))
    np.testing.assert_array_equal(values(layer.weights)[0], 1.0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SliceableConv2D((), 1), r"increasing order. Received: \(\)"),
        (lambda: SliceableConv2D((0, 4), 1), r"at least 1.*Received: \(0, 4\)"),
        (lambda: SliceableDense((4, 2)), r"increasing order. Received: \(4, 2\)"),
        (lambda: SliceableDense(4), "a list of numbers of channels.*Received: 4"),
        (lambda: SliceableConv2D((2, 4), 1, groups=2), "groups=1. Received: groups=2"),
        (
            lambda: SliceableConv2D((2, 4), 1, kernel_initializer=["ones"] * 3),
            r"one for each width \(2\). Received: 3",
        ),
        (
            lambda: SliceableDepthwiseConv2D(3, data_format="channels_first"),
            "Expected channels_last",
        ),
        (
            lambda: SliceableConv2D((2, 4), 1, data_format="channels_first"),
            "Expected channels_last",
        ),
        (lambda: SliceableBatchNormalization(axis=1), "axis=-1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_more_channels_than_allocated():
    layer = SliceableConv2D((2, 4), 1, name="narrow")
    layer.build((None, 5, 5, 3))
    with pytest.raises(ValueError, match="at most 3 input channels. Received: 6"):
        layer(IMAGES)
    assert isinstance(layer, layers.Conv2D)
