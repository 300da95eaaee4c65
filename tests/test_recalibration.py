"""Batch norm statistics are those of the whole calibration set at once.

The reference goes through a stock model from batch norm to batch norm: it computes the
inputs of each with the statistics before it in place, and takes NumPy's mean and
variance of them.
"""

import keras
import numpy as np
import pytest
from keras import layers
from models import SHAPE, data, randomize, small_net, values

from keras_spos import ChoiceBlock, Evaluator, Supernet, recalibrate, spaces
from keras_spos.batches import shuffled

PATHS = [(0, 1, 2), (2, 2, 3), (3, 0, 0)]


def shifted(batches=4, n=6, seed=0):
    """Batches whose means and scales differ, as those of sorted images do."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(n, *SHAPE)) * (1 + i) + 2 * i).astype("float32")
        for i in range(batches)
    ]


def norms(model):
    return [n for n in model.layers if isinstance(n, layers.BatchNormalization)]


def set_exact_statistics(model, images, but=()):
    """Gives a stock model's batch norms, in order, the statistics of their inputs."""
    for norm in norms(model):
        if norm.name in but:
            continue
        inputs = keras.Model(model.input, norm.input)(images, training=False)
        inputs = keras.ops.convert_to_numpy(inputs).astype("float64")
        axes = tuple(range(inputs.ndim - 1))
        norm.moving_mean.assign(inputs.mean(axes))
        norm.moving_variance.assign(inputs.var(axes))
    return model


def statistics(model):
    return values(v for n in norms(model) for v in (n.moving_mean, n.moving_variance))


def assert_equal_statistics(actual, expected, tolerance=1e-4):
    assert len(actual) == len(expected) > 0
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, tolerance, tolerance * np.abs(e).max())


@pytest.fixture(scope="module")
def net():
    return randomize(small_net(blocks=3))


@pytest.fixture(scope="module")
def images():
    return np.concatenate(shifted())


@pytest.fixture(scope="module")
def score(net, images):
    return Evaluator(net, images, data(10, seed=9))


@pytest.mark.parametrize("path", PATHS)
def test_statistics_are_those_of_one_concatenated_batch(net, images, score, path):
    expected = set_exact_statistics(net.extract(path), images)
    assert len(norms(expected)) >= 3
    assert_equal_statistics(statistics(score.extract(path)), statistics(expected))
    # Far from the average of the batches' own, and from what the net came with.
    own = [statistics(set_exact_statistics(net.extract(path), b)) for b in shifted()]
    for wrong in (np.mean([s[1] for s in own], axis=0), values(net.weights)[4]):
        assert np.max(np.abs(wrong / statistics(expected)[1] - 1)) > 0.1


def test_statistics_by_name(net, score):
    found = score.statistics(PATHS[0])
    assert all("moving" in name for name in found)
    assert len(found) == len(statistics(net.extract(PATHS[0])))
    stem = [found["stem_norm/moving_mean"], found["stem_norm/moving_variance"]]
    assert_equal_statistics(stem, statistics(score.extract(PATHS[0]))[:2], 1e-7)


def test_statistics_of_blocks_whose_layers_have_equal_names():
    net = spaces.quantized_resnet(SHAPE, 3, (1, 1), stage_channels=(4, 8))
    images, _ = data(20)
    score = Evaluator(net, images, (images, np.zeros(20, int)))
    path = net.space.sample(1)[0]
    found, subnet = score.statistics(path), score.extract(path)
    assert len(found) == len(statistics(subnet))
    for block in ("block_0", "block_1"):
        norm = subnet.get_layer(f"{block}_norm1")
        np.testing.assert_array_equal(
            found[f"{block}/norm1/moving_mean"], *values([norm.moving_mean])
        )
    assert "stem_norm/moving_mean" in found


def test_a_stock_model(net, images):
    expected = set_exact_statistics(net.extract(PATHS[1]), images)
    model = net.extract(PATHS[1])
    assert recalibrate(model, images) is model
    assert_equal_statistics(statistics(model), statistics(expected))


def test_batches_are_combined_to_the_total(net, images):
    # Each layer sees inputs normalized by their own batch; means and variances are
    # combined with the variance between batches.
    path = PATHS[0]
    parts = shuffled(images, 7)
    np.testing.assert_array_equal(*(np.sort(x, 0) for x in (np.vstack(parts), images)))
    assert [len(p) for p in parts] == [7, 7, 7, 3]
    own = [statistics(set_exact_statistics(net.extract(path), p)) for p in parts]
    expected = []
    for i in range(0, len(own[0]), 2):
        weights = np.array([len(p) for p in parts])[:, None] / len(images)
        means, variances = (np.stack([s[i + k] for s in own]) for k in (0, 1))
        mean = (weights * means).sum(0)
        expected += [mean, (weights * (variances + (means - mean) ** 2)).sum(0)]
    for memory in (4e9, 1):
        score = Evaluator(net, images, data(4), calibration_batch_size=7, memory=memory)
        assert_equal_statistics(statistics(score.extract(path)), expected)
    model = recalibrate(net.extract(path), images, batch_size=7)
    assert_equal_statistics(statistics(model), expected)
    # The first batch norm's inputs depend on no statistics: exact in any case.
    exact = statistics(set_exact_statistics(net.extract(path), images))
    assert_equal_statistics(expected[:2], exact[:2])


@pytest.mark.parametrize("policy", ["bfloat16", "float64"])
def test_statistics_of_several_batches_have_the_norms_type(policy, mixed_precision):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no double precision unless told")
    mixed_precision(policy)
    net = randomize(small_net(blocks=2))
    images = data(12, seed=1)[0].astype("float64")
    outputs, means = [], []
    for size in (None, 6):
        score = Evaluator(net, images, data(4), calibration_batch_size=size)
        outputs.append(score.predict((0, 1)))
        means.append(statistics(score.extract((0, 1)))[0])
    # The first batch norm's mean is the same of any batches.
    tolerance = 1e-12 if policy == "float64" else 0.02
    assert_equal_statistics(means[:1], means[1:], tolerance)
    assert outputs[0].dtype == outputs[1].dtype


class Shifted(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return shifted()[index], np.zeros(6)


def tensorflow_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(np.concatenate(shifted())).batch(5)


@pytest.mark.parametrize("make", [shifted, Shifted, tensorflow_dataset])
def test_batches_of_a_dataset_are_put_together(net, score, make):
    path = PATHS[2]
    expected = statistics(score.extract(path))
    other = Evaluator(net, make(), data(4))
    assert_equal_statistics(statistics(other.extract(path)), expected, 1e-6)
    model = recalibrate(net.extract(path), make())
    assert_equal_statistics(statistics(model), expected, 1e-6)


def test_random_layers_are_off_and_frozen_norms_stay():
    x = inputs = keras.Input(SHAPE)
    frozen = layers.BatchNormalization(name="frozen", trainable=False)
    noisy = [
        layers.Dropout(0.5, name="dropout"),
        layers.GaussianNoise(0.9, name="noise"),
        layers.Conv2D(4, 1, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.SpatialDropout2D(0.5, name="spatial"),
        frozen,
        layers.BatchNormalization(name="last"),
    ]
    x = ChoiceBlock([noisy, layers.Conv2D(4, 1, name="plain")], "ab", name="b")(x)
    net = randomize(Supernet(inputs, layers.GlobalAveragePooling2D()(x)))
    images = np.concatenate(shifted())
    expected = net.extract((0,))
    before = values([frozen.moving_mean, frozen.moving_variance])
    set_exact_statistics(expected, images, but=("b_frozen",))
    score = Evaluator(net, images, data(4))
    model = recalibrate(net.extract((0,)), images)
    for found in (score.extract((0,)), model):
        assert_equal_statistics(statistics(found), statistics(expected))
        stuck = found.get_layer("b_frozen")
        for a, b in zip(
            values([stuck.moving_mean, stuck.moving_variance]), before, strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("path", [(0,), (1,)])
def test_statistics_with_renormalization_or_without_averages(path, images):
    options = [
        [
            layers.Conv2D(4, 1),
            layers.BatchNormalization(renorm=True),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(renorm=True, renorm_clipping={"rmax": 1.5}),
        ],
        [layers.Conv2D(4, 3), layers.BatchNormalization(momentum=1.0)],
    ]
    inputs = keras.Input(SHAPE)
    x = ChoiceBlock(options, "ab")(inputs)
    net = randomize(Supernet(inputs, layers.GlobalAveragePooling2D()(x)))
    expected = set_exact_statistics(net.extract(path), images)
    for found in (
        Evaluator(net, images, data(4)).extract(path),
        recalibrate(net.extract(path), images),
    ):
        assert_equal_statistics(statistics(found), statistics(expected))
        assert all(norm.renorm or norm.momentum == 1.0 for norm in norms(found))


def test_averages_that_overflowed_are_forgotten(net, images):
    model = net.extract((0,) * net.space.num_decisions)
    expected = statistics(recalibrate(model, images))
    for norm in norms(model):
        norm.moving_variance.assign(np.full(norm.moving_variance.shape, np.inf))
    assert_equal_statistics(statistics(recalibrate(model, images)), expected)


@pytest.mark.parametrize("empty", [np.zeros((0, *SHAPE)), []])
def test_empty_calibration_set(net, empty):
    with pytest.raises(ValueError, match="needs training images.*Received: an empty"):
        Evaluator(net, empty, data(4))
    with pytest.raises(ValueError, match="needs training images"):
        recalibrate(net.extract(PATHS[0]), empty)


@pytest.mark.parametrize("size", [-1, 0])
def test_batches_of_no_images(net, images, size):
    with pytest.raises(ValueError, match=f"batch_size >= 1. Received: {size}"):
        recalibrate(net.extract(PATHS[0]), images, batch_size=size)


@pytest.mark.parametrize("together", [True, False])
def test_a_batch_norm_in_two_places_has_no_statistics(together):
    x = inputs = keras.Input((3,))
    norm = layers.BatchNormalization()
    x = layers.Dense(3, activation="relu")(norm(x))
    options = [[norm, layers.ReLU(), norm], layers.ReLU()] if together else [norm, norm]
    net = Supernet(inputs, ChoiceBlock(options, "ab")(x if not together else inputs))
    images = np.ones((4, 3), "float32")
    score = Evaluator(net, images, (images, np.zeros(4)))
    with pytest.raises(ValueError, match="applied more than once on this path"):
        score((0,))
