"""ElasticBlock obeys the laws, and says what is wrong with its arguments."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from laws import SearchableLayerLaws
from models import SHAPE, data, randomize, values

from keras_spos import ElasticBlock, Supernet, count_flops, flops_table
from keras_spos.layers import (
    PACT,
    ElasticQuantizedConv2D,
    QuantizedConv2D,
    SliceableConv2D,
    SliceableDense,
)


def inverted(name, kernel_size, channels=4, widths=(2, 6), **arguments):
    """Half the channels pass; the others go through an elastic bottleneck."""
    inputs = keras.Input((*SHAPE[:2], channels), name=f"{name}_in")
    x = inputs[..., 1::2]
    x = SliceableConv2D(widths, 1, use_bias=False, name=f"{name}_expand")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.DepthwiseConv2D(kernel_size, padding="same", name=f"{name}_dw")(x)
    outputs = [channels // 2] * len(widths)
    x = SliceableConv2D(outputs, 1, name=f"{name}_project", **arguments)(x)
    x = layers.BatchNormalization(name=f"{name}_out", center=False)(x)
    x = layers.Concatenate(name=f"{name}_join")([inputs[..., 0::2], x])
    return keras.Model(inputs, x, name=name)


def quantized(name, channels=4, bits=((1, 2), (4, 4)), **arguments):
    """A residual block of two quantized convolutions."""
    inputs = keras.Input((*SHAPE[:2], channels), name=f"{name}_in")
    options = {"bits": bits, "padding": "same", "alpha": 1.0, **arguments}
    x = ElasticQuantizedConv2D((3, 5), 3, name=f"{name}_conv1", **options)(inputs)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm1")(x)
    x = ElasticQuantizedConv2D((4, 4), 3, name=f"{name}_conv2", **options)(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm2")(x)
    return keras.Model(inputs, layers.Add(name=f"{name}_add")([inputs, x]), name=name)


class TestOptionsAndWidths(SearchableLayerLaws):
    def make(self):
        decay = keras.regularizers.L2(0.01)
        models = [inverted("k3", 3, kernel_regularizer=decay), inverted("k5", 5)]
        return ElasticBlock(models, widths=("s", "l"), name="block")


class TestBitsAndWidths(SearchableLayerLaws):
    stock = False

    def make(self):
        decay = keras.regularizers.L2(0.01)
        model = quantized("basic", alpha_regularizer=decay)
        bits = ("1W2A", "4W4A")
        return ElasticBlock([model], widths=("s", "l"), bits=bits, name="block")


def test_decisions_are_what_there_is_a_choice_of():
    models = [inverted("a", 3), inverted("b", 5)]
    block = ElasticBlock(models, widths=("s", "l"), name="x")
    assert [d.name for d in block.decisions] == ["x", "x_width"]
    assert [d.options for d in block.decisions] == [("a", "b"), ("s", "l")]
    unnamed = [keras.Model(m.inputs, m.outputs) for m in models]
    assert ElasticBlock(unnamed).labels == ("Functional_0", "Functional_1")
    block = ElasticBlock([quantized("q")], bits="ab", name="x")
    assert [d.name for d in block.decisions] == ["x_bits"]


def test_blocks_that_share_their_decisions(tmp_path):
    x = inputs = keras.Input((*SHAPE[:2], 4))
    for name in "abc":
        models = [inverted(f"{name}_{k}", k) for k in (3, 5)]
        tied = {"decision": "stage"} if name < "c" else {}
        x = ElasticBlock(models, "35", widths=("s", "l"), name=name, **tied)(x)
    net = randomize(Supernet(inputs, x))
    names = ["stage", "stage_width", "c", "c_width"]
    assert [d.name for d in net.space.decisions] == names
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.space == net.space
    x = data(3, (*SHAPE[:2], 4))[0]
    for path in [(0, 1, 1, 0), (1, 0, 0, 1)]:
        subnet = net.extract(path)
        assert flops_table(net)(path) == count_flops(subnet)
        loaded.set_path(path)
        outputs = [m.predict(x, verbose=0) for m in (subnet, loaded)]
        np.testing.assert_allclose(*outputs, 1e-5, 1e-5)


def test_weights_are_kept_once():
    model = inverted("a", 3, widths=(2, 3, 6))
    block = ElasticBlock([model], widths=("s", "m", "l"), name="x")
    owned = [id(v) for v in block.weights]
    for width in range(3):
        views = block.views((width,))
        assert set(views) == {id(v) for v in block.picked((width,)).variables}
        assert views is block.views((width,))
        assert {id(s.variable) for s in views.values()} <= set(owned)
        # Placeholders hold nothing.
        assert all(v._value is None for v in block.picked((width,)).variables)
    assert [id(v) for v in block.weights] == owned
    kernel = next(s for s in block.views((1,)).values() if "expand" in s.path)
    assert kernel.shape == (1, 1, 2, 3)


def test_a_bit_width_has_an_alpha_of_its_own():
    layer = ElasticQuantizedConv2D((4,), 3, bits=[(1, 2), (4, 4), (32, 32), (2, 2)])
    layer.build((None, 6, 6, 3))
    assert sorted(layer.alphas) == ["2", "4"]
    names = [[v.name for v in layer.weights_at(i)] for i in (0, 1, 2, 3, None)]
    assert names[0] == names[3] == ["kernel", "bias", "alpha_2"]
    assert names[1] == ["kernel", "bias", "alpha_4"]
    # Float is the default.
    assert names[2] == names[4] == ["kernel", "bias"]
    relu = PACT(32)
    np.testing.assert_array_equal(relu(np.array([-1.0, 9.0])), [0, 9])
    assert not relu.weights
    # Levels 0, 1, 2 and 3.
    levels = PACT(2, alpha=3.0)(np.array([-1.0, 0.4, 1.6, 9.0], "float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(levels), [0, 0, 2, 3], 1e-6)


def test_an_extracted_quantized_net_is_saved_with_its_alphas(tmp_path):
    inputs = keras.Input(SHAPE)
    x = QuantizedConv2D(4, 3, weight_bits=2, activation_bits=3)(inputs)
    model = randomize(keras.Model(inputs, PACT(2)(x)))
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert [v.name for v in loaded.weights] == ["kernel", "bias", "alpha", "alpha"]
    for a, b in zip(values(model.weights), values(loaded.weights), strict=True):
        np.testing.assert_array_equal(a, b)


def test_elastic_convolution_equals_its_plain_layer():
    bits = [(1, 2), (4, 8), (32, 32)]
    given = {"alpha": 1, "alpha_regularizer": "l2", "activation": "tanh"}
    layer = ElasticQuantizedConv2D((2, 5), 3, bits, **given)
    x = data(2)[0]
    layer.build(x.shape)
    for width, bits in np.ndindex(2, 3):
        plain = layer.at(width=width, bits=bits)
        plain.build(x.shape)
        # Trained anew, alpha begins and decays as it does here.
        assert values(plain.weights[2:]) == [1.0] * (bits < 2)
        assert len(plain.losses) == (bits < 2)
        for own, whole in zip(plain.weights, layer.weights_at(bits=bits), strict=True):
            own.assign(values([whole])[0][tuple(slice(n) for n in own.shape)])
        np.testing.assert_allclose(
            ops.convert_to_numpy(layer(x, width=width, bits=bits)),
            ops.convert_to_numpy(plain(x)),
            atol=1e-5,
        )
    assert layer(keras.Input(SHAPE), width=0).shape == (None, 4, 4, 2)


def test_a_quantized_convolution_with_channels_first():
    x = data(2, (6, 5, 3))[0]
    settings = {"weight_bits": 2, "activation_bits": 3}
    last, first = (
        QuantizedConv2D(5, 1, data_format=f"channels_{end}", **settings)
        for end in ("last", "first")
    )
    last.build(x.shape)
    first.build((2, 3, 6, 5))
    first.set_weights(values(randomize(last).weights))
    np.testing.assert_allclose(
        np.moveaxis(ops.convert_to_numpy(first(np.moveaxis(x, -1, 1))), 1, -1),
        ops.convert_to_numpy(last(x)),
        atol=1e-5,
    )


class Doubling(keras.Model):
    def call(self, inputs):
        return 2 * super().call(inputs)


def doubling():
    inputs = keras.Input((*SHAPE[:2], 4))
    return Doubling(inputs, layers.ReLU()(inputs))


def skipping():
    inputs = keras.Input((*SHAPE[:2], 4))
    return keras.Model(inputs, layers.ReLU()(inputs))


def normalizing():
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Normalization(name="n")(inputs))


def nested():
    inputs = keras.Input((*SHAPE[:2], 4))
    return keras.Model(inputs, inverted("a", 3)(inputs))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ElasticBlock([layers.ReLU()], widths="ab"), "is a Functional model"),
        (lambda: ElasticBlock([], widths="ab"), "at least one option.*0 options"),
        (lambda: ElasticBlock([inverted("a", 3)]), "needs widths or bits"),
        (lambda: ElasticBlock([normalizing()], widths="ab"), "Received: 'n' in an"),
        (lambda: ElasticBlock([doubling()], widths="ab"), "a `call` of their own"),
        (
            lambda: ElasticBlock([inverted("a", 3)], widths="abc"),
            "3 widths in each.*'a_expand', with 2",
        ),
        (lambda: ElasticBlock([quantized("a")], bits="a"), "1 bits.*'a_conv1', with 2"),
        (lambda: ElasticBlock([inverted("a", 3)], bits="ab"), "2 bits in the options"),
        (lambda: ElasticBlock([skipping()], widths="ab"), "2 widths in the options"),
        (lambda: ElasticBlock([nested()], widths="ab"), "'a_project', inside another"),
        (
            lambda: ElasticQuantizedConv2D((4,), 3, bits=[(0, 2)]),
            "1 to 8, or 32 for float. Received: 0",
        ),
        (
            lambda: ElasticQuantizedConv2D((4,), 3, bits=[]),
            "at least one. Received: ",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_output_keeps_its_shape():
    inputs = keras.Input((*SHAPE[:2], 4))
    model = keras.Model(inputs, SliceableConv2D((2, 4), 1)(inputs))
    block = ElasticBlock([model], widths="ab", name="x")
    with pytest.raises(ValueError, match="same shape at every setting.*4.*2"):
        block.picked((0,))


def test_random_layers_in_an_option():
    inputs = keras.Input((3,))
    x = SliceableDense((2, 4), name="first")(inputs)
    x = SliceableDense((3, 3), name="last")(layers.Dropout(0.5, name="drop")(x))
    block = ElasticBlock([keras.Model(inputs, x)], widths="ab", name="block")
    inputs = keras.Input((3,))
    net = Supernet(inputs, block(inputs))
    x = np.ones((8, 3), "float32")
    net.compile("sgd", "mse")
    net.fit(x, x, epochs=4, batch_size=4, verbose=0)
    for path in ((0,), (1,)):
        net.set_path(path)
        calls = [ops.convert_to_numpy(net(x, training=True)) for _ in range(2)]
        # Each image and each call loses other features.
        assert len(np.unique(calls[0], axis=0)) > 1
        assert np.any(calls[0] != calls[1])
        assert len(np.unique(net.predict(x, verbose=0), axis=0)) == 1


@keras.saving.register_keras_serializable("tests")
class Inside(layers.Layer):
    """Holds a layer, of which its config does not tell whether it is frozen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="dense")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("frozen", ["elastic", "inside", "option", "block"])
def test_layers_that_are_frozen_before_and_after_a_fit(frozen):
    inputs = keras.Input((3,))
    inside, elastic = Inside(name="inside"), SliceableDense((2, 4), name="elastic")
    x = SliceableDense((3, 3), name="last")(elastic(inside(inputs)))
    option = keras.Model(inputs, x, name="option")
    block = ElasticBlock([option], widths="ab", name="block")
    inputs = keras.Input((3,))
    net = Supernet(inputs, layers.Dense(3)(block(inputs)))
    layer = {"elastic": elastic, "inside": inside, "option": option, "block": block}
    x = np.ones((8, 3), "float32")
    for trainable in (False, True, False):
        layer[frozen].trainable = trainable
        net.compile("sgd", "mse")
        before = values(layer[frozen].weights)
        net.fit(x, x, epochs=4, batch_size=4, verbose=0)
        pairs = zip(before, values(layer[frozen].weights), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs) != trainable
