"""MultiPathBlock obeys the laws, for one path and for several."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from laws import SearchableLayerLaws
from models import SHAPE, convolution, data, randomize, residual, values

from keras_spos import Evaluator, Supernet, recalibrate
from keras_spos.layers import MultiPathBlock, PathGroup, ShadowBatchNormalization


def group(name, max_paths, filters=4, **options):
    """Three paths of different structure between two convolutions."""
    return PathGroup(
        [
            convolution(f"{name}_k3", 3, filters),
            residual(f"{name}_residual", filters),
            layers.Conv2D(filters, 5, padding="same", name=f"{name}_k5"),
        ],
        before=layers.Conv2D(filters, 1, name=f"{name}_before"),
        after=layers.Conv2D(4, 1, name=f"{name}_after"),
        norm=ShadowBatchNormalization(max_paths, name=f"{name}_shadow"),
        labels=("k3", "residual", "k5"),
        name=name,
        **options,
    )


class TestOnePath(SearchableLayerLaws):
    def make(self):
        return MultiPathBlock([group("g", 1)], 1, name="block")


class TestTwoPathsOfTwoGroups(SearchableLayerLaws):
    def make(self):
        groups = [group("narrow", 2), group("wide", 2, filters=5)]
        return MultiPathBlock(groups, 2, name="block")

    def paths(self, net):
        # One path, two paths, the other group.
        return [(0,), (1,), (5,), (9,)]


def test_options_are_the_subsets_by_group_and_size():
    groups = [group("a", 3), group("b", 3, subsets=[(1,), (0, 2)])]
    block = MultiPathBlock(groups, 3, name="block")
    (decision,) = block.decisions
    assert decision.name == "block"
    assert decision.options == (
        *("a:k3", "a:residual", "a:k5", "a:k3+residual", "a:k3+k5"),
        *("a:residual+k5", "a:k3+residual+k5", "b:residual", "b:k3+k5"),
    )
    assert block.options[5] == (0, (1, 2))
    assert groups[1].offered(max_paths=1) == [(1,)]


def test_a_list_of_layers_is_one_group_with_a_shadow_norm():
    paths = [layers.Identity(name="same"), layers.ReLU(name="relu")]
    block = MultiPathBlock(paths, 2, name="block")
    inputs = keras.Input((3,))
    assert block(inputs).shape == (None, 3)
    x = np.array([[1.0, -2.0, 3.0]], "float32")
    # New batch norms: mean 0, variance 1.
    scale = 1 / np.sqrt(1 + 1e-5)
    for choice, expected in enumerate((x, np.maximum(x, 0), x + np.maximum(x, 0))):
        y = ops.convert_to_numpy(block.call_choice((choice,), x))
        np.testing.assert_allclose(y, expected * scale, 1e-6)


def test_a_shadow_norm_is_made_of_batch_norms_of_its_settings():
    usual = {"momentum": 0.9, "epsilon": 1e-5, "center": True, "scale": True}
    other = {"momentum": 0.7, "epsilon": 0.1, "center": False, "scale": False}
    for given, expected in (({}, usual), (other, other)):
        for norm in ShadowBatchNormalization(3, **given).norms:
            assert {name: getattr(norm, name) for name in expected} == expected


def test_a_group_may_lack_what_another_has():
    bare = PathGroup([layers.Identity(), layers.ReLU()], name="bare")
    block = MultiPathBlock([group("g", 2, filters=4), bare], 2, name="block")
    block(keras.Input((6, 6, 4)))
    x, _ = data(2, (6, 6, 4))
    for choice, expected in ((6, x), (8, x + np.maximum(x, 0))):
        for call in (lambda c: block.call_choice(c, x), lambda c: block.picked(c)(x)):
            y = ops.convert_to_numpy(call((choice,)))
            np.testing.assert_array_equal(y, expected)
    assert len(block.stages((0,))) == len(block.stages((6,))) == 4


def test_integers_come_as_they_are():
    half = {"dtype": "mixed_float16"}
    paths = [layers.Embedding(3000, 2, **half), layers.Embedding(3000, 2, **half)]
    inputs = keras.Input((1,), dtype="int32")
    net = Supernet(inputs, MultiPathBlock([PathGroup(paths)], **half)(inputs))
    # Half precision has even numbers alone from 2048.
    words = np.array([[2049], [2051]])
    expected = ops.convert_to_numpy(paths[0](words))
    for model in (net, net.extract((0,))):
        outputs = ops.convert_to_numpy(model(words))
        np.testing.assert_array_equal(outputs, expected)


def test_one_path_with_a_shadow_norm_is_a_batch_norm_to_the_bit():
    shadow = ShadowBatchNormalization(1, momentum=0.8, name="shadow")
    plain = layers.BatchNormalization(momentum=0.8, epsilon=1e-5)
    x, _ = data(5, (2, 2, 3))
    for norm in (shadow, plain):
        norm.build(x.shape)
        randomize(norm)
    for training in (True, True, False):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(shadow(x, training=training)),
            ops.convert_to_numpy(plain(x, training=training)),
        )
    for a, b in zip(values(shadow.variables), values(plain.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_number_of_paths_has_its_own_statistics():
    norm = ShadowBatchNormalization(3, momentum=0.0)
    x, _ = data(50, (3,))
    norm.build(x.shape)
    norm(2 * x, num_paths=2, training=True)
    means = [ops.convert_to_numpy(norm.norm(k).moving_mean) for k in (1, 2, 3)]
    np.testing.assert_allclose(means[1], 2 * x.mean(0), 1e-4, 1e-6)
    assert not means[0].any() and not means[2].any()
    assert norm.norm(1).dtype_policy.name == "float32"
    vanilla = ShadowBatchNormalization(3, shadow=False, dtype="mixed_bfloat16")
    assert vanilla.norm(1).dtype_policy.name == "mixed_bfloat16"
    assert vanilla.norms == [vanilla.norm(1)] == [vanilla.norm(3)]


def test_recalibrated_statistics_are_those_of_the_extracted_model():
    block = MultiPathBlock([group("g", 2)], 2, name="block")
    inputs = keras.Input(SHAPE)
    x = layers.Flatten()(block(inputs))
    net = randomize(Supernet(inputs, layers.Dense(3, name="classifier")(x)))
    images, labels = data(20)
    score = Evaluator(net, images, (images, labels % 3))
    for path in ((1,), (4,)):
        subnet = recalibrate(net.extract(path), images)
        expected = ops.convert_to_numpy(subnet(images))
        np.testing.assert_allclose(score.predict(path), expected, 1e-4, 1e-5)
        # Only the batch norm for as many paths was measured.
        shadows = [name for name in score.statistics(path) if "shadow" in name]
        count = len(block.options[path[0]][1])
        assert len(shadows) == 2 and all(f"norm_{count}/" in n for n in shadows)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ShadowBatchNormalization(0), "at least 1. Received: max_paths=0"),
        (lambda: ShadowBatchNormalization(2).norm(3), "1 to 2 paths. Received: .*3"),
        (lambda: MultiPathBlock([layers.ReLU()], 0), "Received: max_paths=0"),
        (lambda: MultiPathBlock([], 1), "at least one. Received: "),
        (lambda: MultiPathBlock([group("g", 1)], 2), "up to 1 paths.*max_paths=2"),
        (lambda: PathGroup([]), "at least one path. Received: none"),
        (lambda: PathGroup([layers.ReLU()], labels="ab"), r"one label per path \(1\)"),
        (lambda: PathGroup([layers.ReLU()], subsets=[(0, 1)]), r"Received: \(0, 1\)"),
        (lambda: PathGroup([layers.ReLU()], subsets=[()]), r"Received: \(\)"),
        (lambda: PathGroup([layers.ReLU()], subsets=[(0, 0)]), r"Received: \(0, 0\)"),
        (lambda: PathGroup([layers.ReLU()], norm=layers.ReLU()), "norm is a Shadow"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_paths_must_agree_on_their_output():
    paths = [layers.Conv2D(3, 1, name="a"), layers.Conv2D(4, 1, name="b")]
    with pytest.raises(ValueError, match="one shape. Received: a gives.*3.*b gives.*4"):
        MultiPathBlock(paths, 2)(keras.Input(SHAPE))


def test_groups_must_agree_on_their_output():
    paths = [[layers.Conv2D(n, 1)] for n in (3, 4)]
    groups = [PathGroup(x, name=name) for x, name in zip(paths, "ab", strict=True)]
    with pytest.raises(ValueError, match="one shape and type. Rec.*a gives.*3.*b.*4"):
        MultiPathBlock(groups)(keras.Input(SHAPE))


@pytest.mark.parametrize("with_norm", [False, True])
def test_every_path_gives_the_type_of_the_block(with_norm):
    # Not that of the policy that holds when a path is picked, or the net is loaded.
    norms = [ShadowBatchNormalization(2, dtype="float16") if with_norm else None, None]
    groups = [
        PathGroup([layers.Dense(3, dtype="float16") for _ in "ab"], norm=norm, name=n)
        for norm, n in zip(norms, "xy", strict=True)
    ]
    block = MultiPathBlock(groups, max_paths=2, dtype="float16")
    assert block(keras.Input((3,), dtype="float16")).dtype == "float16"
    picked = [block.picked((choice,)) for choice in range(len(block.options))]
    assert {model.output.dtype for model in picked} == {"float16"}
