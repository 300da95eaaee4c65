"""An Evaluator scores nets of several inputs, and `recalibrate` takes their subnets."""

import keras
import numpy as np
import pytest
from models import CLASSES, SHAPE, data, randomize

from keras_spos import ChoiceBlock, Evaluator, Supernet, recalibrate
from keras_spos.batches import images_and_labels_of, images_of, shuffled, split

IMAGES, _ = data(12, seed=1)
X, Y = data(20, seed=2)


def test_batches_have_the_size_that_is_asked_for():
    images = {"a": np.arange(7), "b": np.arange(7)[::-1]}
    assert [len(x["a"]) for x in split(images, 3)] == [3, 3, 1]
    for several in (split(images, 7), split(images, None)):
        (one,) = several
        np.testing.assert_array_equal(one["b"], images["b"])
    assert shuffled(images, 7)[0] is shuffled(images, None)[0] is images
    parts = shuffled(images, 3)
    assert [len(x["a"]) for x in parts] == [3, 3, 1]
    order = np.concatenate([x["a"] for x in parts])
    assert sorted(order) == [*range(7)] != [*order]
    assert all(np.all(x["a"] + x["b"] == 6) for x in parts)


def test_sizes_that_a_model_leaves_open():
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, keras.layers.ReLU()(inputs))
    images = np.zeros((2, 4, 3))
    assert images_of(images, model, "some") is images
    for shape in [(2, 4, 1), (2, 3), (2, 4, 3, 1)]:
        message = rf"some images of shape \(None, 3\). Received: \({shape[1]},"
        with pytest.raises(ValueError, match=message):
            images_of(np.zeros(shape), model, "some")


def test_datasets_without_an_end_are_refused():
    tf = pytest.importorskip("tensorflow")
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    endless = tf.data.Dataset.from_tensors((X, Y)).repeat()
    for read in (images_and_labels_of, lambda data, net: images_of(data, net, "some")):
        with pytest.raises(ValueError, match="images that end.*take"):
            read(Endless(endless), model)


class Endless:
    """A dataset that fails where it would be read for ever."""

    def __init__(self, dataset):
        self.cardinality = dataset.cardinality

    def __iter__(self):
        raise AssertionError("read")


def call_on(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def test_one_input_in_a_list():
    """As `fit` takes it."""
    inputs = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(inputs)
    options = [keras.layers.Dense(CLASSES) for _ in "ab"]
    net = randomize(Supernet([inputs], ChoiceBlock(options, "ab")(flat)), seed=3)
    for validation in (([X], Y), [([X[:8]], Y[:8]), ((X[8:],), Y[8:])]):
        score = Evaluator(net, None, validation, recalibrate=False)
        np.testing.assert_array_equal(score.labels, Y)
        expected = call_on(net.extract((1,)), [X])
        np.testing.assert_allclose(score.predict((1,)), expected, 1e-4, 1e-5)


def two_inputs(names):
    """A supernet of images and of numbers, whose inputs are in a dict or a list."""
    names = names or (None, None)
    image = x = keras.Input(SHAPE, name=names[0])
    number = keras.Input((3,), name=names[1])
    for name in "ab":
        option = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
        x = ChoiceBlock([option, keras.layers.Conv2D(4, 3)], "cd", name=name)(x)
    y = keras.layers.BatchNormalization(name="last")(keras.layers.Dense(4)(number))
    x = keras.layers.Add()([keras.layers.GlobalAveragePooling2D()(x), y])
    given = [image, number] if None in names else {names[1]: number, names[0]: image}
    return randomize(Supernet(given, keras.layers.Dense(CLASSES)(x)), seed=3)


@pytest.mark.parametrize("memory", [4e9, 1])
@pytest.mark.parametrize("names", [None, ("image", "number"), ("z", "n")])
def test_several_inputs(names, memory):
    net = two_inputs(names)

    def given(images, seed):
        numbers = np.random.default_rng(seed).normal(1, 2, (len(images), 3))
        both = images, numbers.astype("float32")
        return dict(zip(names, both, strict=True)) if names else list(both)

    def first(inputs, count):
        return keras.tree.map_structure(lambda x: x[:count], inputs)

    calibration, inputs = given(IMAGES, 0), given(X, 1)
    score = Evaluator(
        net, calibration, (inputs, Y), calibration_batch_size=12, memory=memory
    )
    for path in [(0, 0), (0, 1), (1, 1)]:
        model = recalibrate(net.extract(path), calibration)
        # Before the batch norm stand the numbers alone.
        numbers = calibration[names[1] if names else 1]
        dense = next(x for x in model.layers if isinstance(x, keras.layers.Dense))
        expected = call_on(dense, numbers)
        last = model.get_layer("last")
        np.testing.assert_allclose(last.moving_mean, expected.mean(0), 1e-4, 1e-5)
        np.testing.assert_allclose(last.moving_variance, expected.var(0), 1e-4)
        outputs = call_on(model, inputs)
        np.testing.assert_allclose(score.predict(path), outputs, 1e-4, 1e-5)
        right = np.mean(outputs.argmax(-1) == Y)
        np.testing.assert_allclose(score(path), right, 1e-6)
    batches = [(first(inputs, 20), Y)]
    for batch in ((calibration, None), calibration):
        other = Evaluator(net, [batch], batches, batch_size=7)
        np.testing.assert_allclose(other.predict((0, 1)), score.predict((0, 1)), 1e-4)
    if names:
        # What is not an input, of the shape of one, and of another length.
        more = [
            {"a": np.ones_like(x[names[1]]), "b": np.ones(2), **x}
            for x in (calibration, inputs)
        ]
        other = Evaluator(net, more[0], (more[1], Y), memory=memory)
        np.testing.assert_allclose(other.predict((0, 1)), score.predict((0, 1)), 1e-4)
        recalibrate(model, more[0])
        np.testing.assert_allclose(call_on(model, inputs), outputs, 1e-4, 1e-5)
    changed = Evaluator(net, calibration, (given(X, 2), Y), calibration_batch_size=12)
    assert changed.identity() != score.identity()
    with pytest.raises(ValueError, match="as many validation images.*Received: .*20"):
        key = names[1] if names else 1
        short = inputs.copy()
        short[key] = short[key][:9]
        Evaluator(net, calibration, (short, Y))
    # What a tuple has after its first is labels, also if it would fit an input.
    for wrong in (IMAGES, [(IMAGES, np.ones((12, 3)))]):
        with pytest.raises(ValueError, match="for the inputs.*Received: 1 array"):
            Evaluator(net, wrong, (inputs, Y))
    with pytest.raises(ValueError, match="for the inputs.*Received: 1 array"):
        recalibrate(net.extract((0, 0)), IMAGES)
