"""Killed and resumed equals never killed: weights, optimizer, statistics and logs."""

import os
import random
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from models import convolution, cross_entropy, dense_net, randomize, values
from models import data as small_data

import keras_spos as ks
from keras_spos import data
from keras_spos.callbacks.checkpoints import Folder
from keras_spos.data.sets import ArrayData

EPOCHS, STEPS, BATCH = 3, 5, 4
X = np.random.default_rng(0).integers(0, 256, (STEPS * BATCH + 1, 8, 8, 3), np.uint8)
Y = np.arange(len(X)) % 4


def supernet():
    """Three choice blocks on 8 x 8 images, with dropout."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    for i in range(3):
        options = [convolution(f"b{i}_k{k}", k) for k in (1, 3)]
        x = ks.ChoiceBlock(options, labels=("k1", "k3"))(x)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return ks.Supernet(inputs, layers.Dense(4)(x), seed=3)


def stock(units=5):
    """A small model of stock layers, with dropout and a batch norm."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Dense(units, activation="relu")(layers.Flatten()(x))
    x = layers.BatchNormalization()(layers.Dropout(0.5)(x))
    return keras.Model(inputs, layers.Dense(4)(layers.Dropout(0.2)(x)))


class Stop(keras.callbacks.Callback):
    """Ends training after a number of steps, by an exception or a signal."""

    def __init__(self, steps, kill=False):
        super().__init__()
        self.steps = steps
        self.kill = kill

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt


def fit(model, directory=None, stop=None, epochs=EPOCHS, optimizer=None, **options):
    """The command that is killed and run again.

    Returns:
        The history, and all that training changes.
    """
    train = data.training(ArrayData(X, Y), BATCH, seed=5, augment=None)
    if not model.compiled:
        schedule = keras.optimizers.schedules.CosineDecay(0.1, EPOCHS * STEPS)
        model.compile(
            optimizer or keras.optimizers.SGD(schedule, momentum=0.9),
            cross_entropy(),
            metrics=["accuracy"],
        )
    resume = ks.callbacks.Resume(directory, data=train, **options)
    callbacks = [Stop(*stop), resume] if stop else [resume]
    validation = (X[:8] / np.float32(255), Y[:8])
    history = model.fit(
        train,
        epochs=epochs,
        validation_data=validation,
        verbose=0,
        callbacks=callbacks,
    )
    assert resume.history == history.history
    assert history.epoch == list(range(epochs))
    return history.history, values([*model.variables, *model.optimizer.variables])


def assert_same(one, other):
    assert one[0] == other[0]
    assert len(one[1]) == len(other[1])
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


def build_and_kill(directory, steps):
    """What the test below runs in a process of its own."""
    keras.utils.set_random_seed(7)
    fit(supernet(), directory, (int(steps), True))


def test_a_killed_supernet(tmp_path):
    """SIGKILL at a random step, then the same command: equal to the bit."""
    steps = random.SystemRandom().randint(1, EPOCHS * STEPS)
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, conftest, test_resume; "
            "test_resume.build_and_kill(*sys.argv[1:])",
            str(tmp_path / "killed"),
            str(steps),
        ],
        cwd=os.path.dirname(os.path.abspath(__file__)),
        env={
            **os.environ,
            "PYTHONPATH": os.path.dirname(os.path.dirname(ks.__file__)),
        },
    )
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path / "killed")
    results = []
    for name in ("killed", "never"):
        # After a kill nothing may depend on what the seeds were at the start.
        keras.utils.set_random_seed(8 if name == "killed" else 7)
        results.append(fit(supernet(), tmp_path / name))
    print(f"Killed after {steps} steps.")  # pytest shows it if this fails.
    assert_same(*results)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished training of the stock model: its folder, and how it ended."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, fit(stock(), folder)


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished[0], tmp_path / "copy")


@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_a_stopped_stock_model(tmp_path, finished, save_freq):
    """Dropout's seeds and the metrics of the epoch go on as well."""
    # In the second epoch, twice, and in the third; skipped batches count as steps.
    for steps in (STEPS + 3, STEPS, STEPS + 2):
        with pytest.raises(KeyboardInterrupt):
            fit(stock(), tmp_path, (steps,), save_freq=save_freq)
    middle = [] if save_freq == "epoch" else ["epoch_00001_batch_00000004.npz"]
    assert middle == [n for n in names(tmp_path) if "batch_00000000" not in n]
    assert_same(fit(stock(), tmp_path, save_freq=save_freq), finished[1])


def names(folder):
    return sorted(os.listdir(folder))


def test_a_finished_training_returns_at_once(folder, finished):
    before = names(folder)
    assert before == [f"epoch_0000{e}_batch_00000000.npz" for e in (2, 3)]
    assert_same(fit(stock(), folder, stop=(1,)), finished[1])
    assert names(folder) == before
    history, _ = fit(stock(), folder, epochs=EPOCHS + 1, keep=1)
    assert history["loss"][:EPOCHS] == finished[1][0]["loss"]
    assert names(folder) == ["epoch_00004_batch_00000000.npz"]
    with pytest.raises(ValueError, match="more than the 3 epochs"):
        fit(stock(), folder)


def test_a_damaged_checkpoint_is_passed_over(folder, finished):
    old, new = names(folder)
    with open(folder / new, "r+b") as file:
        file.truncate(os.path.getsize(folder / new) // 2)
    with pytest.warns(UserWarning, match=f"damaged .* {new} .* goes on from {old}"):
        result = fit(stock(), folder)
    assert_same(result, finished[1])
    for name in names(folder):
        (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match="No checkpoint .* can be read.*remove these"):
        fit(stock(), folder)


def test_every_changed_byte_is_noticed(tmp_path):
    arrays = {"model": [np.arange(5.0), np.zeros((0, 2)), np.array(7)]}
    folder = Folder(tmp_path, keep=1)
    folder.write(1, 0, arrays, {"logs": [{"loss": 0.1}]})
    (path,) = tmp_path.iterdir()
    intact = path.read_bytes()
    noticed = 0
    for position in range(0, len(intact), 3):
        changed = bytearray(intact)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            groups, found = folder.read()
        except ValueError:
            noticed += 1
            continue
        # Some bytes mean nothing, such as a member's date.
        assert found["logs"] == [{"loss": 0.1}]
        for a, b in zip(groups["model"], arrays["model"], strict=True):
            np.testing.assert_array_equal(a, b)
    assert noticed > len(intact) / 6


def test_a_kill_while_writing(folder, monkeypatch):
    """What is half written is not read, and cleared away."""

    def kill(source, target):
        raise KeyboardInterrupt

    before = names(folder)
    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        Folder(folder, keep=2).write(9, 0, {"model": []}, {})
    assert names(folder) == [*before, "epoch_00009_batch_00000000.npz.tmp"]
    Folder(folder, keep=2)
    assert names(folder) == before


def begin(model, folder, compiled=None, **options):
    """The beginning of `fit`, without the rest."""
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(
        **{"optimizer": optimizer, "loss": cross_entropy()} | (compiled or {})
    )
    resume = ks.callbacks.Resume(folder, **options)
    resume.set_model(model)
    resume.set_params({"epochs": EPOCHS})
    resume.on_train_begin()
    return resume


def sparse():
    return keras.losses.SparseCategoricalCrossentropy()


def dense_supernet(units=5, labels=("a", "b"), seed=3):
    x = inputs = keras.Input((3,))
    options = [layers.Dense(units) for _ in labels]
    x = ks.ChoiceBlock(options, labels=labels, name="block")(x)
    return ks.Supernet(inputs, x, seed=seed)


def test_checkpoints_of_other_trainings_are_refused(tmp_path):
    begin(dense_supernet(), tmp_path / "supernet")
    begin(stock(), tmp_path / "stock")
    sgd = keras.optimizers.SGD
    cases = [
        (dense_supernet(seed=4), "seed: 3 there, 4 here"),
        (dense_supernet(6), "variables, number 1, number 1.*5.* there.*6.* here"),
        (dense_supernet(labels="abc"), "search space.*2 entries there, 3 entries"),
        (dense_supernet(labels="ax"), 'options, number 1: "b" there, "x" here'),
        (stock(), "search space: .* there, null here"),
        (stock(6), "variables, number 0.*5.* there.*6.* here", {}),
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


class Log(keras.callbacks.Callback):
    """Adds a value to the logs of each epoch."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def on_epoch_end(self, epoch, logs=None):
        logs["extra"] = self.value


@pytest.mark.parametrize(
    "value, stored",
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int64(2), 2),
        (np.arange(3), [0, 1, 2]),
        (keras.ops.ones((2,)), [1.0, 1.0]),
        ("text", "text"),
    ],
)
def test_logs_that_are_no_python_numbers(tmp_path, value, stored):
    def run(epochs):
        callbacks = [Log(value), ks.callbacks.Resume(tmp_path)]
        return small_fit(dense_net(), callbacks, epochs)

    assert run(1)["extra"] == [stored]
    assert run(2)["extra"] == [stored] * 2


def test_logs_that_cannot_be_saved(tmp_path):
    callbacks = [Log(object()), ks.callbacks.Resume(tmp_path)]
    with pytest.raises(TypeError, match="numbers, texts or arrays.*Received: <object"):
        small_fit(dense_net(), callbacks, 1)


def small_fit(net, callbacks, epochs):
    net.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True), cross_entropy())
    x, y = small_data(12, (3,))
    options = {"batch_size": 4, "shuffle": False, "epochs": epochs, "verbose": 0}
    options["validation_data"] = small_data(4, (3,), seed=1)
    return net.fit(x, y, callbacks=callbacks, **options).history


def early_stopping(**options):
    """Nothing is an improvement: the best epoch is the first."""
    options = {"monitor": "loss", "mode": "max", "min_delta": 100, **options}
    return keras.callbacks.EarlyStopping(**options)


def reduce_on_plateau(**options):
    options = {"monitor": "loss", "mode": "max", "min_delta": 100, **options}
    return keras.callbacks.ReduceLROnPlateau(factor=0.5, **options)


def beside(folder, callbacks, epochs=6, stop=None, net=None, **options):
    """Trains the smallest net with some callbacks beside `Resume`."""
    keras.utils.set_random_seed(1)
    net = net or dense_net()
    callbacks = [*callbacks, ks.callbacks.Resume(folder, **options)]
    if stop:
        callbacks.insert(0, Stop(stop))
    history = small_fit(net, callbacks, epochs)
    return history, values([*net.variables, *net.optimizer.variables])


@pytest.mark.parametrize(
    "make, length",
    [
        (lambda: [early_stopping(patience=3)], 4),
        (lambda: [early_stopping(patience=3, restore_best_weights=True)], 4),
        (lambda: [reduce_on_plateau(patience=2, cooldown=1)], 6),
        (lambda: [reduce_on_plateau(patience=2), early_stopping(patience=4)], 5),
        (lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)], 6),
    ],
)
def test_what_other_callbacks_remember_goes_on(tmp_path, make, length):
    never = beside(tmp_path / "never", make())
    assert len(never[0]["loss"]) == length
    # Killed within the second, third and fourth epoch, which starts anew each time.
    for stop in (5, 5, 4):
        with pytest.raises(KeyboardInterrupt):
            beside(tmp_path / "stopped", make(), stop=stop)
    assert_same(beside(tmp_path / "stopped", make()), never)
    # Whether stopped early or not, it is finished.
    assert_same(beside(tmp_path / "stopped", make(), stop=1), never)
    if length < 6:
        assert_same(beside(tmp_path / "stopped", make(), epochs=9), never)


def test_what_another_callback_stopped_goes_on(tmp_path):
    class StopAt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    for runs in (1, 2):
        history, _ = beside(tmp_path, [StopAt()], save_freq=1)
        assert len(history["loss"]) == runs
    assert not [name for name in names(tmp_path) if "batch_00000002" in name]


def test_the_best_model_is_not_overwritten_by_a_worse_one(tmp_path):
    def checkpoint():
        return keras.callbacks.ModelCheckpoint(
            tmp_path / "best.weights.h5",
            monitor="loss",
            mode="max",
            save_best_only=True,
            save_weights_only=True,
        )

    with pytest.raises(KeyboardInterrupt):
        beside(tmp_path / "run", [checkpoint()], stop=5)
    best = (tmp_path / "best.weights.h5").read_bytes()
    history, _ = beside(tmp_path / "run", [checkpoint()])
    assert max(history["loss"]) == history["loss"][0]
    assert (tmp_path / "best.weights.h5").read_bytes() == best


def test_inside_another_callback(tmp_path):
    class Around(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.resume = ks.callbacks.Resume(tmp_path)

        def __getattribute__(self, name):
            own = name.startswith("_") or name == "resume"
            return super().__getattribute__(name) if own else getattr(self.resume, name)

    history, _ = beside(tmp_path / "other", [Around()], epochs=2)
    assert len(history["loss"]) == 2 and names(tmp_path)


def test_other_callbacks_beside_it_are_refused(tmp_path):
    beside(tmp_path, [early_stopping(patience=5)], epochs=1)
    with pytest.raises(ValueError, match=r"\['EarlyStopping'\]. Received: \[\]. Use"):
        beside(tmp_path, [])
    late = [ks.callbacks.Resume(tmp_path / "new"), early_stopping()]
    with pytest.raises(ValueError, match=r"to be last .*\['EarlyStopping'\] after"):
        small_fit(dense_net(), late, 2)


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


def test_a_changed_learning_rate_goes_on(tmp_path):
    model = stock()
    begin(model, tmp_path)
    model.optimizer.learning_rate = 0.01
    resume = ks.callbacks.Resume(tmp_path)
    resume.set_model(model)
    resume.set_params({"epochs": EPOCHS})
    with pytest.raises(ValueError, match="learning rate"):
        resume.on_train_begin()
    begin(model, tmp_path)


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


def scored(folder, stop=None, paths=3):
    """Trains the smallest net with sampled accuracies; returns all that is logged."""
    keras.utils.set_random_seed(1)
    net = dense_net()
    net.compile(keras.optimizers.SGD(0.5), cross_entropy())
    x, y = small_data(12, (3,))
    sampled = ks.callbacks.SampledAccuracy(ks.Evaluator(net, x, (x, y)), paths, every=2)
    resume = ks.callbacks.Resume(folder, also=iter([sampled]))
    callbacks = [*([Stop(stop)] if stop else []), sampled, resume]
    net.fit(x, y, batch_size=4, shuffle=False, epochs=5, verbose=0, callbacks=callbacks)
    return resume.history, sampled.epochs, sampled.scores


def test_sampled_accuracy_goes_on_too(tmp_path):
    history, epochs, scores = scored(tmp_path / "never")
    assert epochs == [1, 3]
    assert history["sampled_accuracy_mean"] == [float(np.mean(s)) for s in scores]
    assert history["sampled_accuracy_min"] == [min(s) for s in scores]
    assert history["sampled_accuracy_max"] == [max(s) for s in scores]
    assert len(history["loss"]) == 5
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path / "stopped", stop=8)
    assert scored(tmp_path / "stopped") == (history, epochs, scores)
    with pytest.raises(ValueError, match="3 sampled paths are others than these 4"):
        scored(tmp_path / "stopped", paths=4)


def test_what_is_refused(tmp_path):
    resume, sampled = ks.callbacks.Resume, ks.callbacks.SampledAccuracy
    for message, options in {
        "keep >= 1": {"keep": 0},
        "a number of batches": {"save_freq": "batch"},
        "method set_epoch": {"data": X},
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
