"""An extracted subnet is a stock model with weights of its own."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from models import SHAPE, cross_entropy, data, dense_net, randomize, small_net, values

from keras_spos import ChoiceBlock, Supernet

PATH = (2, 0)
LOAD = """
import sys, keras, numpy
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
assert "keras_spos" not in sys.modules
"""


@pytest.fixture(scope="module")
def net():
    return randomize(small_net(dropout=0.2))


def test_loads_where_this_package_is_not(net, tmp_path):
    subnet = net.extract(PATH)
    x, _ = data(3)
    subnet.save(tmp_path / "subnet.keras")
    np.save(tmp_path / "x.npy", x)
    arguments = [tmp_path / n for n in ("subnet.keras", "x.npy", "y.npy")]
    # Away from the checkout, so that it could not be imported.
    result = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    outputs = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(outputs, subnet.predict(x, verbose=0), 1e-5, 1e-6)


def test_weights_are_copies(net):
    subnet = net.extract(PATH)
    subnet.compile("sgd", cross_entropy())
    for take in (lambda: None, lambda: net.inherit(subnet, PATH)):
        take()
        before = values(net.variables)
        subnet.fit(*data(6), verbose=0)
        for a, b in zip(before, values(net.variables), strict=True):
            np.testing.assert_array_equal(a, b)
    randomize(net, seed=1)
    kernels = [m.get_layer("classifier").kernel.value for m in (net, subnet)]
    assert not np.allclose(*map(keras.ops.convert_to_numpy, kernels))
    randomize(net)


def test_fresh_inherits_nothing_and_gives_batch_norms_scale_and_offset(net):
    inherited, fresh = net.extract(PATH), net.extract(PATH, fresh=True)
    norms = [n for n in fresh.layers if isinstance(n, layers.BatchNormalization)]
    assert len(norms) == 4
    for norm in norms:
        assert norm.center and norm.scale
        for value, start in zip(values(norm.weights), (1, 0, 0, 1), strict=True):
            assert np.all(value == start)
    bare = inherited.get_layer("block_0_block_0_residual_dwnorm")
    assert not bare.center and not bare.scale
    old = {v.path: v for v in inherited.trainable_variables}
    for variable in fresh.trainable_variables:
        if "kernel" in variable.path:
            a, b = values([variable, old[variable.path]])
            assert a.shape == b.shape and not np.any(a == b)
    again = net.extract(PATH, fresh=True).trainable_variables[0]
    assert not np.any(np.equal(*values([fresh.trainable_variables[0], again])))


@pytest.mark.parametrize("center", [True, False])
def test_norms_with_one_of_scale_and_offset_keep_their_form(center):
    inputs = keras.Input((3,))
    norm = layers.BatchNormalization(center=center, scale=not center)
    net = Supernet(inputs, ChoiceBlock([norm, layers.ReLU()], "ab")(inputs))
    (fresh,) = net.extract((0,), fresh=True).layers[1:]
    assert fresh.center == center != fresh.scale


def test_paths_by_name_by_description_and_the_current_one(net):
    named = Supernet(net.input, net.output, named_paths={"mine": PATH})
    named.set_path("mine")
    assert named.path == PATH
    description = {"block_0": "residual", "block_1": "k3"}
    x, _ = data(3)
    expected = net.extract(PATH).predict(x, verbose=0)
    for path in ("mine", description, None, np.array(PATH)):
        outputs = keras.ops.convert_to_numpy(named.extract(path)(x))
        np.testing.assert_allclose(outputs, expected, 1e-5, 1e-6)
    with pytest.raises(
        ValueError, match=r"architectures are \['mine'\]. Received: 'x'"
    ):
        named.extract("x")
    with pytest.raises(ValueError, match="'block_1' .*options 0 to 3.*Received: 4"):
        net.extract((0, 4))


def test_structure_of_inputs_and_outputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    block = ChoiceBlock([layers.Add(), layers.Multiply()], "ab")
    sums = block([a, b])
    net = Supernet({"a": a, "b": b}, {"sum": sums, "rest": [a[:, 1:], sums * 2.0]})
    subnet = net.extract((1,))
    x = {"a": np.full((2, 3), 3.0, "float32"), "b": np.full((2, 3), 5.0, "float32")}
    outputs = subnet(x)
    assert np.all(values_of(outputs["sum"]) == 15)
    assert np.all(values_of(outputs["rest"][1]) == 30)
    assert outputs["rest"][0].shape == (2, 2)


def values_of(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_regularizers_and_constraints_come_along():
    net = small_net(l2=0.01)
    subnet = net.extract(PATH)
    subnet.compile("sgd", cross_entropy())
    assert len(subnet.losses) == 4
    frozen = dense_net()
    frozen.get_layer("block_0").options[1].trainable = False
    assert len(frozen.extract((1, 0)).trainable_variables) == 4


def test_shapes_and_names_of_inputs_are_kept(net):
    subnet = net.extract(PATH)
    assert subnet.input_shape == (None, *SHAPE)
    assert (subnet.name, subnet.inputs[0].name) == ("small_subnet", "image")
    inputs = keras.Input((3,), batch_size=2)
    net = Supernet(inputs, ChoiceBlock([layers.ReLU(), layers.Identity()])(inputs))
    assert net.extract().input_shape == (2, 3)


def adapted(make=layers.Normalization, scale=3.0):
    layer = make()
    layer.adapt(scale * data(20, (4,))[0] + 1)
    return layer


@keras.saving.register_keras_serializable("tests")
class Wrapper(layers.Layer):
    """A layer inside a layer."""

    def __init__(self, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner or layers.Normalization()

    def build(self, input_shape):
        if not self.inner.built:
            self.inner.build(input_shape)

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("where", ["stem", "option", "wrapper", "discretization"])
def test_what_adapted_layers_have_learned_comes_along(fresh, where):
    x = inputs = keras.Input((4,))
    options = [layers.Identity(), layers.ReLU()]
    if where == "stem":
        x = adapted()(x)
    elif where == "discretization":
        pytest.importorskip("tensorflow")
        x = adapted(lambda: layers.Discretization(num_bins=3))(x)
        x = layers.Rescaling(0.1)(x)
    else:
        norm = adapted()
        options[0] = norm if where == "option" else Wrapper(norm)
    net = Supernet(inputs, ChoiceBlock(options)(x))
    x = data(5, (4,))[0]
    outputs = [m.predict(x, verbose=0) for m in (net, net.extract((0,), fresh=fresh))]
    np.testing.assert_allclose(*outputs, 1e-5, 1e-6)
    assert np.abs(outputs[0] - x).max() > 0.1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's")
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("output_mode", ["int", "tf_idf"])
def test_vocabularies_come_along(fresh, output_mode):
    words = layers.TextVectorization(output_mode=output_mode)
    words.adapt(["green eggs and", "ham", "green ham and", "sam"])
    inputs = keras.Input((), dtype="string")
    x = words(inputs)
    if output_mode == "int":
        x = layers.Rescaling(1.0)(x)
    net = Supernet(inputs, ChoiceBlock([layers.Identity(), layers.ReLU()])(x))
    x = np.array(["ham and eggs", "and sam"], object)
    subnet = net.extract((0,), fresh=fresh)
    outputs = [values_of(y) for y in (net(x), net.predict(x, verbose=0), subnet(x))]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert len(np.unique(outputs[0])) > 2


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's")
def test_a_vocabulary_may_be_learned_later():
    inputs = keras.Input((), dtype="string")
    x = layers.Rescaling(1.0)(layers.TextVectorization(name="words")(inputs))
    net = Supernet(inputs, ChoiceBlock([layers.Identity(), layers.ReLU()])(x))
    words = net.extract((0,), fresh=True).get_layer("words")
    words.adapt(["ham"])
    assert words.get_vocabulary(include_special_tokens=False) == ["ham"]


def test_an_adapted_layer_inherits():
    inputs = keras.Input((4,))
    nets = [
        Supernet(inputs, ChoiceBlock([norm, layers.ReLU()], name="block")(inputs))
        for norm in (adapted(), adapted(scale=1.0))
    ]
    for net in nets:
        net.get_layer("block").options[0].name = "norm"
    nets[0].inherit(nets[1].extract((0,)), (0,))
    x = data(5, (4,))[0]
    outputs = [net.predict(x, verbose=0) for net in nets]
    np.testing.assert_allclose(*outputs, 1e-5)


def test_layers_that_hold_several_weights_of_one_name_inherit_all():
    inputs = keras.Input((4, 3))
    x = layers.MultiHeadAttention(2, 2, name="attention")(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(2, name="lstm"), name="both")(x)
    x = ChoiceBlock([layers.Dense(3), layers.Dense(3)], name="block")(x)
    net = Supernet(inputs, x)
    donor = randomize(net.extract((0,)))
    assert net.inherit(donor, (0,)) == []
    for a, b in zip(
        values(net.extract((0,)).weights), values(donor.weights), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def times(factor):
    def act(x):
        return factor * x

    return act


class Halved(keras.regularizers.Regularizer):
    """A class that is registered nowhere."""

    def __call__(self, x):
        return keras.ops.sum(x) / 2

    def get_config(self):
        return {}


class Sevens(keras.initializers.Initializer):
    """A class that is registered nowhere."""

    def __call__(self, shape, dtype=None):
        return 7 * keras.ops.ones(shape, dtype)


def fives(shape, dtype=None):
    return 5 * keras.ops.ones(shape, dtype)


def test_initializers_of_the_users_are_found():
    inputs = keras.Input((4,))
    dense = layers.Dense(2, kernel_initializer=Sevens(), bias_initializer=fives)
    net = Supernet(inputs, ChoiceBlock([dense, layers.Dense(2)])(inputs))
    for variable in dense.weights:
        variable.assign(keras.ops.zeros(variable.shape))
    assert not any(x.any() for x in values(net.extract((0,)).weights))
    kernel, bias = values(net.extract((0,), fresh=True).weights)
    assert np.all(kernel == 7) and np.all(bias == 5)


def test_functions_and_classes_of_the_users_are_found():
    inputs = keras.Input((4,))
    options = [
        layers.Lambda(times(2.0)),
        [layers.Lambda(times(3.0)), layers.Lambda(times(5.0))],
        layers.Dense(4, activation=times(7.0), kernel_regularizer=Halved()),
    ]
    net = Supernet(inputs, ChoiceBlock(options, "abc")(inputs))
    x = data(5, (4,))[0]
    for path in net.space.enumerate():
        net.set_path(path)
        outputs = [m.predict(x, verbose=0) for m in (net, net.extract(path))]
        np.testing.assert_allclose(*outputs, 1e-5, 1e-6)
    assert len(net.extract((2,)).losses) == 1


class NotDescribed(keras.regularizers.Regularizer):
    """A regularizer without `get_config`."""

    def __call__(self, x):
        return keras.ops.sum(x)


class Undescribed(layers.Layer):
    """Has no config that it could be made of again."""

    def __init__(self, function):
        super().__init__(name="undescribed")
        self.function = function

    def call(self, x):
        return self.function(x)


def test_what_cannot_be_extracted_is_told_at_once():
    inputs = keras.Input((4,))
    options = [
        layers.Lambda(lambda x: x, name="unnamed"),
        Undescribed(times(2.0)),
        layers.Lambda(times(2.0), name="named"),
        layers.Dense(4, kernel_regularizer=NotDescribed(), name="penalized"),
        layers.Dense(4, bias_initializer=lambda shape, dtype: 0.0, name="drawn"),
    ]
    block = ChoiceBlock(options, "abcde")(inputs)
    names = r"\['drawn', 'penalized', 'undescribed', 'unnamed'\]"
    with pytest.warns(UserWarning, match=f"Received: {names}"):
        net = Supernet(inputs, block)
    x = np.ones((2, 4))
    net.set_path((1,))
    np.testing.assert_array_equal(net.predict(x, verbose=0), 2 * x)
