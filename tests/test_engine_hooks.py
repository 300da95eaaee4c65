"""Stages (parts compiled one by one) and views (options that share weights)."""

import keras
import numpy as np
import pytest
from keras import layers
from models import SHAPE, FromList, cross_entropy, data, randomize, values
from reference import assert_close, assert_trains_like_reference, slots_of

from keras_spos import ElasticBlock, MultiPathBlock, Supernet
from keras_spos.layers import SliceableConv2D, SliceableDense
from keras_spos.weight_slice import WeightSlice


def multi_path_block():
    """Up to two of three depthwise convolutions, which pass a shadow batch norm."""
    paths = [
        layers.DepthwiseConv2D(k, padding="same", name=f"dw{k}") for k in (1, 3, 5)
    ]
    return MultiPathBlock(paths, max_paths=2, name="block")


def elastic_block():
    """Two convolutions with a batch norm between, at one of three widths."""
    inputs = keras.Input((*SHAPE[:2], 4), name="input")
    x = SliceableConv2D(
        (2, 4, 7), 3, padding="same", kernel_regularizer="l2", name="expand"
    )(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = SliceableConv2D((4, 4, 4), 1, name="project")(x)
    model = keras.Model(inputs, x, name="option")
    return ElasticBlock([model], widths=("2", "4", "7"), name="block")


def net_of(block):
    inputs = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(4, 1, name="stem")(inputs)
    x = layers.Add(name="add")([x, block(x)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(4, name="classifier")(x)
    return randomize(Supernet(inputs, outputs, seed=3))


def images(count):
    return [data(6, seed=i) for i in range(count)]


def net_of_stages(recompute):
    net = net_of(multi_path_block())
    net.recompute = recompute
    return net


@pytest.mark.parametrize("recompute", [False, True])
def test_stages_train_like_reference(recompute):
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    assert_trains_like_reference(lambda: net_of_stages(recompute), optimizer, images(6))


def scaled_and_accumulated():
    inner = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)


# Adam's first steps divide small gradients by their own size.
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (lambda: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01), 1e-5),
        (lambda: keras.optimizers.AdamW(0.01, 0.1, global_clipnorm=0.5), 2e-4),
        (scaled_and_accumulated, 1e-5),
    ],
    ids=["separable", "clipped", "scaled_and_accumulated"],
)
def test_a_slice_trains_like_a_layer_of_its_size(make, tolerance, recompute):
    net = net_of(elastic_block())
    net.recompute = recompute
    net.sampler = FromList([(1,)])
    subnet = net.extract((1,))
    net.compile(make(), cross_entropy())
    subnet.compile(make(), cross_entropy(), run_eagerly=True, jit_compile=False)
    for model in (net, subnet):
        model.optimizer.build(model.trainable_variables)
        # Slots start at zero, which none may move: start them elsewhere.
        for slot in model.optimizer.variables:
            if len(slot.shape) > 0:
                slot.assign(keras.ops.full(slot.shape, 0.1))
    (block,) = net.searchable_layers
    kept = [(v, [v, *slots_of(net.optimizer, [v])]) for v in block.weights]
    before = [values(own) for _, own in kept]
    for batch in images(4):
        expected = subnet.train_on_batch(*batch)
        np.testing.assert_allclose(net.train_on_batch(*batch), expected, 1e-4)
    assert_close(net.extract((1,)).weights, subnet.weights, tolerance)
    outside = 0
    for (variable, own), old in zip(kept, before, strict=True):
        mask = np.ones(variable.shape, bool)
        for source in block.sources((1,)):
            if source.variable is variable:
                mask[source.index] = False
        for a, b in zip(values(own), old, strict=True):
            np.testing.assert_array_equal(a[mask], b[mask], variable.path)
        outside += mask.sum()
    assert outside > 50


class Interrupted(keras.optimizers.SGD):
    """Is stopped at the second weight that it updates."""

    updates = 0

    def update_step(self, *args):
        self.updates += 1
        if self.updates == 2:
            raise KeyboardInterrupt
        super().update_step(*args)


def test_what_lies_outside_of_slices_outlives_an_interruption():
    net = net_of(elastic_block())
    net.sampler = FromList([(0,)])
    net.compile(Interrupted(0.1, momentum=0.9, global_clipnorm=1.0), cross_entropy())
    net.optimizer.build(net.trainable_variables)
    (block,) = net.searchable_layers
    variables = [*block.weights, *slots_of(net.optimizer, block.trainable_weights)]
    before = values(variables)
    with pytest.raises(KeyboardInterrupt):
        net.train_on_batch(*data(6))
    for variable, old, new in zip(variables, before, values(variables), strict=True):
        np.testing.assert_array_equal(new, old, variable.path)


def test_a_slice_lies_within_its_variable():
    variable = keras.Variable(np.zeros((3, 4)))
    for shape in ((3,), (3, 5), (0, 2)):
        with pytest.raises(ValueError, match="within"):
            WeightSlice(variable, shape)
    WeightSlice(variable, (1, 2)).assign(np.array([[5.0, 7.0]], "float64"))
    assert values([variable])[0].tolist() == [[5, 7, 0, 0], [0] * 4, [0] * 4]


@pytest.mark.parametrize("optimizer", ["constraint", "lamb", "clipped_lamb"])
def test_norms_of_weights_are_those_of_slices(optimizer):
    """What is outside of a slice is no part of what is measured of a weight."""
    limit = keras.constraints.MaxNorm(0.2) if optimizer == "constraint" else None
    inputs = keras.Input((3,), name="input")
    x = SliceableDense((2, 5), kernel_constraint=limit, name="first")(inputs)
    x = SliceableDense((4, 4), kernel_constraint=limit, name="last")(x)
    block = ElasticBlock([keras.Model(inputs, x)], widths="ab", name="block")
    inputs = keras.Input((3,), name="features")
    net = Supernet(inputs, block(inputs), sampler=FromList([(0,)]))
    stock = randomize(net).extract((0,))
    x, y = data(6, (3,))
    for model in (net, stock):
        made = {
            "constraint": keras.optimizers.SGD(0.1, momentum=0.9),
            "lamb": keras.optimizers.Lamb(0.1),
            "clipped_lamb": keras.optimizers.Lamb(0.1, global_clipnorm=0.1),
        }[optimizer]
        model.compile(made, cross_entropy())
        for _ in range(3):
            model.train_on_batch(x, y)
    assert_close(net.extract((0,)).weights, stock.weights, 1e-5)


@pytest.mark.parametrize("widths", [(0, 1), (0, 2)], ids=["parts", "whole"])
def test_several_widths_at_once_train_their_mean(widths):
    """Path dropout may keep two widths: two slices of one weight in one step."""
    inputs = keras.Input((3,), name="input")
    x = SliceableDense((2, 3, 5), name="first")(inputs)
    x = SliceableDense((4, 4, 4), name="last")(x)
    block = ElasticBlock([keras.Model(inputs, x)], widths="abc", name="block")
    inputs = keras.Input((3,), name="features")
    net = Supernet(inputs, block(inputs), sampler=FromList([(widths,)]))
    # Of the five features between the layers, a width has the first few.
    has = [np.arange(5) < (2, 3, 5)[width] for width in widths]
    features = layers.Dense(5)(inputs) * np.mean(has, axis=0, dtype="float32")
    stock = keras.Model(inputs, layers.Dense(4)(features))
    stock.set_weights(values(randomize(net).trainable_variables))
    for model in (net, stock):
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), cross_entropy())
    for batch in [data(6, (3,), seed=i) for i in range(3)]:
        losses = [model.train_on_batch(*batch) for model in (net, stock)]
        np.testing.assert_allclose(*losses, 1e-5)
    assert_close(net.trainable_variables, stock.trainable_variables, 1e-5)


def test_equal_weights_of_which_one_is_used_whole():
    inputs = x = keras.Input((3,), name="features")
    for name in "ab":
        option = keras.Input(x.shape[1:], name=f"{name}_input")
        y = SliceableDense((2, 5), name=f"{name}_first")(option)
        y = SliceableDense((3, 3), name=f"{name}_last")(y)
        model = keras.Model(option, y)
        x = ElasticBlock([model], widths="nw", name=name)(x)
    net = randomize(Supernet(inputs, x, sampler=FromList([(0, 1)])))
    stock = net.extract((0, 1))
    for model in (net, stock):
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x, _ = data(6, (3,))
    for _ in range(3):
        losses = [model.train_on_batch(x, x) for model in (net, stock)]
        np.testing.assert_allclose(*losses, 1e-5)
    assert_close(net.extract((0, 1)).weights, stock.weights, 1e-5)
