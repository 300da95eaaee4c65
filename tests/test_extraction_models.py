"""Models inside a supernet are extracted as Keras runs them."""

import keras
import numpy as np
import pytest
from keras import layers
from models import data, randomize

import keras_spos as ks
from keras_spos import ChoiceBlock, Supernet


def values_of(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_layers_used_twice_are_shared_and_models_inlined():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    inner_inputs = keras.Input((4,))
    inner = layers.ReLU(name="relu")(layers.Dense(4, name="deep")(inner_inputs))
    inner = keras.Model(inner_inputs, inner, name="inner")
    twice = [shared, layers.ReLU(name="between"), inner, shared, inner]
    x = ChoiceBlock([twice, layers.Identity()], "ab", name="block")(shared(inputs))
    net = randomize(Supernet(inputs, x))
    subnet = net.extract((0,))
    assert len(subnet.weights) == 4
    assert not [m for m in subnet.layers if isinstance(m, keras.Model)]
    x = data(3, (4,))[0]
    outputs = [keras.ops.convert_to_numpy(m(x)) for m in (net, subnet)]
    np.testing.assert_allclose(*outputs, 1e-6)


@pytest.mark.parametrize("where", ["fixed", "option"])
def test_a_model_of_a_list_of_inputs_takes_a_dict_by_their_names(where, tmp_path):
    b, a = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    inner = keras.Model([b, a], layers.Subtract(name="minus")([b, a]), name="inner")
    inputs = [keras.Input((3,), name=name) for name in "ab"]
    given = dict(zip("ab", inputs, strict=True))
    if where == "option":
        x = ChoiceBlock([inner], ["minus"], name="block")(given)
    else:
        x = ChoiceBlock([layers.Identity()], ["skip"], name="block")(inner(given))
    net = Supernet(inputs, x)
    stock = keras.Model(inputs, inner(given), name="stock")
    numbers = [np.full((2, 3), 3.0, "float32"), np.full((2, 3), 5.0, "float32")]
    assert np.all(net.predict(numbers, verbose=0) == 2)
    assert np.all(values_of(net.extract()(numbers)) == 2)
    ks.to_onnx(stock, tmp_path / "stock.onnx")  # Compared with the model.


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
@pytest.mark.parametrize("as_dict", [False, True])
def test_a_model_takes_no_more_of_a_dict_than_its_inputs(as_dict):
    b, a = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    inputs = {"a": a, "b": b} if as_dict else [b, a]
    inner = keras.Model(inputs, layers.Subtract(name="minus")([b, a]), name="inner")
    inputs = [keras.Input((3,), name=name) for name in "abc"]
    x = inner(dict(zip("abc", inputs, strict=True)))
    net = Supernet(inputs, ChoiceBlock([layers.Identity()], ["skip"], name="block")(x))
    numbers = [np.full((2, 3), number, "float32") for number in (3, 5, 9)]
    for outputs in (net.predict(numbers, verbose=0), net.extract()(numbers)):
        assert np.all(values_of(outputs) == 2)


def test_a_donor_lacks_nothing_where_outputs_are_not_read():
    inputs = keras.Input((3,), name="image")
    outputs = [layers.Dense(2, name=name)(inputs) for name in ("kept", "aux")]
    inner = keras.Model(inputs, outputs, name="inner")
    block = ChoiceBlock([layers.ReLU()], ["relu"], name="block")
    net = Supernet(inputs, block(inner(inputs)[0]))
    assert net.inherit(net.extract()) == []


@pytest.mark.parametrize("outer, shape", [((5,), (5, 1)), ((5, 1), (5,))])
def test_a_model_takes_inputs_of_another_rank(outer, shape, tmp_path):
    inner_input, inputs = keras.Input(shape), keras.Input(outer)
    inner = keras.Model(inner_input, layers.Dense(2, name="dense")(inner_input))
    x = np.random.default_rng(0).standard_normal((2, *outer)).astype("float32")
    net = Supernet(inputs, ChoiceBlock([inner], ["inner"], name="block")(inputs))
    subnet = net.extract()
    expected = net.predict(x, verbose=0)
    np.testing.assert_allclose(values_of(subnet(x)), expected, 1e-6)
    ks.to_onnx(subnet, tmp_path / "a.onnx")  # Compared with the model.
    nested = keras.Model(inputs, inner(inputs))
    if keras.backend.backend() == "tensorflow":
        ks.to_onnx(nested, tmp_path / "a.onnx")
    else:
        with pytest.raises(ValueError, match="Only tf2onnx may export that"):
            ks.to_onnx(nested, tmp_path / "a.onnx")


def test_a_model_inside_gets_its_inputs_in_their_type():
    """Doubled as integers of 8 bits, 200 is 144."""
    inner = keras.Input((3,))
    double = keras.Model(inner, 2 * inner)
    inputs = keras.Input((3,), dtype="uint8")
    x = ChoiceBlock([double, layers.Rescaling(0.5)])(double(inputs=inputs))
    net = Supernet(inputs, x)
    subnet = net.extract((0,))
    assert subnet.inputs[0].dtype == "uint8"
    outputs = subnet.predict(np.array([[1, 100, 200]], "uint8"), verbose=0)
    np.testing.assert_array_equal(outputs, [[4, 400, 800]])


def test_a_layer_of_a_model_inside_may_be_named_as_the_input():
    inner, inputs = (keras.Input((3,), name=name) for name in ("inner", "image"))
    model = keras.Model(inner, layers.Dense(3, name="image")(inner))
    net = Supernet(inputs, ChoiceBlock([layers.ReLU()])(model(inputs)))
    names = [layer.name for layer in net.extract().layers]
    assert names[:2] == ["image", "image_"]


@keras.saving.register_keras_serializable("tests")
class Around(layers.Layer):
    """Holds a model under a name that Keras uses too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        inputs = keras.Input((3,))
        self._functional = keras.Model(inputs, layers.Dense(3)(inputs))

    def call(self, inputs):
        return 5 * self._functional(inputs)


def test_a_layer_around_a_model_is_no_model():
    inputs = keras.Input((3,))
    net = Supernet(inputs, ChoiceBlock([Around(), layers.Dense(3)])(inputs))
    x = np.ones((2, 3), "float32")
    net.set_path((0,))
    expected = net.predict(x, verbose=0)
    np.testing.assert_allclose(net.extract((0,)).predict(x, verbose=0), expected, 1e-5)


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.Model):
    """Computes more than its graph."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


@keras.saving.register_keras_serializable("tests")
class DoubledChain(keras.Sequential):
    """The same, of a list of layers."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize("where", ["fixed", "option"])
def test_a_model_with_a_call_of_its_own_is_kept_whole(chain, where):
    x = inputs = keras.Input((3,))
    dense = layers.Dense(3)
    model = DoubledChain([inputs, dense]) if chain else Doubled(inputs, dense(inputs))
    if where == "fixed":
        x = model(x)
        model = layers.Dense(3)
    net = Supernet(inputs, ChoiceBlock([model, layers.Dense(3)], "ab")(x))
    x = np.ones((2, 3), "float32")
    net.set_path((0,))
    expected = net.predict(x, verbose=0)
    np.testing.assert_allclose(net.extract((0,)).predict(x, verbose=0), expected, 1e-5)
