"""A Supernet reads its space off its graph, and says what is wrong with a graph."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import FromList, Grid, dense_net, small_net

from keras_spos import ChoiceBlock, MultiPathBlock, Supernet, UniformSampler


def block(name, labels="ab", **arguments):
    options = [layers.Dense(3, name=f"{name}_{label}") for label in labels]
    return ChoiceBlock(options, labels, name=name, **arguments)


def test_space_is_in_graph_order_with_shared_decisions_once():
    x = inputs = keras.Input((4, 4, 3))
    for layer in (
        block("late", "abc"),
        Grid(3, name="grid"),
        block("one", decision="shared"),
        block("two", decision="shared"),
    ):
        x = layer(x)
    net = Supernet(inputs, x)
    names = [d.name for d in net.space.decisions]
    assert names == ["late", "grid_kernel", "grid_activation", "shared"]
    assert net.space.sizes.tolist() == [3, 2, 3, 2]
    assert net.path == (0, 0, 0, 0)
    net.set_path((2, 1, 2, 1))
    assert net.path == (2, 1, 2, 1)
    for name in ("one", "two"):
        assert int(net.get_layer(name).choices[0].value) == 1


def test_a_graph_without_a_choice():
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match="at least one searchable layer"):
        Supernet(inputs, layers.Dense(3)(inputs))


def test_shared_decisions_must_agree():
    inputs = keras.Input((3,))
    x = block("two", "abc", decision="d")(block("one", "ab", decision="d")(inputs))
    with pytest.raises(
        ValueError, match=r"share decision 'd'.*'a', 'b'.*'a', 'b', 'c'"
    ):
        Supernet(inputs, x)


@pytest.mark.parametrize("where", ["model", "option"])
def test_choices_inside_other_layers_would_never_be_made(where):
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), block("inner")], name="nest")
    if where == "model":
        x = inner(block("outer")(inputs))
    else:
        x = ChoiceBlock([inner, layers.Dense(3)], "ab", name="outer")(inputs)
    with pytest.raises(ValueError, match="'inner' is inside another"):
        Supernet(inputs, x)


@pytest.mark.parametrize("between", [layers.Identity, lambda: layers.Dense(3)])
def test_masks_would_be_lost(between):
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 3, mask_zero=True)(inputs)
    last = between()
    with pytest.warns(UserWarning, match="does not support masking"):
        x = block("block")(last(x))
    with pytest.raises(ValueError, match=f"{last.name!r} carries a Keras mask"):
        Supernet(inputs, layers.GlobalAveragePooling1D()(x))


def test_masks_beside_a_block_would_be_lost():
    """Where a fixed layer after the block reads them."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 3, mask_zero=True, name="words")(inputs)
    y = block("block")(ops.multiply(x, 2.0))
    net = Supernet(inputs, layers.GlobalAveragePooling1D()(layers.Add()([x, y])))
    with pytest.raises(ValueError, match="'words' carries a Keras mask"):
        net.predict(np.ones((2, 5)), verbose=0)


def embedding(name="words", **arguments):
    return layers.Embedding(7, 3, name=name, **arguments)


def as_model(make):
    inputs = keras.Input((5,), dtype="int32")
    return keras.Model(inputs, make()(inputs), name="words")


@keras.saving.register_keras_serializable("tests")
class MasksWhenItRuns(keras.Model):
    """A subclassed model: what it does is only known when it runs."""

    def __init__(self, name=None):
        super().__init__(name=name)
        self.inner = embedding(mask_zero=True)

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, x):
        return self.inner(x)

    def compute_output_shape(self, input_shape):
        return (*input_shape, 3)


@pytest.mark.parametrize(
    "option",
    [
        lambda: embedding(mask_zero=True),
        lambda: keras.Sequential([embedding(mask_zero=True)], name="words"),
        lambda: as_model(lambda: embedding(mask_zero=True)),
    ],
    ids=["layer", "sequential", "functional"],
)
def test_masks_that_options_make_would_be_lost(option):
    with pytest.raises(ValueError, match="'words' carries a Keras mask"):
        ChoiceBlock([embedding(), option()], "ab")(keras.Input((5,), dtype="int32"))


def test_masks_that_are_seen_when_they_are_made():
    inputs = keras.Input((5,), dtype="int32")
    x = ChoiceBlock([embedding(), MasksWhenItRuns(name="words")], "ab")(inputs)
    net = Supernet(inputs, layers.GlobalAveragePooling1D()(x))
    net.predict(np.ones((2, 5)), verbose=0)
    net.set_path((1,))
    with pytest.raises(ValueError, match="'words' carries a Keras mask"):
        net.predict(np.ones((2, 5)), verbose=0)


@pytest.mark.parametrize("where", ["inside", "before"])
def test_masks_may_be_made_and_used_inside_an_option_and_before(where):
    x = inputs = keras.Input((5,), dtype="int32")
    pool = layers.GlobalAveragePooling1D
    options = [[embedding(mask_zero=mask), pool()] for mask in (True, False)]
    if where == "before":
        x = pool()(embedding(mask_zero=True)(inputs))
        options = [layers.Dense(3), layers.Identity()]
    net = Supernet(inputs, ChoiceBlock(options)(x))
    x = np.array([[1, 2, 0, 0, 0], [3, 1, 4, 1, 5]])
    for path in net.space.enumerate():
        net.set_path(path)
        outputs = [m.predict(x, verbose=0) for m in (net, net.extract(path))]
        np.testing.assert_allclose(*outputs, 1e-5)


def test_named_paths_are_checked_and_saved(tmp_path):
    net = dense_net()
    net = Supernet(net.input, net.output, named_paths={"best": [1, 0]}, seed=4)
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert loaded.named_paths == {"best": (1, 0)}
    assert loaded.seed == 4
    with pytest.raises(ValueError, match="Received: 2"):
        Supernet(net.input, net.output, named_paths={"bad": [2, 0]})


class Draws:
    """A sampler without a config."""

    def __init__(self, path):
        self.path = path

    def draw(self, space, rng):
        return self.path


@pytest.mark.parametrize(
    "sampler, received",
    [("uniform", "'uniform'"), (UniformSampler, "UniformSampler"), (3, "3")],
)
def test_a_sampler_draws(sampler, received):
    net = dense_net()
    message = (
        rf"a sampler, an object with `draw` or `draw_step`.*Received: .*{received}"
    )
    with pytest.raises(ValueError, match=message):
        net.sampler = sampler
    with pytest.raises(ValueError, match=message):
        dense_net(sampler=sampler)
    assert isinstance(net.sampler, UniformSampler)


@pytest.mark.parametrize(
    "path",
    [
        (0,),
        (0, 1, 0),
        (0, -1),
        np.array([0, 2]),
        np.array([0, -1]),
        (0, 0.5),
        (0, (1, 2)),
        ((), 0),
        np.zeros((1, 2), int),
        [np.zeros(2, int), 0],
        iter((0, 1)),
        None,
        3,
    ],
)
def test_what_a_sampler_draws_is_checked(path):
    net = dense_net(sampler=Draws(path))
    net.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Expected Draws to draw .* of 2 decisions"):
        net.train_on_batch(np.ones((2, 3)), np.ones((2, 4)))
    net.sampler = FromList([(0, 1)])
    net.train_on_batch(np.ones((2, 3)), np.ones((2, 4)))


@pytest.mark.parametrize(
    "path", [(0, 1), [1, 0], np.array([1, 1]), ((0, 1), 1), [frozenset({1}), [0, 1]]]
)
def test_what_a_sampler_may_draw(path):
    net = dense_net(sampler=Draws(path))
    assert net.draw(0) is path
    net.compile("sgd", "mse")
    net.train_on_batch(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(FloatingPointError, match=r"at step 1, on path \["):
        net.train_on_batch(np.full((2, 3), np.nan), np.ones((2, 4)))


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: Grid(3, name="grid"), [(0, 1), (0,)]),
        (lambda: MultiPathBlock([layers.ReLU(), layers.ELU()], name="grid"), [(0, 1)]),
    ],
    ids=["decisions", "stages"],
)
def test_several_options_are_for_layers_of_one_decision_and_stage(make, path):
    inputs = keras.Input((4, 4, 3))
    net = Supernet(inputs, make()(inputs), sampler=Draws(path))
    net.compile("sgd", "mse")
    x = np.ones((2, 4, 4, 3))
    with pytest.raises(ValueError, match="'grid' combines .*one choice at a time"):
        net.train_on_batch(x, x)


class OfOneWay:
    """A sampler that a file could describe, and nobody could make again."""

    def draw(self, space, rng):
        return (0, 1)

    def get_config(self):
        return {}


def test_what_cannot_be_saved_leaves_the_file_alone(tmp_path):
    net = dense_net()
    file = tmp_path / "net.keras"
    net.save(file)
    before = file.read_bytes()
    net.sampler = Draws((0, 1))
    net.compile("sgd", "mse")
    net.train_on_batch(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="a sampler with `get_config`.*Draws"):
        net.save(file)
    assert file.read_bytes() == before
    net.sampler = OfOneWay()
    with pytest.raises(ValueError, match="and `from_config`.*OfOneWay"):
        net.save(file)
    assert file.read_bytes() == before
    net.sampler = UniformSampler()
    net.save(file)
    keras.saving.load_model(file)


def test_a_sampler_of_a_class_that_is_not_registered(tmp_path):
    class Again(OfOneWay):
        @classmethod
        def from_config(cls, config):
            return cls(**config)

    net = dense_net(sampler=Again())
    known = {"Again": Again}
    assert isinstance(Supernet.from_config(net.get_config(), known).sampler, Again)
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras", custom_objects=known)
    assert isinstance(loaded.sampler, Again)


def test_a_config_can_be_used_again():
    config = small_net().get_config()
    first, second = (Supernet.from_config(config) for _ in range(2))
    assert first.get_config() == second.get_config()


def test_a_copy_with_new_weights_keeps_what_clone_model_forgets():
    net = dense_net(sampler=FromList([(0, 1)]), seed=3)
    net.named_paths = {"first": (0, 0)}
    net.recompute = True
    net.trainable = False

    def settings(net):
        kept = type(net.sampler), net.seed, net.named_paths, net.recompute
        return *kept, net.trainable

    copy = Supernet.from_config(net.get_config())
    assert settings(copy) == settings(net)
    assert np.any(copy.get_weights()[-2] != net.get_weights()[-2])
    # Once Keras copies more, the docstring of `Supernet` need not warn of it.
    clone = keras.models.clone_model(net)
    assert settings(clone) == (UniformSampler, 0, {}, False, True)
