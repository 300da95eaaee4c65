"""ChoiceBlock obeys the laws, and says what is wrong with its arguments."""

import keras
import numpy as np
import pytest
from keras import layers
from laws import SearchableLayerLaws
from models import Grid, options

from keras_spos import ChoiceBlock, ElasticBlock, MultiPathBlock, Supernet
from keras_spos.layers import PathGroup


class TestChoiceBlock(SearchableLayerLaws):
    def make(self):
        labels = ("k3", "k5", "residual", "skip")
        return ChoiceBlock(options("block"), labels=labels, name="block")


class TestTwoDecisions(SearchableLayerLaws):
    """The base class holds for layers of more than one decision."""

    def make(self):
        return Grid(3, name="grid")


def test_labels_default_to_names_and_decision_to_name():
    block = ChoiceBlock([layers.ReLU(name="a"), layers.Identity(name="b")], name="x")
    (decision,) = block.decisions
    assert (decision.name, decision.options) == ("x", ("a", "b"))


def test_options_may_be_lists_layers_or_models():
    inputs = keras.Input((3,))
    block = ChoiceBlock(
        [
            layers.Dense(3),
            [layers.Dense(5), layers.Dense(3)],
            keras.Model(inputs, layers.Dense(3)(inputs)),
        ],
        labels="abc",
    )
    assert block(inputs).shape == (None, 3)
    generated = ChoiceBlock(layers.Dense(n, name=f"of_{n}") for n in (3, 3 + 1))
    assert generated.labels == ("of_3", "of_4")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"options": []}, "at least one option. Received: none"),
        ({"options": [len]}, "An option is a Keras layer"),
        ({"options": layers.ReLU(name="r")}, "a list of options. Received: .*name=r"),
        ({"options": None}, "a list of options. Received: None"),
        ({"options": [layers.ReLU()], "labels": "ab"}, r"one label per option \(1\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChoiceBlock(**arguments)


def test_an_empty_list_passes_its_input_on():
    inputs = keras.Input((3,))
    block = ChoiceBlock([[layers.Dense(3), layers.ReLU()], []], labels="ab")
    net = Supernet(inputs, block(inputs))
    net.set_path((1,))
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(net.predict(x, verbose=0), x)
    assert isinstance(net.extract().layers[-1], layers.Identity)


def test_an_option_computes_on_one_argument():
    x = keras.Input((5, 4))
    block = ChoiceBlock([layers.Identity(), layers.MultiHeadAttention(2, 3, name="m")])
    with pytest.raises(ValueError, match="Functional.*Attention 'm'.*'value_shape'"):
        block(x)
    recurrent = [layers.LSTM(4, return_sequences=True), layers.Dense(4)]
    assert ChoiceBlock(recurrent)(x).shape == (None, 5, 4)


class Around(layers.Layer):
    """A layer that has no `build`: the one inside it is built by being called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(4, bias_initializer="ones")

    def call(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    "make",
    [
        ChoiceBlock,
        lambda options: MultiPathBlock(options, 2),
        lambda options: MultiPathBlock([PathGroup(options, before=Around())]),
    ],
    ids=["choice", "paths", "before"],
)
def test_layers_without_build(make):
    inputs = keras.Input((4,))
    net = Supernet(inputs, make([Around(), layers.Dense(4)])(inputs))
    net.compile("sgd", "mse")
    x = np.eye(4)
    net.fit(x, x, verbose=0)
    net.set_path((0,))
    expected = net.extract((0,)).predict(x, verbose=0)
    np.testing.assert_allclose(net.predict(x, verbose=0), expected, 1e-5, 1e-6)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    "units, dtype, message",
    [(4, "float32", "a gives.*3.*b gives.*4"), (3, "float16", "32.*b gives.*float16")],
)
def test_options_must_agree_on_their_output(units, dtype, message):
    options = [layers.Dense(3, dtype="float32"), layers.Dense(units, dtype=dtype)]
    block = ChoiceBlock(options, labels="ab", name="x")
    with pytest.raises(ValueError, match=f"one shape and type.*{message}"):
        block(keras.Input((2,)))


@pytest.mark.parametrize("make", [ElasticBlock, MultiPathBlock, PathGroup])
def test_one_layer_in_the_place_of_a_list(make):
    with pytest.raises(ValueError, match="Expected a list of .* Received: .*name=r"):
        make(layers.ReLU(name="r"))
