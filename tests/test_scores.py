"""What number a metric or a loss makes of predictions, and what tells it apart."""

import keras
import numpy as np
import pytest
from keras import ops
from models import CLASSES, data, dense_net, randomize, small_net

from keras_spos import ChoiceBlock, Evaluator, Supernet

IMAGES, _ = data(12, seed=1)
X, Y = data(20, seed=2)


def test_a_loss_may_be_given_by_name():
    labels = np.eye(CLASSES, dtype="float32")[Y]
    net, paths = dense_net(), [(0, 0), (1, 1)]
    x = X.reshape(20, -1)[:, :3]
    scores = []
    for loss in ("categorical_crossentropy", keras.losses.CategoricalCrossentropy()):
        net.compile(loss=loss)
        score = Evaluator(net, None, (x, labels), metric="loss", recalibrate=False)
        scores.append(score(paths))
    np.testing.assert_allclose(*scores, rtol=1e-5)


def squared(labels, outputs):
    return ops.square(labels - outputs)


@pytest.mark.parametrize(
    "loss", [squared, "binary_crossentropy", "crossentropy", "mse"]
)
@pytest.mark.parametrize("shape", [(20,), (20, 1)])
def test_a_loss_that_is_a_function_takes_labels_as_in_fit(loss, shape):
    inputs = keras.Input((3,))
    dense = [keras.layers.Dense(1, activation="sigmoid") for _ in "ab"]
    net = randomize(Supernet(inputs, ChoiceBlock(dense, "ab")(inputs)))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)).astype("float32"), rng.integers(0, 2, shape)
    net.compile(loss=loss)
    scores = Evaluator(net, None, (x, y), metric="loss", recalibrate=False)([[0], [1]])
    for path, score in enumerate(scores):
        net.set_path((path,))
        assert score == pytest.approx(-net.evaluate(x, y, batch_size=20, verbose=0))


@pytest.mark.parametrize(
    "outputs, labels",
    [
        ((20, 4), (20,)),
        ((20, 4), (20, 1)),
        ((20, 1), (20,)),
        ((20, 1), (20, 1)),
        ((20, 3, 4), (20, 3)),
        ((20, 3, 4), (20, 3, 1)),
    ],
)
def test_accuracy_is_keras_accuracy(outputs, labels):
    inputs = keras.Input(outputs[1:])
    activation = "sigmoid" if outputs[-1] == 1 else None
    dense = [keras.layers.Dense(outputs[-1], activation=activation) for _ in "ab"]
    net = randomize(Supernet(inputs, ChoiceBlock(dense, "ab")(inputs)), scale=2)
    net.compile(loss=lambda labels, outputs: outputs, metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x = rng.normal(size=outputs).astype("float32")
    y = rng.integers(0, 2, labels)
    scores = Evaluator(net, None, (x, y), recalibrate=False)([(0,), (1,)])
    for path, score in enumerate(scores):
        net.set_path((path,))
        expected = net.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
        assert score == pytest.approx(expected) and 0 < score < 1


@pytest.mark.parametrize(
    "classes, labels, expected",
    [
        (4, [1, 2, 3, 4], "0 to 3. Received: 4 among labels of 1 to 4"),
        (4, [-1, 0, 1, 2], "0 to 3. Received: -1 among labels of -1 to 2"),
        (4, [0, 1, 2, 2.5], "0 to 3. Received: 2.5 among labels of 0.0 to 2.5"),
        (1, [[-1], [1]], "0 to 1. Received: -1 among .*loss"),
    ],
)
def test_labels_that_no_output_stands_for(classes, labels, expected):
    """Numbered from one, say: their images would be wrong on every path."""
    inputs = keras.Input((3,))
    dense = [keras.layers.Dense(classes) for _ in "ab"]
    net = Supernet(inputs, ChoiceBlock(dense, "ab")(inputs))
    x = np.zeros((len(labels), 3), "float32")
    for metric in ("accuracy", "top5") if classes > 1 else ("accuracy",):
        with pytest.raises(ValueError, match=expected):
            Evaluator(net, x, (x, np.array(labels)), metric=metric)


def test_a_label_of_pixels_that_are_not_classified():
    inputs = keras.Input((2, 3))
    dense = [keras.layers.Dense(4) for _ in "ab"]
    net = Supernet(inputs, ChoiceBlock(dense, "ab")(inputs))
    x, y = np.zeros((5, 2, 3), "float32"), np.full((5, 2), 255)
    assert Evaluator(net, x, (x, y))([(0,)]) == 0


def test_labels_that_are_shares_of_classes():
    net, (x, y) = randomize(dense_net()), data(20, (3,))
    shares = 0.1 + 0.6 * np.eye(CLASSES)[y]
    scores = [
        Evaluator(net, None, (x, labels), recalibrate=False)((0, 1))
        for labels in (y, shares)
    ]
    assert scores[0] == scores[1]


def test_names_that_keras_numbers_are_no_identity():
    function = keras.metrics.sparse_categorical_accuracy
    identities = set()
    for _ in range(2):
        net = dense_net()
        net = randomize(Supernet(net.inputs, net.outputs))
        x, y = data(6, (3,))
        metric = keras.metrics.MeanMetricWrapper(function)
        score = Evaluator(net, None, (x, y), metric=metric, recalibrate=False)
        identities.add(score.identity())
    assert len(identities) == 1


def test_metrics_of_any_form():
    net = randomize(dense_net())
    x, y = data(6, (3,))
    forms = ["accuracy", keras.metrics.SparseCategoricalAccuracy]
    scores = [
        Evaluator(net, None, (x, y), form, batch_size=None, recalibrate=False)((0, 1))
        for form in forms
    ]
    assert scores[0] == scores[1]


def test_another_loss_is_another_score():
    net = dense_net()
    net.compile(loss="mse")
    x, y = data(6, (3,))
    one_hot = np.eye(CLASSES)[y]
    score = Evaluator(net, None, (x, one_hot), metric="loss", recalibrate=False)
    before = score((0, 0))
    net.compile(loss="mae")
    assert score((0, 0)) != before
    identities = set()
    for settings in ({}, {"delta": 2.0}, {"reduction": "sum"}):
        net.compile(loss=keras.losses.Huber(**settings))
        identities.add(score.identity())
    assert len(identities) == 3


def test_outputs_that_are_not_numbers():
    net = dense_net()
    score = Evaluator(net, None, data(6, (3,)), recalibrate=False)
    net.get_layer("classifier").bias.assign([np.nan, 0, 0, 0])
    features = net.layers[-1].input
    two = Supernet(net.input, [features, net.output])
    both = Evaluator(two, None, data(6, (3,)), lambda *_: 0.0, recalibrate=False)
    for one in (score, both):
        with pytest.raises(ValueError, match=r"Received: NaN on path \(0, 1\)"):
            one((0, 1))


def test_the_best_five_of_one_output():
    inputs = keras.Input((3,))
    net = Supernet(inputs, ChoiceBlock([keras.layers.Dense(1)] * 2, "ab")(inputs))
    with pytest.raises(ValueError, match=r"for each class. Received: .*\(None, 1\)"):
        Evaluator(net, None, data(6, (3,)), metric="top5", recalibrate=False)


def test_a_loss_needs_a_compiled_supernet():
    with pytest.raises(ValueError, match="compiled supernet. Received: loss=None"):
        Evaluator(small_net(), IMAGES, (X, Y), metric=("accuracy", "loss"))((0, 0))
    net = dense_net()
    net.compile(loss=["mse"])
    with pytest.raises(ValueError, match="with one loss for one output"):
        Evaluator(net, None, data(6, (3,)), "loss", recalibrate=False)((0, 0))
