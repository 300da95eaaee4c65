"""Layers that are shared: which supernets are saved, and which are refused."""

import os

import keras
import numpy as np
import pytest
from keras import layers

import keras_spos as ks


def net_that_shares(inside):
    """Options of two blocks share a layer, by itself or inside a list of layers."""
    shared = layers.Dense(4, name="shared")
    x = inputs = keras.Input((4,))
    for i in range(2):
        option = [shared, layers.ReLU()] if inside else shared
        x = ks.ChoiceBlock(
            [option, layers.Dense(4, name=f"own_{i}")], "ab", name=f"block_{i}"
        )(x)
    return ks.Supernet(inputs, x)


@pytest.mark.parametrize("inside", [False, True])
def test_layers_that_a_file_would_make_twice_are_not_saved(tmp_path, inside):
    net = net_that_shares(inside)
    with pytest.raises(ValueError, match="'shared', in 'block_0' and in 'block_1'"):
        net.save(tmp_path / "net.keras")
    # What the error says to do instead.
    net.save_weights(tmp_path / "net.weights.h5")
    loaded = net_that_shares(inside)
    loaded.load_weights(tmp_path / "net.weights.h5")
    x = np.ones((2, 4), "float32")
    for path in ((0, 1), (1, 0)):
        net.set_path(path)
        loaded.set_path(path)
        np.testing.assert_array_equal(
            loaded.predict(x, verbose=0), net.predict(x, verbose=0)
        )


def test_a_list_that_repeats_a_layer_is_not_saved(tmp_path):
    """Keras would leave the second call out."""
    dense, inputs = layers.Dense(4, name="dense"), keras.Input((4,))
    lists = [[dense, layers.ReLU(name="relu"), dense], layers.ReLU()]
    net = ks.Supernet(inputs, ks.ChoiceBlock(lists, "ab")(inputs))
    with pytest.raises(ValueError, match=r"once. Received: \['dense', 'relu', 'dense'"):
        net.save(tmp_path / "net.keras")
    assert not os.listdir(tmp_path)


@keras.saving.register_keras_serializable("tests")
class Repeated(layers.Layer):
    """Calls what it calls `layers` as it likes: here it is a number."""

    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        self.layers = layers
        self.dense = keras.layers.Dense(4)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        for _ in range(self.layers):
            x = self.dense(x)
        return x

    def get_config(self):
        return {**super().get_config(), "layers": self.layers}


def test_what_a_layer_of_the_users_calls_layers_is_its_own(tmp_path):
    inputs, options = keras.Input((4,)), [Repeated(2), layers.Dense(4)]
    net = ks.Supernet(inputs, ks.ChoiceBlock(options)(inputs))
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), net.predict(x, verbose=0)
    )


def test_a_layer_that_also_stands_by_itself_is_saved(tmp_path):
    shared, relu = layers.Dense(4, name="shared"), layers.ReLU()
    x = inputs = keras.Input((4,))
    for name, option in (("block", shared), ("other", layers.Identity())):
        # A layer without weights may be in any number of places.
        x = ks.ChoiceBlock([option, shared, relu], "abc", name=name)(shared(x))
    net = ks.Supernet(inputs, x)
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert [w.path for w in loaded.weights] == [w.path for w in net.weights]


def test_a_model_that_also_stands_by_itself_is_saved(tmp_path):
    inputs = keras.Input((4,))
    shared = keras.Sequential([inputs, layers.Dense(4)], name="shared")
    block = ks.ChoiceBlock([shared, layers.Dense(4)], "ab", name="block")
    net = ks.Supernet(inputs, block(shared(inputs)))
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.get_layer("block").options[0] is loaded.get_layer("shared")
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), net.predict(x, verbose=0)
    )


def test_a_layer_that_is_also_in_a_graph_is_not_saved(tmp_path):
    """Keras writes the file, and does not find the graph's end in it."""
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    option = [shared, layers.ReLU()]
    block = ks.ChoiceBlock([option, layers.Dense(4)], "ab", name="block")
    net = ks.Supernet(inputs, block(shared(inputs)))
    with pytest.raises(ValueError, match="'shared', in 'shared' and in 'block'"):
        net.save(tmp_path / "net.keras")


def shared_twice(place):
    """A block with a layer in two places, both of them inside one of its parts."""
    shared, image = layers.Dense(3, name="shared"), keras.Input((3,))
    inner = keras.Model(image, shared(image), name="inner")
    chains = [keras.Sequential([shared, layers.Dense(3)]) for _ in range(2)]
    if place == "graph":
        return ks.ChoiceBlock([keras.Model(image, shared(inner(image)))])
    if place == "list":
        return ks.ChoiceBlock([[inner, shared]])
    if place == "options":
        return ks.ChoiceBlock(chains)
    if place == "paths":
        return ks.MultiPathBlock(chains, max_paths=2)
    return ks.MultiPathBlock([ks.PathGroup([layers.ReLU()], before=x) for x in chains])


@pytest.mark.parametrize("place", ["graph", "list", "options", "paths", "groups"])
def test_a_file_of_a_layer_in_two_places_of_one_part(place, tmp_path):
    inputs = keras.Input((3,))
    net = ks.Supernet(inputs, shared_twice(place)(inputs))
    with pytest.raises(ValueError, match="each layer in one place.*'shared', in"):
        net.save(tmp_path / "net.keras")
    assert not any(tmp_path.iterdir())
