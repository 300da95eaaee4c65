"""Checkpoints of other trainings are refused, those of the same go on."""

import keras
import numpy as np
import pytest
from keras import layers
from models import cross_entropy, dense_net, randomize, values
from models import data as small_data
from trainings import EPOCHS, begin, early_stopping, stock

import keras_spos as ks


def sparse():
    return keras.losses.SparseCategoricalCrossentropy()


def dense_supernet(units=5, labels=("a", "b"), seed=3, sampler=None):
    x = inputs = keras.Input((3,))
    options = [layers.Dense(units) for _ in labels]
    x = ks.ChoiceBlock(options, labels=labels, name="block")(x)
    return ks.Supernet(inputs, x, seed=seed, sampler=sampler)


def test_checkpoints_of_other_trainings_are_refused(tmp_path):
    begin(dense_supernet(), tmp_path / "supernet")
    begin(stock(), tmp_path / "stock")
    sgd = keras.optimizers.SGD
    cases = [
        (dense_supernet(seed=4), "seed: 3 there, 4 here"),
        (dense_supernet(6), "variables, number 1, number 1.*5.* there.*6.* here"),
        (dense_supernet(labels="abc"), "search space.*2 entries there, 3 entries"),
        (dense_supernet(labels="ax"), 'options, number 1: "b" there, "x" here'),
        (dense_supernet(sampler=ks.FairSampler()), 'sampler, .*"Unif.*"Fair'),
        (stock(), "search space: .* there, null here"),
        (stock(6), "variables, number 0.*5.* there.*6.* here", {}),
        (stock(noise=layers.GaussianDropout), 'layers.*"Drop.*"GaussianDrop', {}),
        (dense_supernet(), "search space: null there", {}),
        (stock(), "momentum: 0.9 there, 0.8", {"optimizer": sgd(0.1, 0.8)}),
        (stock(), "learning rate: 0.1.* there, 0.2", {"optimizer": sgd(0.2, 0.9)}),
        (stock(), "SGD.* there, .*Adam", {"optimizer": "adam"}),
        (stock(), "steps_per_execution: 1 there, 2", {"steps_per_execution": 2}),
        (stock(), "from_logits: true there, false here", {"loss": sparse()}),
        (stock(), 'Sparse.* there, "mse" here', {"loss": "mse"}),
        (stock(), "there, .*lambda.* here", {"loss": lambda y, p: p[:, 0]}),
        (stock(), "loss weights: null there, 2.0 here", {"loss_weights": 2.0}),
    ]
    for model, message, *compiled in cases:
        name = "stock" if compiled else "supernet"
        with pytest.raises(ValueError, match=f"another training.*{message}"):
            begin(model, tmp_path / name, *compiled)
    # The numbers in Keras' automatic names are no difference.
    begin(dense_supernet(), tmp_path / "supernet")
    begin(stock(), tmp_path / "stock")


class Own(keras.losses.Loss):
    """A loss of one's own, that cannot be saved."""

    def get_config(self):
        raise NotImplementedError

    def call(self, y_true, y_pred):
        return keras.ops.mean(y_pred, axis=-1)


@pytest.mark.parametrize(
    "loss, other",
    [
        ("mse", "mae"),
        (keras.losses.mean_squared_error, keras.losses.mean_absolute_error),
        (keras.losses.Huber(0.5), keras.losses.Huber(0.6)),
        (Own(), "mse"),
        ({"a": "mse", "b": Own()}, {"a": "mse", "b": "mse"}),
        (["mse", lambda y, p: p[:, 0]], ["mae", lambda y, p: p[:, 0]]),
    ],
)
def test_every_kind_of_loss_goes_on_with_itself_alone(tmp_path, loss, other):
    def model():
        x = keras.Input((3,))
        if not isinstance(loss, (dict, list)):
            return keras.Model(x, layers.Dense(2)(x))
        outputs = [layers.Dense(2, name=name)(x) for name in "ab"]
        return keras.Model(x, dict(zip("ab", outputs, strict=True)))

    begin(model(), tmp_path, {"loss": loss})
    begin(model(), tmp_path, {"loss": loss})
    with pytest.raises(ValueError, match="another training.* loss"):
        begin(model(), tmp_path, {"loss": other})


def test_checkpoints_of_earlier_versions_go_on(tmp_path):
    """Without a loss and what callbacks remember."""
    resume = begin(stock(), tmp_path)
    groups, data = resume._folder.read()
    for name in ("beside", "stopped"):
        del data[name]
    for name in ("loss", "loss weights"):
        del data["identity"][name]
    data.pop("file")
    resume._folder.write(data.pop("epoch"), data.pop("batch"), groups, data)
    begin(stock(), tmp_path, {"loss": "mse"})


def test_a_checkpoint_within_an_epoch_that_is_not_asked_for(tmp_path):
    folder = begin(stock(), tmp_path)._folder
    folder.write(EPOCHS, 1, *folder.read())
    with pytest.raises(ValueError, match=f"more than the {EPOCHS} epochs"):
        begin(stock(), tmp_path)


def test_a_changed_learning_rate_goes_on(tmp_path):
    model = stock()
    begin(model, tmp_path)
    model.optimizer.learning_rate = 0.01
    resume = ks.callbacks.Resume(tmp_path)
    resume.set_model(model)
    resume.set_params({"epochs": EPOCHS})
    with pytest.raises(ValueError, match="learning rate"):
        resume.on_train_begin()
    first = begin(model, tmp_path)
    model.optimizer.learning_rate = 0.01
    first.on_epoch_end(0)
    # In the same process with the rate that it has come to, in another with its first.
    resume.on_train_begin()
    resume.on_epoch_end(1)
    begin(stock(), tmp_path)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_half_precision(tmp_path, mixed_precision, policy):
    mixed_precision(policy)
    model, other = randomize(stock()), stock()
    begin(model, tmp_path, {"optimizer": "adam"})
    begin(other, tmp_path, {"optimizer": "adam"})
    for get in (lambda m: m.variables, lambda m: m.optimizer.variables):
        for a, b in zip(values(get(model)), values(get(other)), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_what_is_refused(tmp_path):
    resume, sampled = ks.callbacks.Resume, ks.callbacks.SampledAccuracy
    for message, options in {
        "keep >= 1": {"keep": 0},
        "a number of batches": {"save_freq": "batch"},
        "method set_epoch": {"data": np.zeros(3)},
        "get_state.. and set_state.*'EarlyStopping'": {"also": [early_stopping()]},
    }.items():
        with pytest.raises(ValueError, match=message):
            resume(tmp_path, **options)
    with pytest.raises(ValueError, match="has no weights yet"):
        begin(keras.Sequential([layers.Dense(2)]), tmp_path)
    net, (x, y) = dense_net(), small_data(4, (3,))
    score = ks.Evaluator(net, x, (x, y))
    several = ks.Evaluator(net, x, (x, y), metric=("accuracy", "top5"))
    for kind in (sampled, ks.callbacks.SampledTau):
        with pytest.raises(ValueError, match="of one metric. Received: .*'top5'"):
            kind(several)
    with pytest.raises(ValueError, match="every >= 1"):
        sampled(score, every=0)
    with pytest.raises(ValueError, match="at least one path"):
        sampled(score, paths=0)
    other = dense_net()
    other.compile("sgd", cross_entropy())
    with pytest.raises(ValueError, match="not the model that is trained"):
        other.fit(x, y, verbose=0, callbacks=[sampled(score)])
    net.compile("sgd", cross_entropy())
    late = [resume(tmp_path), sampled(score)]
    with pytest.raises(ValueError, match="last in the list.*sampled_accuracy_max"):
        net.fit(x, y, epochs=2, verbose=0, callbacks=late)
