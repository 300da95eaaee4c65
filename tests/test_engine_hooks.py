"""Stages (parts compiled one by one) and views (options that share weights)."""

import keras
import numpy as np
import pytest
from keras import layers
from laws import SearchableLayerLaws
from models import FromList, cross_entropy, data, randomize, values
from reference import assert_close, assert_trains_like_reference

from keras_spos import Decision, Supernet
from keras_spos.layers import SearchableLayer
from keras_spos.weight_slice import WeightSlice, placeholders


@keras.saving.register_keras_serializable("tests")
class Paths(SearchableLayer):
    """A convolution, any of three depthwise ones added, and a batch norm."""

    def __init__(self, name="paths", **kwargs):
        super().__init__(name=name, **kwargs)
        self.first = layers.Conv2D(4, 1, name="first")
        self.paths = [
            layers.DepthwiseConv2D(k, padding="same", name=f"dw{k}") for k in (1, 3, 5)
        ]
        self.norms = [layers.BatchNormalization(name=f"norm{i}") for i in range(2)]
        self.subsets = [(0,), (1,), (2,), (0, 1), (1, 2)]
        vars(self)["_models"] = {}

    @property
    def decisions(self):
        return (Decision(self.name, [str(s) for s in self.subsets]),)

    def build(self, shape):
        self.shape = shape
        self.first.build(shape)
        inner = (*shape[:-1], 4)
        for layer in (*self.paths, *self.norms):
            layer.build(inner)
        self.add_choice_weights()

    def stages(self, choices):
        subset = self.subsets[choices[0]]
        norm = self.norms[len(subset) - 1]
        return [[self.first], [self.paths[i] for i in subset], [norm]]

    def picked(self, choices):
        if choices not in self._models:
            first, paths, (norm,) = self.stages(choices)
            inputs = keras.Input(self.shape[1:])
            x = first[0](inputs)
            x = [path(x) for path in paths]
            x = layers.Add()(x) if len(x) > 1 else x[0]
            self._models[choices] = keras.Model(inputs, norm(x))
        return self._models[choices]

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((*inputs.shape[:-1], 4), inputs.dtype)


@keras.saving.register_keras_serializable("tests")
class Widths(SearchableLayer):
    """Two convolutions with a batch norm between, at one of three widths."""

    widths = (2, 4, 7)

    def __init__(self, name="widths", **kwargs):
        super().__init__(name=name, **kwargs)
        self.owned = self.layers_of(max(self.widths))
        vars(self)["_picked"] = {}

    def layers_of(self, width):
        return [
            layers.Conv2D(width, 3, padding="same", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(4, 1),
        ]

    @property
    def decisions(self):
        return (Decision(self.name, [str(w) for w in self.widths]),)

    def build(self, shape):
        self.shape = shape
        for layer in self.owned:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.add_choice_weights()

    def _option(self, choices):
        if choices not in self._picked:
            with placeholders():
                model = keras.Sequential(self.layers_of(self.widths[choices[0]]))
                model.build(self.shape)
            owned = [v for layer in self.owned for v in layer.weights]
            plain = [v for layer in model.layers for v in layer.weights]
            views = {
                id(p): WeightSlice(v, p.shape)
                for p, v in zip(plain, owned, strict=True)
            }
            self._picked[choices] = model, views
        return self._picked[choices]

    def picked(self, choices):
        return self._option(choices)[0]

    def views(self, choices):
        return self._option(choices)[1]

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((*inputs.shape[:-1], 4), inputs.dtype)


class TestStages(SearchableLayerLaws):
    def make(self):
        return Paths()


class TestViews(SearchableLayerLaws):
    def make(self):
        return Widths()


def net_of(layer, seed=3):
    inputs = keras.Input((5, 5, 3), name="image")
    x = layers.Conv2D(4, 1, name="stem")(inputs)
    x = layers.Add(name="add")([x, layer(x)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(4, name="classifier")(x)
    return randomize(Supernet(inputs, outputs, seed=seed))


def images(count):
    return [data(6, seed=i, shape=(5, 5, 3)) for i in range(count)]


def test_stages_train_like_reference():
    assert_trains_like_reference(
        lambda: net_of(Paths()), keras.optimizers.SGD(0.05, momentum=0.9), images(6)
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.5),
        lambda: keras.optimizers.SGD(0.05, gradient_accumulation_steps=2),
    ],
    ids=["separable", "clipped", "accumulated"],
)
def test_a_slice_trains_like_a_layer_of_its_size(make):
    net = net_of(Widths())
    net.sampler = FromList([(1,)])
    subnet = net.extract((1,))
    net.compile(make(), cross_entropy())
    subnet.compile(make(), cross_entropy(), run_eagerly=True, jit_compile=False)
    (layer,) = net.searchable_layers
    before = values(layer.weights)
    for batch in images(4):
        expected = subnet.train_on_batch(*batch)
        np.testing.assert_allclose(net.train_on_batch(*batch), expected, 1e-4)
    assert_close(net.extract((1,)).weights, subnet.weights, 2e-4)
    outside = 0
    for variable, old in zip(layer.weights, before, strict=True):
        mask = np.ones(old.shape, bool)
        for source in layer.sources((1,)):
            if source.variable is variable:
                mask[source.index] = False
        new = values([variable])[0]
        np.testing.assert_array_equal(new[mask], old[mask], variable.path)
        outside += mask.sum()
    assert outside > 50


def test_a_slice_lies_within_its_variable():
    variable = keras.Variable(np.zeros((3, 4)))
    for shape in ((3,), (3, 5), (0, 2)):
        with pytest.raises(ValueError, match="within"):
            WeightSlice(variable, shape)
