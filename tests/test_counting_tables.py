"""Tables of a supernet's costs are what is counted of its subnets, or are refused."""

import keras
import pytest
from keras import layers
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
)
from keras_spos.layers import SliceableConv2D


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
