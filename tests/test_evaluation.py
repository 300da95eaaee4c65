"""An Evaluator scores paths on fixed data, once each, and leaves the net alone."""

import keras
import numpy as np
import pytest
from models import (
    CLASSES,
    SHAPE,
    cross_entropy,
    data,
    randomize,
    small_net,
    values,
)

from keras_spos import ChoiceBlock, Evaluator, Supernet, recalibrate
from keras_spos.recalibration import State

IMAGES, _ = data(12, seed=1)
X, Y = data(20, seed=2)
# Images that differ as a whole, for outputs that differ.
X = X * np.linspace(0.1, 3, 20)[:, None, None, None].astype("float32")


@pytest.fixture(scope="module")
def net():
    net = randomize(small_net())
    # Outputs around zero: not every image is of one class.
    net.set_path((0, 3))
    mean = net.predict(X, verbose=0).mean(0)
    net.get_layer("classifier").bias.assign_sub(mean)
    net.compile(keras.optimizers.SGD(0.1), cross_entropy(), metrics=["accuracy"])
    net.set_path((1, 1))
    return net


@pytest.fixture(scope="module")
def paths(net):
    return net.space.sample(8, seed=0)


@pytest.fixture(scope="module")
def outputs(net, paths):
    """Outputs of the recalibrated stock model of each path."""
    return [call(recalibrate(net.extract(path), IMAGES)) for path in paths]


def call(model):
    return keras.ops.convert_to_numpy(model(X, training=False))


def counted(score):
    """Paths that an evaluator runs, from here on."""
    runs = []
    run = score._run
    score._run = lambda paths: runs.extend(paths) or run(paths)
    return runs


def test_accuracy_is_that_of_recalibrated_stock_models(net, paths, outputs):
    scores = Evaluator(net, IMAGES, (X, Y))(paths)
    assert scores.shape == (8,)
    np.testing.assert_allclose(scores, [np.mean(o.argmax(1) == Y) for o in outputs])
    assert len(set(scores.tolist())) > 1


def test_predictions_and_extracted_models_are_those_scored(net, paths, outputs):
    score = Evaluator(net, IMAGES, (X, Y))
    for path, expected in list(zip(paths, outputs, strict=True))[:3]:
        np.testing.assert_allclose(score.predict(path), expected, 1e-4, 1e-5)
        np.testing.assert_allclose(call(score.extract(path)), expected, 1e-4, 1e-5)


@pytest.mark.parametrize(
    "options", [{"batch_size": 7}, {"memory": 1}, {"batch_size": 1}]
)
def test_sharing_and_batches_change_nothing(net, paths, options):
    plain = Evaluator(net, IMAGES, (X, Y), metric="loss")
    other = Evaluator(
        net, IMAGES, (X, Y), metric="loss", calibration_batch_size=12, **options
    )
    assert other._share == ("memory" not in options)
    np.testing.assert_allclose(other(paths), plain(paths), 1e-5)
    for path in paths[:2]:
        a, b = plain.statistics(path), other.statistics(path)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], 1e-5, 1e-6)


def test_what_paths_have_in_common_is_computed_once(net, monkeypatch):
    run, advance = [], State.advance

    def counted(state, engine, step, units):
        run.append(step)
        advance(state, engine, step, units)

    monkeypatch.setattr(State, "advance", counted)
    paths = [(2, 3), (0, 1), (1, 0), (0, 0), (1, 3), (0, 3)]
    Evaluator(net, IMAGES, (X, Y))(paths)
    # The stem, three first blocks, and a second one and a head for each path.
    assert len(run) == 1 + 3 + 6 + 6


def test_memory_is_for_the_largest_tensors(net):
    def score(memory):
        return Evaluator(net, IMAGES, (X, Y), memory=memory)

    # 6 x 6 x 4 numbers of 4 bytes for each of 12 and 20 images, four times.
    image = 4 * 6 * 6 * 4 * 4
    assert score(image * 32)._share and not score(image * 32 - 1)._share
    sizes = [[len(x) for x in score(m)._calibration] for m in (image * 5, 1)]
    assert sizes == [[5, 5, 2], [1] * 12]


def test_metrics(net, paths, outputs):
    def scores(metric, labels=Y):
        return Evaluator(net, IMAGES, (X, labels), metric=metric)(paths)

    def cross_entropies():
        for o in outputs:
            logs = o - np.log(np.exp(o).sum(1, keepdims=True))
            yield np.mean(logs[np.arange(20), Y])

    np.testing.assert_allclose(scores("loss"), list(cross_entropies()), 1e-4)
    assert scores("top5").tolist() == [1.0] * 8  # Of four classes.
    top2 = [
        np.mean([y in np.argsort(r)[-2:] for r, y in zip(o, Y, strict=True)])
        for o in outputs
    ]
    metric = keras.metrics.SparseTopKCategoricalAccuracy(2)
    np.testing.assert_allclose(scores(metric), top2, 1e-6)
    one_hot = np.eye(CLASSES, dtype="float32")[Y]
    np.testing.assert_array_equal(scores("accuracy", one_hot), scores("accuracy"))


def test_identities_tell_what_scores_depend_on(net):
    def score(**options):
        return Evaluator(net, IMAGES, (X, Y), **options)

    different = [
        score(),
        score(metric="top5"),
        score(metric="loss"),
        score(metric=keras.metrics.SparseTopKCategoricalAccuracy(2)),
        score(metric=keras.metrics.SparseTopKCategoricalAccuracy(3)),
        score(recalibrate=False),
        score(calibration_batch_size=5),
        score(preprocess=lambda x: 2 * x),
    ]
    assert len({s.identity() for s in different}) == len(different)
    assert score(batch_size=3, memory=1e9).identity() == score().identity()


def test_validation_may_be_a_dataset(net, paths):
    # What stands behind the labels, such as weights, is not read.
    batches = [(X[:9], Y[:9]), (X[9:], Y[9:], np.zeros(len(Y) - 9))]
    expected = Evaluator(net, IMAGES, (X, Y))(paths)
    np.testing.assert_array_equal(Evaluator(net, IMAGES, batches)(paths), expected)


@pytest.mark.parametrize("memory", [4e9, 1])
def test_several_outputs_are_scored_by_a_function(net, paths, outputs, memory):
    features = net.get_layer("pool").output
    size = keras.layers.Dense(1, name="size")(features)
    two = Supernet(net.input, {"kind": net.output, "size": size}, name="two")
    labels = {"kind": Y, "size": np.linspace(-1, 1, 20)[:, None]}

    def both(labels, outputs):
        right = np.mean(outputs["kind"].argmax(-1) == labels["kind"])
        return right - np.mean(np.abs(outputs["size"] - labels["size"]))

    def score(validation, metric=both, **arguments):
        return Evaluator(two, IMAGES, validation, metric, memory=memory, **arguments)

    expected = []
    for path, kinds in zip(paths[:3], outputs, strict=False):
        model = recalibrate(two.extract(path), IMAGES)
        given = keras.tree.map_structure(keras.ops.convert_to_numpy, model(X))
        np.testing.assert_allclose(given["kind"], kinds, 1e-4, 1e-4)
        expected.append(both(labels, given))
    if memory > 1:
        np.testing.assert_allclose(score((X, labels))(paths[:3]), expected, 1e-4)
    batches = [
        (X[part], {name: values[part] for name, values in labels.items()})
        for part in (slice(0, 9), slice(9, 20))
    ]
    scores = score(batches, calibration_batch_size=12)(paths[:3])
    np.testing.assert_allclose(scores, expected, 1e-4)
    # What is scored is known by all labels.
    other = {**labels, "size": labels["size"] + 1}
    assert score((X, labels)).identity() != score((X, other)).identity()
    for wrong in ("accuracy", keras.metrics.Accuracy(), keras.metrics.Accuracy, None):
        with pytest.raises(ValueError, match=r"Of several outputs \(2\)"):
            score((X, labels), wrong)
    for name in labels:
        with pytest.raises(ValueError, match="20 images, 19 labels"):
            score((X, {**labels, name: labels[name][:19]}))
    with pytest.raises(ValueError, match=r"return a number.*shape \(20,\)"):
        score((X, labels), lambda labels, outputs: np.ones(20))(paths[0])


@pytest.mark.parametrize("memory", [4e9, 1])
@pytest.mark.parametrize("several", [False, True])
def test_the_loss_of_probabilities_near_zero_is_that_of_evaluate(several, memory):
    """Keras takes it from the logits on TensorFlow, and clips it at 16 on JAX."""
    inputs = keras.Input((2,))
    options = [keras.layers.Dense(3, kernel_initializer="ones") for _ in range(2)]
    x = ChoiceBlock(options)(inputs)
    b = keras.layers.Softmax(name="b")(50.0 * x * np.arange(3, dtype="float32"))
    outputs = {"b": b, "a": keras.layers.Dense(1, "sigmoid", name="a")(x)}
    net = Supernet(inputs, outputs if several else b)
    loss = {"b": "sparse_categorical_crossentropy", "a": "binary_crossentropy"}
    net.compile("sgd", loss if several else loss["b"])
    x = np.ones((3, 2), "float32")
    labels = {"b": np.array([0, 1, 2]), "a": np.array([[0], [1], [1]])}
    labels = labels if several else labels["b"]
    score = Evaluator(
        net, None, (x, labels), "loss", 2, recalibrate=False, memory=memory
    )
    expected = net.evaluate(x, labels, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(-score((0,)), [expected], rtol=1e-6)


@pytest.mark.parametrize("kind", [dict, list])
def test_the_loss_of_several_outputs_is_that_of_evaluate(net, paths, kind):
    size = keras.layers.Dense(1, name="size")(net.get_layer("pool").output)
    kinds = keras.layers.Activation("linear", name="kind")(net.output)
    names, labels = ("kind", "size"), [Y, np.linspace(-1, 1, 20)[:, None]]

    def each(values):
        return dict(zip(names, values, strict=True)) if kind is dict else values

    two = Supernet(net.input, each([kinds, size]), name="two")
    score = Evaluator(two, None, (X, each(labels)), "loss", recalibrate=False)
    with pytest.raises(ValueError, match="compiled supernet. Received: loss=None"):
        score(paths[0])
    identities, before = {score.identity()}, net.path
    for weights in (None, [1.0, 0.25]):
        weights = weights and each(weights)
        two.compile("sgd", each([cross_entropy(), "mae"]), loss_weights=weights)
        for path in paths[:2]:
            two.set_path(path)
            loss = two.evaluate(X, each(labels), verbose=0, return_dict=True)["loss"]
            np.testing.assert_allclose(score(path), -loss, 1e-5)
        identities.add(score.identity())
    net.set_path(before)
    assert len(identities) == 3


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_one_output_may_be_in_a_dict_or_a_list(net, paths, metric):
    net.compile("sgd", cross_entropy())
    expected = Evaluator(net, IMAGES, (X, Y), metric)(paths[:2])
    for outputs, labels in (({"kind": net.output}, {"kind": Y}), ([net.output], Y)):
        other = Supernet(net.input, outputs)
        other.compile("sgd", cross_entropy())
        scores = Evaluator(other, IMAGES, (X, labels), metric)(paths[:2])
        np.testing.assert_array_equal(scores, expected)


def test_without_recalibration_it_is_evaluate(net, paths):
    score = Evaluator(net, None, (X, Y), recalibrate=False)
    before = net.path
    for path in paths[:3]:
        net.set_path(path)
        assert score(path)[0] == pytest.approx(net.evaluate(X, Y, verbose=0)[1])
    net.set_path(before)


@pytest.mark.parametrize("memory", [4e9, 1])
def test_the_supernet_is_not_changed(net, paths, memory):
    score = Evaluator(net, IMAGES, (X, Y), memory=memory)
    everything = [*net.variables, *net.optimizer.variables, *net.metrics_variables]
    before = values(everything)
    score(paths)
    score.extract(paths[0])
    for variable, a, b in zip(everything, before, values(everything), strict=True):
        np.testing.assert_array_equal(a, b, variable.path)
    assert net.path == (1, 1)


def test_each_path_is_run_once(net, paths):
    score = Evaluator(net, IMAGES, (X, Y))
    runs = counted(score)
    first = score([*paths, *paths[::-1]])
    np.testing.assert_array_equal(first[:8], first[:7:-1])
    score(paths[3])
    net.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(score(paths), first[:8])
    assert sorted(runs) == sorted({tuple(p) for p in paths.tolist()})


def test_training_makes_the_cache_stale():
    net = randomize(small_net(blocks=1))
    net.compile(keras.optimizers.SGD(0.5), cross_entropy())
    score = Evaluator(net, IMAGES, (X, Y), metric="loss")
    runs = counted(score)
    before = score((0,))
    net.fit(X, Y, verbose=0)
    after = score((0,))
    assert before != after and runs == [(0,)] * 2
    fresh = Evaluator(net, IMAGES, (X, Y), metric="loss")
    np.testing.assert_array_equal(fresh((0,)), after)
    # Weights that do not train count as well.
    net.trainable = False
    score((0,))
    net.get_layer("classifier").bias.assign([9.0, 0.0, 0.0, 0.0])
    biased = score((0,))
    assert biased != after
    net.get_layer("stem_norm").beta.assign([9.0, 0.0, 0.0, 0.0])
    assert score((0,)) != biased


def test_freezing_batch_norms_makes_the_cache_stale():
    net = randomize(small_net(blocks=1))
    net.compile(keras.optimizers.SGD(0.5), cross_entropy())
    score = Evaluator(net, IMAGES, (X, Y), metric="loss")
    before, identity = score((0,)), score.identity()
    for layer in net._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    net.compile(keras.optimizers.SGD(0.5), cross_entropy())
    fresh = Evaluator(net, IMAGES, (X, Y), metric="loss")((0,))
    assert score((0,)) == fresh != before
    assert score.identity() != identity


def test_bad_data(net):
    wrong = np.zeros((4, 5, 5, 3), "float32")
    message = r"Expected {} images of shape \(6, 6, 3\). Received: \(5, 5, 3\)"
    with pytest.raises(ValueError, match=message.format("calibration")):
        Evaluator(net, wrong, (X, Y))
    with pytest.raises(ValueError, match=message.format("validation")):
        Evaluator(net, IMAGES, (wrong, np.zeros(4)))
    with pytest.raises(ValueError, match="20 images, 1 labels"):
        Evaluator(net, IMAGES, (X, Y[:1]))
    with pytest.raises(ValueError, match=r"of one dimension less.*Received.*\(20, 3\)"):
        Evaluator(net, IMAGES, (X, np.zeros((20, 3))))
    with pytest.raises(ValueError, match="two arrays.*Received: a batch of ndarray"):
        Evaluator(net, IMAGES, [X])
    with pytest.raises(ValueError, match="acuracy"):
        Evaluator(net, IMAGES, (X, Y), metric=("top5", "acuracy"))
    with pytest.raises(ValueError, match="batch_size >= 1. Received: 0"):
        Evaluator(net, IMAGES, (X, Y), batch_size=0)
    with pytest.raises(ValueError, match="needs validation images. Received: none"):
        Evaluator(net, IMAGES, (np.zeros((0, *SHAPE)), np.zeros(0)))
    with pytest.raises(ValueError, match="one choice per decision"):
        Evaluator(net, IMAGES, (X, Y))((0, 0, 0))


def test_needs_no_compilation():
    net = randomize(small_net(blocks=1))
    assert 0 <= Evaluator(net, IMAGES, (X, Y))((2,))[0] <= 1
