"""Options that compute different things never share a compiled function."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import SHAPE, convolution, dense_net, small_net

from keras_spos import ChoiceBlock, Supernet
from keras_spos.signatures import signature

X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


def times(factor):
    def act(x):
        return factor * x

    return act


def sum_times(factor):
    def penalty(x):
        return factor * ops.sum(ops.abs(x))

    return penalty


@keras.saving.register_keras_serializable("tests")
class SumTimes(keras.regularizers.Regularizer):
    """A regularizer that does not say in its config what it computes."""

    def __init__(self, function=None):
        self.function = function

    def __call__(self, x):
        return self.function(x)

    def get_config(self):
        return {}


def scaling_class(factor):
    class Scale(layers.Layer):
        def call(self, inputs):
            return factor * inputs

        def get_config(self):
            return super().get_config()

    return Scale


class Louder(layers.Activation):
    """A class whose config, that of the class it comes from, does not tell all."""

    def __init__(self, factor):
        super().__init__("linear")
        self.factor = factor

    def call(self, inputs):
        return self.factor * super().call(inputs)


def mapping_model(factor):
    inputs = keras.Input((3,))
    return keras.Model(inputs, ops.vectorized_map(times(factor), inputs))


def assert_computed_apart(options):
    inputs = keras.Input((3,))
    net = Supernet(inputs, ChoiceBlock(options)(inputs))
    outputs = []
    for choice, option in enumerate(options):
        net.set_path((choice,))
        outputs.append(net.predict(X, verbose=0))
        np.testing.assert_allclose(outputs[-1], option(X), 1e-5, 1e-6)
    assert np.any(np.abs(outputs[0] - outputs[1]) > 0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: layers.Dense(6, activation=times(k), kernel_initializer="ones"),
        lambda k: layers.Lambda(times(k)),
        lambda k: scaling_class(k)(),
        lambda k: keras.Sequential([layers.Lambda(times(k))]),
        mapping_model,
        Louder,
    ],
    ids=["activation", "lambda", "class", "sequential", "operation", "no config"],
)
def test_functions_of_one_name(make):
    assert_computed_apart([make(1.0), make(5.0)])


def named(x, name):
    return x * len(name)


def test_names_that_are_no_layers():
    """An argument; and the type of numbers, which a config of a policy calls so."""
    assert_computed_apart(
        [layers.Lambda(named, arguments={"name": name}) for name in ("a", "abc")]
    )
    policies = ("float32", "mixed_bfloat16")
    dense = [layers.Dense(3, dtype=policy, name="dense") for policy in policies]
    assert signature(dense[:1]) != signature(dense[1:])


def difference(name, swap, split):
    """A model of the difference of two layers' outputs, or of one's two."""
    inputs = keras.Input((3,))
    first = layers.Activation("tanh", name=name)(inputs)
    pair = [first, layers.Activation("sigmoid")(first)]
    if split:
        pair = ops.split(layers.Concatenate()(pair), 2, axis=-1)
    return keras.Model(inputs, layers.Subtract()(pair[::-1] if swap else pair))


@pytest.mark.parametrize("split", [False, True])
def test_models_of_equal_layers_that_are_wired_otherwise(split):
    first, other = (difference(name, False, split) for name in "ab")
    assert signature([first]) == signature([other])
    assert_computed_apart([first, difference("a", True, split)])


def test_a_layer_that_is_repeated():
    once, twice = (layers.Dense(3, kernel_initializer="ones") for _ in "ab")
    lists = [once, layers.ReLU()], [twice, layers.ReLU(), twice]
    assert_computed_apart([keras.Sequential(layers) for layers in lists])


@pytest.mark.parametrize(
    "make", [sum_times, lambda k: SumTimes(sum_times(k))], ids=["function", "object"]
)
def test_regularizers_of_one_name(make):
    inputs = keras.Input((3,))
    options = [
        layers.Dense(3, kernel_initializer="ones", kernel_regularizer=make(k))
        for k in (1.0, 5.0)
    ]
    net = Supernet(inputs, ChoiceBlock(options)(inputs))
    net.compile(keras.optimizers.SGD(0.0), "mse")
    losses = {}
    for step in range(8):
        y = np.repeat(X.sum(1, keepdims=True), 3, axis=1)
        losses[int(net.draw(step)[0])] = net.train_on_batch(X, y)
    np.testing.assert_allclose([losses[0], losses[1]], [9, 45], 1e-4)


def test_one_function_in_two_layers_is_shared():
    act, penalty = times(2.0), sum_times(2.0)
    dense = [layers.Dense(6, activation=act, kernel_regularizer=penalty) for _ in "ab"]
    assert signature(dense[:1]) == signature(dense[1:])
    stock = [
        layers.Dense(6, "relu", kernel_regularizer="l2", kernel_initializer=start)
        for start in ("ones", "zeros")
    ]
    assert signature(stock[:1]) == signature(stock[1:])


def test_what_adapted_layers_have_learned():
    options = [layers.Normalization() for _ in "ab"]
    for scale, option in enumerate(options):
        option.adapt(X * (1 + 3 * scale) + scale)
    assert_computed_apart(options)


def test_large_constants_between_blocks():
    inputs = keras.Input((2000,))
    x, total = inputs, 1.0
    for place in range(2):
        # All but one of the numbers are left out where arrays are printed.
        constant = np.ones(2000, "float32")
        constant[1000] = 1 + place
        x = ChoiceBlock([layers.Identity(), layers.ReLU()])(x * constant)
        total = total * constant
    net = Supernet(inputs, x)
    ones = np.ones((1, 2000), "float32")
    np.testing.assert_allclose(net.predict(ones, verbose=0)[0], total)


@pytest.mark.parametrize("which", ["arguments", "results"])
def test_equal_layers_between_blocks_that_are_wired_otherwise(which):
    x = inputs = keras.Input((3,))
    outputs = []
    for place in range(2):
        x = ChoiceBlock([layers.Identity(), layers.ReLU()])(x)
        first = layers.Activation("tanh")(x)
        second = layers.Activation("sigmoid")(first)
        swap = place == 1 and which == "arguments"
        x = layers.Subtract()([second, first] if swap else [first, second])
        outputs.append(second if place == 1 and which == "results" else first)
    net = Supernet(inputs, [*outputs, x])
    for ours, stock in zip(net.predict(X, verbose=0), net.extract()(X), strict=True):
        np.testing.assert_allclose(ours, stock, 1e-5, 1e-6)


def convolutional(size=SHAPE, kernel=5, stride=1, label="k5", **arguments):
    """A net of one choice, whose second option is given."""
    inputs = keras.Input(size)
    first = convolution(None, 3, strides=stride)
    second = convolution(None, kernel, strides=stride, **arguments)
    return Supernet(
        inputs, ChoiceBlock([first, second], ("k3", label), name="block")(inputs)
    )


@pytest.mark.parametrize(
    "arguments, same",
    [
        ({}, True),
        ({"label": "other"}, True),
        ({"kernel_regularizer": "l2"}, True),
        ({"kernel": 7}, False),
        ({"stride": 2}, False),
        ({"size": (8, 8, 3)}, False),
        ({"dilation_rate": 2}, False),
        ({"activation": "tanh"}, False),
    ],
)
def test_networks_are_known_by_what_costs(arguments, same):
    first, second = convolutional(), convolutional(**arguments)
    assert (first.space.network == second.space.network) == same


def test_the_order_of_options_tells_networks_apart():
    inputs = keras.Input((3,))
    options = [layers.Dense(3, activation) for activation in ("tanh", "relu")]
    first, second = (
        Supernet(inputs, ChoiceBlock(given, "ab", name="block")(inputs))
        for given in (options, [layers.Dense(3, x) for x in ("relu", "tanh")])
    )
    assert first.space == second.space
    assert first.space.network != second.space.network


def test_a_network_is_known_in_other_processes_and_of_open_size_is_not(tmp_path):
    # Tables are kept: the texts are those of every backend and version.
    assert dense_net().space.network == {
        "block_0": "befa1f61ad28",
        "block_1": "05098952b0a8",
        "": "d0f2db38ee69",
    }
    # Of models in blocks: the order of their layers, and inputs, tell nothing.
    block = "9d9d7834730d"
    net = small_net()
    assert net.space.network == {"": "cd33efc749a5", "block_0": block, "block_1": block}
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.space.network == net.space.network
    assert convolutional(size=(None, None, 3)).space.network is None
