"""What would be silently wrong is refused, or kept: found by trying the library out."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import SHAPE, FromList, cross_entropy, data, small_net

import keras_spos as ks
from keras_spos import search


def net_on(backbone):
    inputs = keras.Input(SHAPE)
    x = backbone(inputs)
    x = ks.ChoiceBlock(
        [
            [layers.Conv2D(4, k, padding="same"), layers.BatchNormalization()]
            for k in (1, 3)
        ],
        name="block",
    )(x)
    x = layers.GlobalAveragePooling2D()(x)
    return ks.Supernet(inputs, layers.Dense(4, name="head")(x))


def test_a_fresh_subnet_keeps_frozen_norms_as_they_are():
    plain = {"center": False, "scale": False}
    frozen = layers.BatchNormalization(**plain, trainable=False, name="frozen")
    net = net_on(keras.Sequential([keras.Input(SHAPE), frozen], name="backbone"))
    frozen.moving_mean.assign(np.ones(SHAPE[-1]))
    kept = net.extract((1,), fresh=True).get_layer("frozen")
    assert kept.gamma is None
    np.testing.assert_array_equal(kept.moving_mean, frozen.moving_mean)
    # Frozen as a whole, to be used: nothing was meant to outlast a fresh start.
    net.trainable = False
    fresh = net.extract((1,), fresh=True)
    assert fresh.get_layer("frozen").gamma is not None
    assert len(fresh.trainable_variables) == 8


def test_a_fresh_subnet_keeps_what_is_frozen():
    frozen = layers.Conv2D(4, 1, trainable=False, name="pretrained")
    net = net_on(keras.Sequential([keras.Input(SHAPE), frozen], name="backbone"))
    fresh = net.extract((1,), fresh=True)
    kept, new = (fresh.get_layer(name) for name in ("pretrained", "head"))
    np.testing.assert_array_equal(kept.kernel, frozen.kernel)
    assert not kept.trainable
    assert np.any(np.array(new.kernel) != np.array(net.get_layer("head").kernel))


def test_a_fresh_subnet_keeps_the_kernels_that_lora_adapts():
    net = net_on(layers.Conv2D(4, 1, name="pretrained"))
    for layer in (net.get_layer("pretrained"), net.get_layer("block").options[0]):
        getattr(layer, "layers", [layer])[0].enable_lora(2)
    for path in [(0,), (1,)]:
        fresh, inherited = net.extract(path, fresh=True), net.extract(path)
        for new, old in zip(fresh.weights, inherited.weights, strict=True):
            assert new.trainable == old.trainable
            drawn = new.name in ("kernel", "lora_kernel_a") and new.trainable
            assert np.array_equal(new, old) != drawn, new.path
        frozen = [v.name for v in inherited.weights if not v.trainable]
        assert frozen.count("kernel") == 2 - path[0]


def test_frozen_batch_norms_are_told_apart():
    net = small_net()
    x, y = data(6)
    before = ks.Evaluator(net, x, (x, y)).identity()
    net.get_layer("block_0").trainable = False
    assert ks.Evaluator(net, x, (x, y)).identity() != before
    subnet = net_on(layers.Conv2D(4, 1)).extract((0,))
    subnet.trainable = False
    with pytest.raises(ValueError, match="all of whose 1 batch norms"):
        ks.recalibrate(subnet, x)
    bare = keras.Sequential([keras.Input(x.shape[1:]), layers.ReLU()])
    assert ks.recalibrate(bare, x) is bare


def test_a_loss_that_reads_weights_is_refused():
    class Decaying(ks.Supernet):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return loss + ops.sum(ops.square(self.get_layer("head").kernel))

    plain = net_on(layers.Conv2D(4, 1))
    net = Decaying(plain.inputs, plain.outputs)
    net.compile("sgd", cross_entropy())
    with pytest.raises(ValueError, match="reads head/kernel"):
        net.train_on_batch(*data(6))
    # Without a gradient, or of what has none, it may.
    net.test_on_batch(*data(6))
    net.get_layer("head").trainable = False
    net.compile("sgd", cross_entropy())
    net.train_on_batch(*data(6))


def test_an_optimizer_that_updates_all_or_nothing_is_refused():
    net = small_net()
    sgd = keras.optimizers.SGD(0.1)
    several = keras.optimizers.MultiOptimizer(lambda v: sgd)
    for optimizer in (several, keras.optimizers.LossScaleOptimizer(several)):
        net.compile(optimizer, cross_entropy())
        with pytest.raises(ValueError, match="those on the path"):
            net.train_on_batch(*data(6))


@pytest.mark.parametrize("name", ["Adafactor", "Muon"])
def test_an_optimizer_of_whole_weights_is_refused_where_widths_share_them(name):
    inputs = keras.Input((3,))
    x = ks.layers.SliceableDense((2, 4), name="dense")(inputs)
    option = keras.Model(inputs, ks.layers.SliceableDense((5, 5))(x))
    x = ks.ElasticBlock([option], widths="ab", name="wide")(inputs)
    net = ks.Supernet(inputs, x)
    batch = np.ones((2, 3)), np.ones((2, 5))
    net.compile(getattr(keras.optimizers, name)(), "mse")
    with pytest.raises(ValueError, match=rf"SGD or AdamW. Received: {name}.*'wide'"):
        net.train_on_batch(*batch)
    small_net().compile(getattr(keras.optimizers, name)(), cross_entropy())
    net.compile(keras.optimizers.Nadam(), "mse")
    net.train_on_batch(*batch)


def test_a_metric_of_errors_or_a_function_is_refused():
    x, y = data(6)
    false = keras.metrics.FalsePositives(), keras.metrics.FalseNegatives()
    worse = [(metric, "the lowest") for metric in ("mae", "poisson", "hinge", *false)]
    for metric, words in (*worse, (lambda a, b: a, "a function")):
        with pytest.raises(ValueError, match=words):
            ks.Evaluator(small_net(), x, (x, y), metric=metric)
    for metric in (keras.metrics.CosineSimilarity, keras.metrics.R2Score):
        ks.Evaluator(small_net(), x, (x, y), metric=metric)


def test_a_metric_of_errors_is_known_in_other_clothes():
    class Own(keras.metrics.MeanSquaredError):
        pass

    class Negative(Own):
        def result(self):
            return -super().result()

    x, y = data(6)
    mean = keras.metrics.MeanMetricWrapper
    for metric in (Own(), mean(keras.losses.mean_squared_error)):
        with pytest.raises(ValueError, match="the lowest"):
            ks.Evaluator(small_net(), x, (x, y), metric=metric)
    for metric in (Negative(), mean(keras.metrics.sparse_categorical_accuracy)):
        ks.Evaluator(small_net(), x, (x, y), metric=metric)


def test_a_number_that_may_be_an_index_or_a_label_is_refused():
    space = ks.SearchSpace([ks.Decision("kernel", ("1", "3"))])
    assert space.path({"kernel": "3"}) == (1,) == space.path((1,))
    with pytest.raises(ValueError, match="an index or a label"):
        space.path({"kernel": 1})


def test_a_subclass_that_makes_its_own_graph_is_loaded(tmp_path):
    class Own(ks.Supernet):
        def __init__(self, **kwargs):
            plain = net_on(layers.Conv2D(4, 1, name="stem"))
            super().__init__(plain.inputs, plain.outputs, **kwargs)

    net = Own(seed=5, named_paths={"second": (1,)})
    net.save(tmp_path / "own.keras")
    loaded = keras.models.load_model(
        tmp_path / "own.keras", custom_objects={"Own": Own}
    )
    assert loaded.seed == 5 and loaded.named_paths == {"second": (1,)}
    x, _ = data(6)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), net.predict(x, verbose=0)
    )


def test_metrics_of_layers_are_warned_of():
    class Counts(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seen = keras.metrics.Mean(name="seen")

        def call(self, x):
            return x

    with pytest.warns(UserWarning, match="metrics of their own"):
        net_on(Counts(name="counts"))


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="there Keras hides what it trains"
)
# Keras warns of the options without gradients, where it sees them.
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_plain_model_of_choices_is_warned_of(eager):
    net = small_net()
    x, y = data(6)
    model = keras.Model(net.input, net.output)
    model.compile("sgd", cross_entropy(), run_eagerly=eager)
    with pytest.warns(UserWarning, match="trains one path .* the current one"):
        model.fit(x, y, verbose=0)
    # What does not train, or as it is told, is not.
    model.predict(x, verbose=0)
    model.evaluate(x, y, verbose=0)
    net(x, training=True)
    net.get_layer("block_0")(np.ones((2, 6, 6, 4), "float32"), training=True)
    net.compile("sgd", cross_entropy())
    net.fit(x, y, verbose=0)


def test_scores_of_one_path_and_a_block_inside_a_model():
    with pytest.raises(ValueError, match="n, decisions"):
        ks.score_all(lambda p: np.zeros(len(p)), (0, 1))
    inside = small_net()
    inputs = keras.Input(inside.input_shape[1:])
    with pytest.raises(ValueError, match="inside another layer"):
        ks.Supernet(inputs, inside(inputs))


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_what_ran_before_sees_that_layers_were_quantized():
    net = small_net()
    x, _ = data(6)
    before = net.predict(x, verbose=0)
    net.quantize("int8")
    after = net.predict(x, verbose=0)
    assert np.any(after != before)
    np.testing.assert_allclose(after, net(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_what_needs_float_weights_refuses_layers_that_keras_quantized():
    net = net_on(layers.Conv2D(4, 1))
    net.quantize("int8")
    with pytest.raises(ValueError, match="'head', quantized by Keras to 'int8'"):
        net.extract((1,), fresh=True)
    assert net.extract((1,)).get_layer("head").quantization_mode == "int8"
    for count in (lambda: ks.params_table(net), lambda: ks.count_params(net)):
        with pytest.raises(ValueError, match="'head', quantized to 'int8'"):
            count()


def test_inputs_beside_those_of_the_net_are_left_out():
    b, c = keras.Input((4,), name="b"), keras.Input((4,), name="c")
    block = ks.ChoiceBlock([layers.Dense(3), layers.Dense(3)])
    net = ks.Supernet({"b": b, "c": c}, block(layers.Subtract()([b, c])))
    given = {"b": np.ones((2, 4), "float32"), "c": np.zeros((2, 4), "float32")}
    more = {"a": np.full((2, 4), 9, "float32"), **given}
    expected = net.predict(given, verbose=0)
    np.testing.assert_array_equal(net.predict(more, verbose=0), expected)


def test_inputs_without_one_of_their_names():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    block = ks.ChoiceBlock([layers.Dense(3), layers.Dense(3)])
    net = ks.Supernet({"a": a, "b": b}, block(layers.Add()([a, b])))
    with pytest.raises(ValueError, match=r"a dict without \['b'\]"):
        net.predict({"a": np.ones((2, 4), "float32")}, verbose=0)


def test_arguments_of_searches():
    space = small_net().space

    def score(paths):
        return np.zeros(len(paths))

    with pytest.raises(ValueError, match="search.Objective"):
        search.nsga2(space, score, minimize=[score])
    with pytest.raises(ValueError, match="crossover=20, mutation=0, population=10"):
        search.evolve(space, score, crossover=20, population=10)


def test_a_table_of_ones_own_gives_finite_costs():
    class Unmeasured:
        """What a search takes for a table, and is none."""

        name, unit, space = "energy", "J", small_net().space

        def __call__(self, paths):
            return np.full(len(paths), np.nan)

        def reachable_range(self):
            return 0.0, 1.0

        def to_dict(self):
            return {"name": self.name}

    def score(paths):
        raise AssertionError("Costs are looked at first.")

    few = {"population": 4, "generations": 1, "topk": 2, "verbose": False}
    table = Unmeasured()
    for run in (
        lambda: search.nsga2(table.space, score, [table], **few),
        lambda: search.evolve(table.space, score, costs=[table], **few),
    ):
        with pytest.raises(ValueError, match="energy returns finite numbers"):
            run()


class Noise(layers.Layer):
    """Draws random numbers that no seed generator of its own makes."""

    def call(self, x):
        return x + keras.random.normal(ops.shape(x))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.GRU(3, stateful=True, return_sequences=True),
        lambda: layers.SpectralNormalization(layers.Dense(3)),
        pytest.param(
            Noise,
            marks=pytest.mark.skipif(
                keras.backend.backend() == "jax", reason="Keras itself refuses it"
            ),
        ),
    ],
    ids=["states", "trainable", "random"],
)
@pytest.mark.parametrize("where", ["fixed", "option"])
def test_layers_that_assign_what_a_step_would_lose(layer, where):
    layer = layer()
    options = [layers.Dense(3) if where == "fixed" else layer, layers.Dense(3)]
    x = inputs = keras.Input(batch_shape=(2, 5, 3))
    if where == "fixed":
        x = layer(x)
    net = ks.Supernet(inputs, ks.ChoiceBlock(options, "ab")(x))
    net.sampler = FromList([(0,)])
    net.compile("sgd", "mse")
    x = np.ones((2, 5, 3), "float32")
    with pytest.raises(ValueError, match=f"would lose .* among .*{layer.name}"):
        net.train_on_batch(x, x)


def test_other_backends(monkeypatch):
    net = small_net()
    net.compile("sgd", cross_entropy())
    x, y = data(4)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    for run in (net.fit, net.evaluate, lambda x, y: net.predict(x)):
        with pytest.raises(ValueError, match="tensorflow or jax. Received: 'torch'"):
            run(x, y)
