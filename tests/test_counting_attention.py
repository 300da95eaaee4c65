"""Multiply-adds of attention, and of other products of tensors."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_spos import count_flops, count_params


def attention(given_by):
    """Five queries of 6 numbers, and seven keys and values of 4."""
    query, value = keras.Input((5, 6)), keras.Input((7, 4))
    mask, few = keras.Input((5, 7)), keras.Input((7,), dtype="bool")
    gated = given_by == "gate"
    layer = layers.MultiHeadAttention(2, 3, value_dim=5, use_bias=False, use_gate=gated)
    calls = {
        "position": lambda: layer(query, value),
        "gate": lambda: layer(query, value),
        "name": lambda: layer(query=query, value=value),
        "key": lambda: layer(query, value, key=value),
        "all names": lambda: layer(value=value, key=value, query=query),
        "scores too": lambda: layer(query, value, return_attention_scores=True),
        "mask": lambda: layer(query, value, attention_mask=mask),
        "value mask": lambda: layer(query=query, value=value, value_mask=few),
    }
    return keras.Model([query, value, mask, few], calls[given_by]())


@pytest.mark.parametrize(
    "given_by",
    [
        "position",
        "gate",
        "name",
        "key",
        "all names",
        "scores too",
        "mask",
        "value mask",
    ],
)
def test_attention_by_hand(given_by):
    kernels = {"query": 6 * 2 * 3, "key": 4 * 2 * 3, "value": 4 * 2 * 5}
    output = 2 * 5 * 6
    if given_by == "gate":
        output *= 2  # From a query to as many numbers as the output takes.
    counted = attention(given_by)
    assert count_params(counted) == sum(kernels.values()) + output
    projections = 5 * (kernels["query"] + output)
    projections += 7 * (kernels["key"] + kernels["value"])
    assert count_flops(counted) == projections + 5 * 7 * 2 * (3 + 5)


def test_attention_over_some_axes():
    x = keras.Input((5, 7, 4))
    layer = layers.MultiHeadAttention(2, 3, attention_axes=2, use_bias=False)
    kernels = 4 * 4 * 2 * 3
    # Each of 35 queries meets the 7 keys of its row.
    counted = count_flops(keras.Model(x, layer(x, x)))
    assert counted == 35 * kernels + 35 * 7 * 2 * (3 + 3)


def by_hand(kind):
    """Attention of 5 queries of 6 numbers and 7 keys and values, without weights."""
    query, value = keras.Input((5, 6)), keras.Input((7, 6))
    if kind == "layer":
        return [query, value], layers.Attention()([query, value])
    if kind == "additive layer":
        return [query, value], layers.AdditiveAttention()([query, value])
    if kind == "dot_product_attention":
        heads = [layers.Reshape((-1, 2, 3))(x) for x in (query, value, value)]
        return [query, value], ops.dot_product_attention(*heads)
    if kind == "Dot":
        scores = layers.Dot((2, 2))([query, value])
        return [query, value], layers.Dot((2, 1))([ops.softmax(scores), value])
    if kind == "einsum":
        scores = ops.einsum("bqc,bkc->bqk", query, value)
        return [query, value], ops.einsum("bqk,bkc->bqc", scores, value)
    scores = ops.softmax(query @ ops.transpose(value, (0, 2, 1)))
    return [query, value], ops.matmul(scores, value)


@pytest.mark.parametrize(
    "kind",
    ["layer", "additive layer", "dot_product_attention", "Dot", "einsum", "matmul"],
)
def test_attention_without_weights(kind):
    assert count_flops(keras.Model(*by_hand(kind))) == 5 * 7 * 6 * 2


def test_attention_to_values_of_another_size():
    inputs = [keras.Input(shape) for shape in ((5, 6), (7, 4), (7, 6))]
    counted = keras.Model(inputs, layers.Attention()(inputs))
    assert count_flops(counted) == 5 * 7 * (6 + 4)


def test_products_with_what_is_no_tensor_of_the_graph():
    x = keras.Input((5, 6))
    matrix = np.ones((4, 5), "float32")
    assert count_flops(keras.Model(x, ops.matmul(matrix, x))) == 4 * 5 * 6
    assert count_flops(keras.Model(x, ops.einsum("ij,bjc->bic", matrix, x))) == 120
    assert count_flops(keras.Model(x, ops.einsum("bjc->bcj", x))) == 0
    with pytest.raises(ValueError, match="multiply-adds of Einsum.*register_flops"):
        count_flops(keras.Model(x, ops.einsum("ij,...jc->...ic", matrix, x)))
