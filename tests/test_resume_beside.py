"""What other callbacks log and remember goes on with the training."""

import keras
import numpy as np
import pytest
from models import cross_entropy, dense_net, values
from models import data as small_data
from trainings import Stop, assert_same, early_stopping, names, small_fit

import keras_spos as ks


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


def test_a_schedule_from_the_rate_before_is_not_applied_twice(tmp_path):
    """An epoch that goes on begins again for callbacks that were applied to it."""

    def make():
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)]

    never = beside(tmp_path / "never", make())
    for stop in (5, 6):  # Within the second epoch and the third.
        with pytest.raises(KeyboardInterrupt):
            beside(tmp_path / "killed", make(), stop=stop, save_freq=1)
    assert_same(beside(tmp_path / "killed", make(), save_freq=1), never)


def test_batches_of_another_size_are_not_those_that_were_done(tmp_path):
    def run(steps, save_freq, stop=None):
        folder = tmp_path / str(save_freq)
        callbacks = [ks.callbacks.Resume(folder, save_freq=save_freq)]
        callbacks = [Stop(stop), *callbacks] if stop else callbacks
        net = dense_net()
        net.compile(loss=cross_entropy())
        x, y = small_data(12, (3,))
        options = {"batch_size": 12 // steps, "epochs": 3, "verbose": 0}
        net.fit(x, y, shuffle=False, callbacks=callbacks, **options)

    for save_freq in (1, "epoch"):
        with pytest.raises(KeyboardInterrupt):
            run(3, save_freq, stop=6)
    with pytest.raises(ValueError, match="differs in: batches an epoch: 3 there, 2 h"):
        run(2, 1)
    run(2, "epoch")  # An epoch that begins may have any.


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
