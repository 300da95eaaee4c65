"""Multiply-adds and parameters are counted by layer type, as the papers count them."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_spos import (
    ChoiceBlock,
    Supernet,
    count_flops,
    count_params,
    flops_table,
    register_flops,
)


def model(*stack, shape=(6, 6, 4)):
    return keras.Sequential([keras.Input(shape), *stack])


# Layer, input shape, multiply-adds and parameters by hand.
CASES = [
    (lambda: layers.Conv2D(8, 3, padding="same"), (6, 6, 4), 36 * 9 * 4 * 8, 296),
    (lambda: layers.Conv2D(8, 3, 2, use_bias=False), (7, 7, 4), 9 * 9 * 4 * 8, 288),
    (lambda: layers.Conv2D(8, 3, groups=2, use_bias=False), (5, 5, 4), 9 * 144, 144),
    (lambda: layers.Conv2D(8, 3, dilation_rate=2), (5, 5, 4), 1 * 9 * 4 * 8, 296),
    (lambda: layers.DepthwiseConv2D(3, use_bias=False), (6, 6, 4), 16 * 9 * 4, 36),
    (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        (6, 6, 4),
        16 * 9 * 8,
        72,
    ),
    (
        lambda: layers.SeparableConv2D(8, 3, use_bias=False),
        (6, 6, 4),
        16 * (36 + 32),
        68,
    ),
    (
        lambda: layers.Conv2DTranspose(8, 3, 2, use_bias=False),
        (3, 3, 4),
        9 * 9 * 4 * 8,
        288,
    ),
    (lambda: layers.Conv1D(8, 3, use_bias=False), (6, 4), 4 * 3 * 4 * 8, 96),
    (lambda: layers.LSTM(3), (5, 4), 5 * 4 * 3 * (4 + 3), 4 * 3 * (4 + 3 + 1)),
    (lambda: layers.GRU(3), (5, 4), 5 * 3 * 3 * (4 + 3), 3 * 3 * (4 + 3 + 2)),
    (
        lambda: layers.Bidirectional(
            layers.SimpleRNN(3), backward_layer=layers.GRU(3, go_backwards=True)
        ),
        (5, 4),
        5 * (1 + 3) * 3 * (4 + 3),
        3 * (4 + 3 + 1) + 3 * 3 * (4 + 3 + 2),
    ),
    (lambda: layers.EinsumDense("abc,cd->abd", (5, 7)), (5, 4), 5 * 4 * 7, 28),
    (lambda: layers.EinsumDense("...x,xy->...y", 7), (3, 5, 4), 15 * 4 * 7, 28),
    (lambda: layers.EinsumDense("...A,AB->...B", 7), (5, 4), 5 * 4 * 7, 28),
    (lambda: layers.EinsumDense("abc,bcd->abd", (5, 7)), (5, 4), 5 * 4 * 7, 140),
    (lambda: layers.LayerNormalization([1, 2]), (6, 5, 4), 0, 60),
    (lambda: layers.Dense(5), (7,), 35, 40),
    (lambda: layers.Dense(5), (3, 7), 105, 40),
    (lambda: layers.BatchNormalization(), (6, 6, 4), 0, 8),
    (lambda: layers.BatchNormalization(center=False, scale=False), (6, 6, 4), 0, 8),
    (lambda: layers.BatchNormalization(axis=1), (6, 6, 4), 0, 12),
    (lambda: layers.GlobalAveragePooling2D(), (6, 6, 4), 0, 0),
    (lambda: layers.Dropout(0.1), (6, 6, 4), 0, 0),
    (lambda: layers.PReLU(), (6, 6, 4), 0, 144),
]


@pytest.mark.parametrize("make, shape, flops, parameters", CASES)
def test_by_hand(make, shape, flops, parameters):
    counted = model(make(), shape=shape)
    assert count_flops(counted) == flops
    assert count_params(counted) == parameters


@pytest.mark.parametrize(
    "make, flops",
    [
        (lambda **a: layers.Conv2D(8, 3, **a), 4 * 3 * 9 * 4 * 8),
        (lambda **a: layers.DepthwiseConv2D(3, **a), 4 * 3 * 9 * 4),
        (lambda **a: layers.SeparableConv2D(8, 3, **a), 4 * 3 * (36 + 32)),
        (lambda **a: layers.Conv2DTranspose(8, 3, 2, **a), 6 * 5 * 9 * 4 * 8),
    ],
)
def test_channels_first(make, flops):
    last, first = (
        model(make(data_format=data_format), shape=shape)
        for data_format, shape in (
            ("channels_last", (6, 5, 4)),
            ("channels_first", (4, 6, 5)),
        )
    )
    assert count_flops(last) == count_flops(first) == flops
    assert count_params(last) == count_params(first)


def test_channels_first_needs_fixed_image_sizes_too():
    counted = model(
        layers.Conv2D(4, 3, data_format="channels_first"), shape=(3, None, 6)
    )
    with pytest.raises(ValueError, match="Counting FLOPs needs fixed sizes"):
        count_flops(counted)


@pytest.mark.parametrize("when", ["before", "after", "one weight"])
def test_frozen_weights_count(when):
    dense = layers.Dense(5, trainable=when != "before")
    lstm = layers.LSTM(2, trainable=when != "before")
    counted = model(dense, lstm, layers.BatchNormalization(), shape=(3, 7))
    if when == "one weight":
        dense.kernel.trainable = False
    else:
        counted.trainable = False
    assert count_params(counted) == 40 + 4 * 2 * (5 + 2 + 1) + 4


def test_state_does_not_count():
    counted = model(
        layers.Normalization(),
        layers.Dropout(0.5),
        layers.SpectralNormalization(layers.Dense(3)),
        shape=(4,),
    )
    assert count_params(counted) == 15


def test_a_layer_used_twice_computes_twice_and_has_its_weights_once():
    x = inputs = keras.Input((4,))
    shared = layers.Dense(4)
    counted = keras.Model(inputs, shared(shared(x)))
    assert (count_flops(counted), count_params(counted)) == (32, 20)


def test_a_layer_that_also_stands_in_a_wrapper_has_its_weights_once():
    inputs = keras.Input((5, 4))
    shared = layers.Dense(4)
    both = [shared(inputs), layers.TimeDistributed(shared)(inputs)]
    assert count_params(keras.Model(inputs, both)) == 20


def test_models_inside_models():
    inner = model(layers.Conv2D(4, 1, use_bias=False))
    outer = model(inner, layers.ReLU(), inner)
    assert (count_flops(outer), count_params(outer)) == (2 * 36 * 16, 16)


def test_masks_and_states_are_not_computed_on():
    words = keras.Input((5,), dtype="int32")
    state = keras.Input((3,))
    x = layers.Embedding(9, 4, mask_zero=True)(words)
    y = layers.GRU(3)(layers.Bidirectional(layers.GRU(2))(x, mask=None)[:, None])
    z = layers.LSTM(3)(initial_state=[state, state], sequences=x)
    counted = keras.Model([words, state], [layers.GRU(3)(x), y, z])
    gru, lstm = 5 * 3 * 3 * (4 + 3), 5 * 4 * 3 * (4 + 3)
    both = 2 * 5 * 3 * 2 * (4 + 2) + 3 * 3 * (4 + 3)
    assert count_flops(counted) == gru + lstm + both


def test_unknown_layer_with_weights():
    def unknown():
        return layers.ConvLSTM1D(3, 2)

    counted = model(unknown(), shape=(5, 4, 2))
    message = r"multiply-adds of ConvLSTM1D.*register_flops"
    with pytest.raises(ValueError, match=message):
        count_flops(counted)
    inputs = keras.Input((5, 4, 2))
    net = Supernet(inputs, ChoiceBlock([unknown(), unknown()], "ab")(inputs))
    with pytest.raises(ValueError, match=message):
        flops_table(net)


def test_image_size_must_be_fixed():
    counted = model(layers.Conv2D(4, 3), shape=(None, None, 3))
    with pytest.raises(ValueError, match="Counting FLOPs needs fixed sizes"):
        count_flops(counted)


def test_a_registered_counter_wins_over_that_of_the_base():
    class Sparse(layers.Dense):
        """Half of the products are with zeros."""

    dense = count_flops(model(Sparse(6), shape=(4,)))
    register_flops(Sparse, lambda layer, i, o: int(np.prod(layer.kernel.shape)) // 2)
    assert (dense, count_flops(model(Sparse(6), shape=(4,)))) == (24, 12)
    assert count_flops(model(layers.Dense(6), shape=(4,))) == 24
