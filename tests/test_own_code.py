"""What of a layer is the user's own is told from Keras' own, and from other layers'."""

import types

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_spos.own_code import can_rebuild, is_stock, own_code, rebuild
from keras_spos.signatures import signature


def double(x):
    return 2 * x


@keras.saving.register_keras_serializable("tests")
class Apply(layers.Layer):
    """Calls a function that it is given, or a method of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.function = self.same

    def same(self, x):
        return x

    def call(self, x, function=None):
        return (function or self.function)(x)

    def get_config(self):
        return super().get_config()


def test_layers_inside_and_methods_are_no_code_of_their_own():
    assert own_code(Apply()) == [Apply]
    assert own_code(layers.TimeDistributed(Apply())) == []
    assert own_code(layers.Dense(2, activation=double)) == [double]
    start = layers.Dense(2, kernel_initializer=double)
    assert own_code(start) == [] and own_code(start, initializers=True) == [double]


def test_a_package_whose_name_begins_like_keras():
    assert is_stock(layers.Dense) and is_stock(keras.activations.relu)
    other = types.FunctionType(double.__code__, {}, "double")
    other.__module__ = "keras_tools.functions"
    assert not is_stock(other)


@pytest.mark.parametrize(
    "apply",
    [ops.map, lambda function, x: Apply(name="a")(x, function=function)],
    ids=["by position", "by name"],
)
def test_functions_in_a_models_graph(apply):
    def model(function):
        inputs = keras.Input((3,))
        return keras.Model(inputs, apply(function, inputs))

    def times(factor):
        def times(x):
            return factor * x

        return times

    one, other = times(2.0), times(3.0)
    assert one in own_code(model(one))
    assert signature([model(one)]) == signature([model(one)])
    assert signature([model(one)]) != signature([model(other)])


def test_rebuilding_with_classes_that_only_exist_in_a_function():
    class Scale(layers.Layer):
        def call(self, x):
            return 3 * x

        def get_config(self):
            return super().get_config()

    stack = keras.Sequential([layers.Dense(2), Scale(), layers.Activation(double)])
    new = rebuild(stack, stack.get_config())
    assert type(new.layers[1]) is Scale and new.layers[2].activation is double
    new.build((None, 2))
    new.set_weights([np.eye(2), np.zeros(2)])
    np.testing.assert_allclose(new(np.ones((1, 2), "float32")), [[6, 6]])


class Lambda(layers.Layer):
    """Makes its function itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.function = lambda x: x

    def call(self, x):
        return self.function(x)


class WithoutConfig(Lambda):
    def get_config(self):
        raise NotImplementedError


def test_what_can_be_rebuilt():
    assert can_rebuild(layers.Dense(2, activation=double)) and can_rebuild(Lambda())
    assert not can_rebuild(layers.Dense(2, activation=lambda x: x))
    assert not can_rebuild(WithoutConfig())
