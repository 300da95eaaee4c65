"""Multiply-adds and parameters are counted by layer type, as the papers count them."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import small_net

from keras_spos import (
    ChoiceBlock,
    ElasticBlock,
    MultiPathBlock,
    Supernet,
    count_flops,
    count_params,
    flops_table,
    params_table,
    register_flops,
)
from keras_spos.layers import SliceableConv2D


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


def test_the_table_is_what_is_extracted():
    net = small_net()
    for table, count in (
        (flops_table(net), count_flops),
        (params_table(net), count_params),
    ):
        for path in net.space.sample(6, seed=0):
            assert table(path).tolist() == [count(net.extract(path, fresh=True))]


@pytest.mark.parametrize("case", ["applied twice", "beside", "shared decision"])
def test_shared_weights_are_counted_once(case):
    x = inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    one = ChoiceBlock([shared, layers.Dense(4)], "ab", name="one", decision="d")
    two = ChoiceBlock([shared, layers.Dense(4)], "ab", name="two", decision="d")
    stacks = {
        "applied twice": [one, one],
        "beside": [shared, one],
        "shared decision": [one, two],
    }
    for layer in stacks[case]:
        x = layer(x)
    net = Supernet(inputs, x)
    tables = flops_table(net), params_table(net)
    for path in net.space.enumerate():
        subnet = net.extract(path)
        counted = count_flops(subnet), count_params(subnet)
        assert tuple(float(table(path)[0]) for table in tables) == counted


def elastic(name):
    """A block of one convolution at two widths."""
    inputs = keras.Input((4, 4, 3))
    x = SliceableConv2D((2, 3), 1, name=f"{name}_in")(inputs)
    x = SliceableConv2D((3, 3), 1, name=f"{name}_out")(x)
    return ElasticBlock([keras.Model(inputs, x)], widths="sl", name=name)


@pytest.mark.parametrize("table", [flops_table, params_table])
def test_equal_blocks_of_slices_are_counted_once(table, monkeypatch):
    twice, *others = (elastic(name) for name in "abcd")
    x = inputs = keras.Input((4, 4, 3))
    for block in (twice, twice, *others):
        x = block(x)
    net = Supernet(inputs, x)
    made = set()
    picked = ElasticBlock.picked
    monkeypatch.setattr(
        ElasticBlock,
        "picked",
        lambda self, choices: made.add(self.name) or picked(self, choices),
    )
    costs = table(net)
    assert made == {"a", "b"}
    for path in net.space.enumerate():
        subnet = net.extract(path, fresh=True)
        expected = {flops_table: count_flops, params_table: count_params}[table](subnet)
        assert costs(path).tolist() == [expected]


def test_weights_shared_by_blocks_that_choose_apart_are_no_sum():
    x = inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    for name in ("one", "two"):
        x = ChoiceBlock([shared, layers.Identity()], "ab", name=name)(x)
    net = Supernet(inputs, x)
    assert flops_table(net)([(0, 0), (1, 0), (1, 1)]).tolist() == [32, 16, 0]
    with pytest.raises(ValueError, match="'one' and 'two' share weights"):
        params_table(net)


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


def picking(*picked):
    """A model that returns one of its two inputs, or their sum."""
    inputs = [keras.Input((4,)) for _ in range(2)]
    chosen = [inputs[i] for i in picked]
    return keras.Model(inputs, chosen[0] if len(chosen) == 1 else layers.add(chosen))


@pytest.mark.parametrize("table", [flops_table, params_table])
def test_layers_that_subnets_of_some_paths_lack_are_no_sum(table):
    inputs = keras.Input((4,))
    one = layers.Dense(4, name="one")(inputs)
    two = layers.Dense(4, name="two")(layers.ReLU()(one))
    both = ChoiceBlock([picking(0), picking(0, 1)])([one, two])
    net = Supernet(inputs, both)
    count = {flops_table: count_flops, params_table: count_params}[table]
    assert count(net.extract((0,))) < count(net.extract((1,)))
    for options in ([picking(0), picking(0, 1)], [picking(0, 1), picking(0)]):
        net = Supernet(inputs, ChoiceBlock(options)([one, two]))
        with pytest.raises(ValueError, match="one that leaves out 'two'"):
            table(net)
    # Every path has all that counts: 'one' is used elsewhere, and ReLU costs nothing.
    other = ChoiceBlock([picking(1), layers.Add()])([layers.ReLU()(one), two])
    net = Supernet(inputs, layers.add([other, one]))
    for path in [(0,), (1,)]:
        assert table(net)(path) == count(net.extract(path))


@pytest.mark.parametrize("where", ["fixed", "option"])
@pytest.mark.parametrize("used", "ab")
def test_what_a_model_called_on_a_dict_leaves_out(used, where):
    pair = {name: keras.Input((4,), name=name) for name in "ba"}
    inner = keras.Model(list(pair.values()), layers.Dense(4)(pair[used]))
    image, other = keras.Input((4,)), keras.Input((4,))
    given = {"a": layers.Dense(4, name="layer_a")(image), "b": other}
    if where == "fixed":
        outputs = ChoiceBlock([layers.ReLU(), layers.Identity()])(inner(given))
    else:
        outputs = ChoiceBlock([inner])(given)
    net = Supernet([image, other], outputs)
    if used == "a":
        assert flops_table(net)((0,)) == count_flops(net.extract((0,))) == 32
        return
    with pytest.raises(ValueError, match="one that leaves out 'layer_a'"):
        flops_table(net)


@pytest.mark.parametrize("place", ["model", "option", "before", "path"])
def test_outputs_of_a_model_that_nobody_reads_are_no_sum(place):
    inputs = keras.Input((4,))
    outputs = layers.Dense(4)(inputs), layers.Dense(9, name="aux")(inputs)
    model = keras.Model(inputs, outputs)
    options = [layers.Dense(4), layers.ReLU()]
    if place == "model":
        net = Supernet(inputs, ChoiceBlock(options)(model(inputs)[0]))
    elif place == "before":
        pair = [keras.Input((4,)), keras.Input((9,))]
        model = keras.Model(pair, [layers.ReLU()(x) for x in pair])
        net = Supernet(inputs, ChoiceBlock(options)(model(outputs)[0]))
    elif place == "path":
        path = keras.Model(inputs, model(inputs)[0])
        net = Supernet(inputs, MultiPathBlock([path, layers.Dense(4)])(inputs))
    else:
        net = Supernet(inputs, ChoiceBlock([model])(inputs)[0])
    assert "aux" not in str([x.name for x in net.extract().layers])
    with pytest.raises(ValueError, match="one that leaves out 'aux'"):
        flops_table(net)


def test_layers_called_with_training_are_counted():
    inputs = keras.Input((4,))
    x = layers.Dense(3)(layers.ReLU()(inputs, training=False), training=False)
    net = Supernet(inputs, ChoiceBlock([layers.Dense(3), layers.ReLU()])(x))
    assert [flops_table(net)((i,)) for i in range(2)] == [21, 12]
    assert count_params(net.extract((1,))) == params_table(net)((1,)) == 15
