"""Layers with losses, layers inside, or nothing to train, in a supernet's `fit`.

What Keras makes of the path's stock model is the reference, or a computation by hand.
"""

import keras
import numpy as np
import pytest
from models import FromList, cross_entropy, data, randomize

import keras_spos as ks

SGD = keras.optimizers.SGD
X, Y = data(11, (3,))


def fit(model):
    """Two epochs of four batches, the last of two images."""
    options = {"epochs": 2, "verbose": 0, "shuffle": False, "validation_data": (X, Y)}
    return model.fit(X, Y, batch_size=3, **options).history


def compile_model(model):
    model.compile(SGD(0.1, momentum=0.9), cross_entropy(), metrics=["accuracy"])
    return model


@keras.saving.register_keras_serializable("tests")
class Penalized(keras.layers.Layer):
    """Adds a loss of its own, in training and in evaluation."""

    def call(self, x):
        self.add_loss(0.3 * keras.ops.mean(keras.ops.square(x)))
        return x

    def get_config(self):
        return super().get_config()


def penalized_net(where):
    """Losses of layers' own in a fixed layer, or in the option that is taken."""
    fixed, option = (
        [keras.layers.ActivityRegularization(0.2, name=f"{n}_l1"), Penalized(name=n)]
        if n == where
        else [keras.layers.Identity(name=n)]
        for n in ("fixed", "option")
    )
    x = inputs = keras.Input((3,), name="features")
    dense = keras.layers.Dense(5, kernel_regularizer="l2", name="dense")
    other = keras.layers.Dense(5, name="other")
    x = ks.ChoiceBlock([other, [dense, *option]], "ab", name="block")(x)
    for layer in [keras.layers.Dense(4, name="classifier"), *fixed]:
        x = layer(x)
    return randomize(ks.Supernet(inputs, x, sampler=FromList([(1,)])))


@pytest.mark.parametrize("where", ["fixed", "option"])
def test_losses_of_layers_are_part_of_training_and_evaluation(where):
    net = penalized_net(where)
    net.set_path((1,))
    stock = net.extract()
    assert len(stock.losses) == 1
    results = []
    for model in (compile_model(net), compile_model(stock)):
        # Before anything is evaluated, which compiles what gives the losses too.
        first = model.predict(X, verbose=0)
        history = fit(model)
        assert min(history["val_loss"]) > 0
        scores = model.evaluate(X, Y, verbose=0)
        outputs = first, model.predict(X, verbose=0)
        results.append((history["loss"], history["val_loss"], scores, *outputs))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def twice(self, x=None, y=None, y_pred=None, sample_weight=None):
    """A user's `compute_loss`, of before Keras had its argument `training`."""
    return 2 * keras.Model.compute_loss(self, x, y, y_pred, sample_weight)


class Twice(ks.Supernet):
    compute_loss = twice


class TwiceStock(keras.Model):
    compute_loss = twice


@pytest.mark.parametrize("where", ["fixed", "option"])
def test_losses_of_layers_are_part_of_what_compute_loss_computes(where):
    given = penalized_net(where)
    stock = given.extract((1,))
    net = Twice(given.inputs, given.outputs, sampler=given.sampler)
    net.set_path((1,))
    scores = []
    for model in (net, TwiceStock(stock.inputs, stock.outputs)):
        compile_model(model)
        trained = [model.train_on_batch(X, Y)[0] for _ in range(3)]
        scores.append([*trained, model.test_on_batch(X, Y)[0]])
    np.testing.assert_allclose(*scores, 1e-5)


def of_outputs(self, x=None, y=None, y_pred=None, sample_weight=None):
    """A user's `compute_loss` that leaves the losses of layers out."""
    return keras.ops.mean(keras.ops.square(y_pred))


class OfOutputs(ks.Supernet):
    compute_loss = of_outputs


class OfOutputsStock(keras.Model):
    compute_loss = of_outputs


def test_compute_loss_may_leave_out_the_losses_of_layers():
    given = penalized_net("fixed")
    stock = given.extract((1,))
    net = OfOutputs(given.inputs, given.outputs, sampler=given.sampler)
    scores = []
    for model in (net, OfOutputsStock(stock.inputs, stock.outputs)):
        model.compile(SGD(0.1))
        scores.append([model.train_on_batch(X) for _ in range(3)])
    np.testing.assert_allclose(*scores, 1e-5)


def test_losses_of_layers_may_be_all_the_loss():
    net = penalized_net("fixed")
    stock = net.extract((1,))
    net.set_path((1,))
    scores = []
    for model in (net, stock):
        scores.append([])
        # Nothing but the optimizer tells that it is compiled again.
        for optimizer in (keras.optimizers.Adam(0.01), SGD(0.1, momentum=0.9)):
            model.compile(optimizer)
            scores[-1] += [model.train_on_batch(X) for _ in range(3)]
        scores[-1].append(model.test_on_batch(X))
    np.testing.assert_allclose(*scores, 1e-5)
    assert scores[0][-1] < scores[0][0]
    # Outside of a step, losses are those of the weights.
    kernel = np.array(net.get_layer("block").options[1].layers[0].kernel)
    np.testing.assert_allclose(net.losses, [0.01 * np.sum(kernel**2)], 1e-5)


def test_mixed_precision_of_losses_of_layers(mixed_precision):
    # Keras itself adds up losses of one precision only, on TensorFlow.
    scores = []
    jax = keras.backend.backend() == "jax"  # Which has no double precision.
    for policy in ("float32", "mixed_bfloat16", *(() if jax else ("float64",))):
        mixed_precision(policy)
        net = compile_model(penalized_net("option"))
        net.set_path((1,))
        scores.append([net.train_on_batch(X, Y)[0], net.test_on_batch(X, Y)[0]])
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], 0.02)


@keras.saving.register_keras_serializable("tests")
class Normalizing(keras.layers.Layer):
    """Holds a batch norm, and leaves it to Keras when that trains."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.BatchNormalization()

    def build(self, input_shape):
        self.norm.build(input_shape)

    def call(self, x):
        return self.norm(x)


@pytest.mark.parametrize("where", ["fixed", "option"])
def test_layers_inside_those_that_take_no_argument_training(where):
    x = inputs = keras.Input((3,), name="features")
    dense = keras.layers.Dense(5, name="dense")
    if where == "option":
        options = [keras.layers.Identity(name="nothing"), Normalizing(name="option")]
        x = ks.ChoiceBlock(options, "ab", name="block")(dense(x))
    else:
        options = [keras.layers.Dense(5, name="other"), dense]
        x = ks.ChoiceBlock(options, "ab", name="block")(Normalizing(name="fixed")(x))
    net = ks.Supernet(inputs, keras.layers.Dense(4, name="classifier")(x))
    net.sampler = FromList([(1,)])
    net = randomize(net)
    stock = net.extract((1,))
    net.set_path((1,))
    histories = [fit(compile_model(model)) for model in (net, stock)]
    for key, values in histories[1].items():
        np.testing.assert_allclose(histories[0][key], values, 1e-5)
    for a, b in zip(net.extract((1,)).weights, stock.weights, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize("where", ["fixed", "option"])
def test_layers_inside_those_that_are_frozen_are_extracted_frozen(where):
    normalizing = Normalizing(name=where)
    normalizing.trainable = False
    x = inputs = keras.Input((3,), name="features")
    for layer in [normalizing, keras.layers.Dense(4)] if where == "fixed" else []:
        x = layer(x)
    options = [[], keras.layers.Dense(4)] if where == "fixed" else [normalizing, []]
    net = ks.Supernet(inputs, ks.ChoiceBlock(options, "ab", name="block")(x))
    for fresh in (False, True):
        subnet = net.extract((0,), fresh=fresh)
        expected = 2 if where == "fixed" else 0
        assert len(subnet.trainable_variables) == expected
        assert len(subnet.non_trainable_variables) == 4


@keras.saving.register_keras_serializable("tests")
class Centred(keras.layers.Layer):
    """Takes off a moving mean, after the batch has moved it."""

    def build(self, input_shape):
        shape = input_shape[-1:]
        self.mean = self.add_weight(shape, "zeros", trainable=False, name="mean")

    def call(self, x, training=False):
        if training:
            self.mean.assign(0.5 * self.mean + 0.5 * keras.ops.mean(x, 0))
        return x - self.mean

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("where", ["fixed", "option"])
def test_layers_that_read_what_they_have_assigned(where):
    fixed, option = (
        [Centred(name=n)] if n == where else [] for n in ("fixed", "option")
    )
    x = inputs = keras.Input((3,), name="features")
    for layer in [keras.layers.Dense(5, name="dense"), *fixed]:
        x = layer(x)
    x = ks.ChoiceBlock([keras.layers.Dense(5), option], "ab", name="block")(x)
    net = ks.Supernet(inputs, keras.layers.Dense(4, name="classifier")(x))
    net.sampler = FromList([(1,)])
    net = randomize(net)
    stock = net.extract((1,))
    histories = [fit(compile_model(model))["loss"] for model in (net, stock)]
    np.testing.assert_allclose(*histories, 1e-5)
    for a, b in zip(net.extract((1,)).weights, stock.weights, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize("where", ["fixed", "option"])
def test_losses_of_every_call_of_a_layer_count(where):
    scale = keras.layers.Dense(3, "linear", False, "identity", name="scale")
    scale.activity_regularizer = keras.regularizers.L2(0.5)
    twice = [scale, scale]
    x = inputs = keras.Input((3,))
    before, option = (twice, []) if where == "fixed" else ([], twice)
    for layer in before:
        x = layer(x)
    x = ks.ChoiceBlock([option, keras.layers.Dense(3)], "ab")(x)
    net = ks.Supernet(inputs, x, sampler=FromList([(0,)]))
    net.compile(SGD(0.0), "mse")
    # The penalty of each call is the mean, over images, of half the sum of squares.
    expected = 2 * np.mean(0.5 * np.sum(X**2, axis=-1))
    np.testing.assert_allclose(net.train_on_batch(X, X), expected, 1e-5)
    np.testing.assert_allclose(net.test_on_batch(X, X), expected, 1e-5)


def test_weights_of_a_layer_in_two_places_are_penalized_once():
    penalty = keras.regularizers.L2(0.5)
    shared = keras.layers.Dense(3, None, False, "identity", kernel_regularizer=penalty)
    inputs = keras.Input((3,))
    x = ks.ChoiceBlock([shared, []], "ab")(shared(inputs))
    net = ks.Supernet(inputs, x, sampler=FromList([(0,)]))
    net.compile(SGD(0.0), "mse")
    np.testing.assert_allclose(net.train_on_batch(X, X), 0.5 * 3, 1e-5)
    np.testing.assert_allclose(net.test_on_batch(X, X), 0.5 * 3, 1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: SGD(0.1),
        lambda: SGD(0.1, global_clipnorm=1.0),
        lambda: SGD(0.1, gradient_accumulation_steps=2, use_ema=True),
        lambda: keras.optimizers.LossScaleOptimizer(SGD(0.1)),
    ],
    ids=["separable", "clipped", "accumulated", "scaled"],
)
def test_a_path_on_which_nothing_trains_is_a_step_too(optimizer):
    inputs = keras.Input((3,))
    dense = keras.layers.Dense(3)
    net = ks.Supernet(inputs, ks.ChoiceBlock([[], dense], "ab")(inputs))
    net.sampler = FromList([(0,)])
    net.compile(optimizer(), "mse")
    kernel = np.array(dense.kernel)
    for count in (1, 2, 3):
        assert net.train_on_batch(X, X) == 0
        assert net.count_steps() == count
    np.testing.assert_array_equal(dense.kernel, kernel)
    net.sampler = FromList([(1,)])
    net.fit(X, X, epochs=2, verbose=0)
    assert np.any(np.array(dense.kernel) != kernel)


def test_layers_that_cannot_be_compiled_train():
    """Any part of an image of one colour is the same."""
    colours = np.random.default_rng(0).normal(size=(6, 1, 1, 3))
    images = np.broadcast_to(colours, (6, 5, 5, 3)).astype("float32")
    labels = np.arange(6) % 2
    results = []
    for crop in (keras.layers.RandomCrop(3, 3), keras.layers.CenterCrop(3, 3)):
        inputs = keras.Input((5, 5, 3))
        convolutions = [keras.layers.Conv2D(2, 3, name=f"c{i}") for i in range(2)]
        x = ks.ChoiceBlock(convolutions, "ab")(crop(inputs))
        x = keras.layers.Flatten()(x)
        net = randomize(ks.Supernet(inputs, x))
        net.compile("sgd", cross_entropy())
        assert net.jit_compile is False or crop.supports_jit
        options = {"batch_size": 3, "epochs": 2, "shuffle": False, "verbose": 0}
        history = net.fit(images, labels, **options).history
        weights = [keras.ops.convert_to_numpy(v) for v in net.trainable_variables]
        results.append([history["loss"], *weights])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@keras.saving.register_keras_serializable("tests")
class OwnDense(keras.layers.Dense):
    """A layer of one's own that ends in its activation."""


def ending(kind, x):
    """Classes' probabilities, made in one of many ways."""
    x = keras.layers.Flatten()(x)
    if kind in ("model", "activation"):
        head = [keras.layers.Dense(4, "softmax" if kind == "activation" else None)]
        head += [keras.layers.Softmax()] if kind == "model" else []
        return keras.Sequential(head, name="label")(x)
    if kind == "option":
        softmax = keras.layers.Dense(4, activation="softmax")
        options = [keras.layers.Dense(4, activation="sigmoid"), softmax]
        return ks.ChoiceBlock(options, ("sigmoid", "softmax"), name="label")(x)
    if kind == "own class":
        return OwnDense(4, activation="softmax", name="label")(x)
    if kind == "identity":
        x = keras.layers.Dense(4, activation="softmax")(x)
        return keras.layers.Identity(name="label")(x)
    return keras.ops.softmax(keras.layers.Dense(4)(x))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "kind", ["activation", "model", "option", "own class", "identity", "function"]
)
def test_crossentropies_of_probabilities_near_zero(recompute, kind):
    """On TensorFlow they are taken from logits: probabilities have no gradient."""
    inputs = keras.Input((4, 4, 3))
    options = [keras.layers.Conv2D(4, size, padding="same") for size in (1, 3)]
    x = ks.ChoiceBlock(options, ("k1", "k3"), name="block")(inputs)
    edges = keras.layers.Conv2D(1, 1, activation="sigmoid", name="edges")(x)
    label = ending(kind, x)
    net = ks.Supernet(inputs, {"edges": edges, "label": label}, recompute=recompute)
    path = (1,) * net.space.num_decisions
    net.sampler = FromList([path])
    randomize(net, scale=2.0)
    images, labels = data(8, (4, 4, 3))
    y = {"edges": images[..., :1] > 0, "label": labels}
    net.set_path(path)
    stock = net.extract()
    losses = {"edges": "binary_crossentropy"}
    losses["label"] = "sparse_categorical_crossentropy"
    results = []
    for model in (net, stock):
        model.compile(SGD(0.1), losses)
        results.append([model.train_on_batch(images, y)[0] for _ in range(3)])
        results[-1].append(model.test_on_batch(images, y)[0])
    np.testing.assert_allclose(*results, 1e-4)
    for a, b in zip(net.extract().variables, stock.variables, strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-4)


def test_of_equal_layers_the_last_gives_logits():
    """The first probabilities are numbers like others, read by the second block."""
    x = inputs = keras.Input((4,))
    for name in "ab":
        x = ks.ChoiceBlock([keras.layers.Dense(4), keras.layers.ReLU()], name=name)(x)
        x = keras.layers.Dense(4, "softmax")(x)
    net = ks.Supernet(inputs, x)
    net.sampler = FromList([(0, 0)])
    randomize(net, scale=2.0)
    stock = net.extract((0, 0))
    images, labels = data(8, (4,))
    losses = []
    for model in (net, stock):
        model.compile(SGD(0.1), "sparse_categorical_crossentropy")
        losses.append([model.train_on_batch(images, labels) for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_mean_of_softmaxes_is_none():
    """It has no logits, as Keras' average of two such layers has none."""
    inputs = keras.Input((3,))
    softmaxes = [keras.layers.Dense(4, "softmax", name=name) for name in "ab"]
    net = ks.Supernet(inputs, ks.ChoiceBlock(softmaxes)(inputs))
    net.sampler = FromList([((0, 1),)])
    randomize(net)
    outputs = [keras.layers.Dense(4, "softmax", name=name)(inputs) for name in "ab"]
    stock = keras.Model(inputs, keras.layers.Average()(outputs))
    for name, layer in zip("ab", softmaxes, strict=True):
        stock.get_layer(name).set_weights(layer.get_weights())
    for model in (net, stock):
        model.compile(SGD(0.1), "sparse_categorical_crossentropy")
    x, y = data(8, (3,))
    losses = [[m.train_on_batch(x, y) for _ in range(3)] for m in (net, stock)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
