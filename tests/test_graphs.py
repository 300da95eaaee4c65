"""Any Functional graph trains as the simple implementation does."""

import keras
import numpy as np
import pytest
from keras import layers
from models import SHAPE, FromList, convolution, data, residual
from reference import assert_trains_like_reference

from keras_spos import ChoiceBlock, Supernet

SIZE = 3


def sgd():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def dense(name, units=SIZE, **arguments):
    """A dense layer with losses of its own: of its weights and of its outputs."""
    return layers.Dense(
        units,
        name=name,
        kernel_regularizer=keras.regularizers.L2(0.02),
        activity_regularizer=keras.regularizers.L1(0.05),
        **arguments,
    )


def choice(name, options=None, **arguments):
    """Two dense layers, of which one is chosen."""
    options = options or [
        dense(f"{name}_tanh", activation="tanh"),
        [dense(f"{name}_wide", 5, activation="relu"), dense(f"{name}_narrow")],
    ]
    return ChoiceBlock(options, labels="abcd"[: len(options)], name=name, **arguments)


def vectors(count=5, n=6, inputs=1, outputs=1, seed=0):
    rng = np.random.default_rng(seed)

    def some(number):
        arrays = [rng.normal(size=(n, SIZE)).astype("float32") for _ in range(number)]
        return arrays if number > 1 else arrays[0]

    return [(some(inputs), some(outputs)) for _ in range(count)]


def assert_trains(build, batches, loss="mse", **arguments):
    return assert_trains_like_reference(build, sgd(), batches, loss=loss, **arguments)


def chain(*layers, seed=1):
    """A function that builds a supernet of layers, which functions make anew."""

    def build():
        x = inputs = keras.Input((SIZE,))
        for layer in layers:
            x = layer()(x)
        return Supernet(inputs, x, seed=seed)

    return build


def test_skips_across_blocks_two_inputs_three_outputs_and_a_shared_decision():
    def build():
        image = keras.Input(SHAPE, name="image")
        features = keras.Input((SIZE,), name="features")
        x = stem = layers.Conv2D(4, 1, name="stem")(image)
        for name in ("a", "b"):
            options = [convolution(f"{name}_conv", 3), residual(f"{name}_residual")]
            x = ChoiceBlock(options, "cr", decision="both", name=name)(x)
            x = layers.Concatenate(name=f"{name}_skip")([x, stem])
            x = layers.Conv2D(4, 1, name=f"{name}_merge")(x)
        pooled = layers.GlobalAveragePooling2D(name="pool")(x)
        y = choice("features_block")(features)
        kind = dense("kind", 4)(layers.Concatenate(name="join")([pooled, y]))
        outputs = {"kind": kind, "size": dense("size", 1)(pooled), "y": y}
        return Supernet([image, features], outputs, seed=5)

    losses = {
        "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "size": "mse",
        "y": "mae",
    }
    rng = np.random.default_rng(0)
    batches = []
    for step in range(5):
        x, labels = data(6, seed=step)
        targets = {
            "kind": labels,
            "size": rng.normal(size=(6, 1)).astype("float32"),
            "y": rng.normal(size=(6, SIZE)).astype("float32"),
        }
        batches.append(([x, rng.normal(size=(6, SIZE)).astype("float32")], targets))
    weights = {"kind": 1.0, "size": 0.5, "y": 2.0}
    net, _ = assert_trains(build, batches, losses, loss_weights=weights)
    assert net.space.sizes.tolist() == [2, 2]


def test_block_right_after_the_input_and_at_the_output():
    assert_trains(chain(lambda: choice("first"), lambda: choice("last")), vectors())


def test_options_that_merge_two_tensors():
    def build():
        a, b = keras.Input((SIZE,), name="a"), keras.Input((SIZE,), name="b")
        merge = choice("merge", [layers.Add(name="add"), layers.Multiply(name="mul")])
        return Supernet([a, b], merge([choice("x")(a), choice("y")(b)]), seed=1)

    net, _ = assert_trains(build, vectors(inputs=2))
    x, _ = vectors(inputs=2)[0]
    for path in ((0, 1, 0), (0, 1, 1)):
        net.set_path(path)
        expected = net.extract(path).predict(x, verbose=0)
        np.testing.assert_allclose(net.predict(x, verbose=0), expected, 1e-5)


def test_one_tensor_that_is_two_outputs():
    def build():
        inputs = keras.Input((SIZE,))
        x = choice("block")(inputs)
        return Supernet(inputs, [x, dense("head")(x), x], seed=1)

    assert_trains(build, vectors(outputs=3), ["mse", "mse", "mae"])


def test_layers_shared_between_blocks_and_with_the_rest():
    def build():
        inputs = keras.Input((SIZE,))
        shared, norm = dense("shared"), layers.BatchNormalization(name="norm")
        x = norm(shared(inputs))
        x = choice("a", [shared, dense("a_own")])(x)
        x = choice("b", [[shared, norm], dense("b_own")])(x)
        return Supernet(inputs, x, seed=4)

    assert_trains(build, vectors())


def test_one_block_applied_twice():
    def build():
        inputs = keras.Input((SIZE,))
        block = choice("block")
        return Supernet(inputs, block(block(inputs)), seed=1)

    net, _ = assert_trains(build, vectors())
    assert net.space.num_decisions == 1


def test_frozen_layers():
    def frozen():
        stuck = [dense("frozen"), layers.BatchNormalization(name="frozen_norm")]
        for layer in stuck:
            layer.trainable = False
        return choice("b", [stuck, dense("free")])

    assert_trains(chain(lambda: choice("a"), frozen, seed=2), vectors())


@keras.saving.register_keras_serializable("tests")
class Scale(layers.Layer):
    """A weight without axes, as learnable clipping points are."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale


@pytest.mark.parametrize("use_ema", [False, True])
def test_weights_without_axes(use_ema):
    scales = chain(lambda: choice("a", [Scale(name="first"), Scale(name="second")]))
    optimizer = keras.optimizers.Adam(0.05, use_ema=use_ema)
    assert_trains_like_reference(scales, optimizer, vectors(), loss="mse")


def test_integer_inputs():
    def build():
        inputs = keras.Input((4,), dtype="int32")
        x = layers.Embedding(10, SIZE, name="embedding")(inputs)
        x = layers.GlobalAveragePooling1D(name="pool")(choice("block")(x))
        return Supernet(inputs, x, seed=1)

    rng = np.random.default_rng(0)
    assert_trains(build, [(rng.integers(0, 10, (6, 4)), y) for _, y in vectors()])


@pytest.mark.parametrize("names", ["ba", None])
def test_inputs_without_their_last_axis(names):
    a, b = keras.Input((SIZE,), name="a"), keras.Input((1,), name="b")
    options = [layers.Dense(SIZE), layers.Dense(SIZE, activation="relu")]
    x = layers.Concatenate(name="join")([ChoiceBlock(options, "ab")(a), b])
    net = Supernet([a, b], layers.Dense(SIZE)(x), seed=1)
    stock = net.extract()
    for model in (net, stock):
        model.compile("sgd", "mse")
    x = [np.ones((6, SIZE), "float32"), np.arange(6.0, dtype="float32")]
    x = {name: x["ab".index(name)] for name in names} if names else x
    y = np.ones((6, SIZE), "float32")
    outputs = [model.predict(x, verbose=0) for model in (net, stock)]
    np.testing.assert_allclose(*outputs, 1e-5)
    losses = [model.evaluate(x, y, verbose=0) for model in (net, stock)]
    np.testing.assert_allclose(*losses, 1e-5)
    net.fit(x, y, verbose=0)


# Keras warns of a dict whose keys are not the inputs' names.
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_inputs_by_keys_that_are_not_their_names():
    a, b = keras.Input((SIZE,)), keras.Input((SIZE,))
    net = Supernet({"b": b, "a": a}, choice("c")(layers.Subtract()([a, b])))
    x, _ = vectors(inputs=2)[0]
    x = dict(zip("ab", x, strict=True))
    outputs = [model.predict(x, verbose=0) for model in (net, net.extract())]
    np.testing.assert_allclose(*outputs, 1e-5)


@pytest.mark.parametrize("given", [True, False])
def test_what_a_graph_says_of_training_is_overruled_as_by_keras(given):
    inputs = keras.Input((SIZE,))
    norm = layers.BatchNormalization(name="norm")
    outputs = choice("c")(norm(inputs, training=given))
    net = Supernet(inputs, outputs, sampler=FromList([(0,)]))
    stock = net.extract((0,))
    scores = []
    for model in (net, stock):
        model.compile(sgd(), "mse")
        (x, y), *_ = vectors()
        trained = [model.train_on_batch(x, y) for _ in range(3)]
        scores.append([*trained, model.test_on_batch(x, y)])
    np.testing.assert_allclose(*scores, 1e-5)
