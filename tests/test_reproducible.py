"""Training is a function of (seed, data): repeated, or interrupted and resumed."""

import keras
import numpy as np
import pytest
from keras import layers
from models import cross_entropy, data, dense_net, randomize, values

from keras_spos import ChoiceBlock, Supernet

X, Y = data(24, (3,))


def make(seed=0, dropout=0.5):
    """A compiled net with dropout inside its options and after them."""
    x = inputs = keras.Input((3,))
    for i in range(2):
        options = [
            [layers.Dense(4, name=f"dense_{i}"), layers.Dropout(dropout)],
            layers.Dense(4, activation="relu", name=f"relu_{i}"),
            [layers.Dense(4, name=f"norm_{i}"), layers.BatchNormalization()],
        ]
        x = ChoiceBlock(options, labels="abc", name=f"block_{i}")(x)
    x = layers.Dropout(dropout)(x)
    net = Supernet(inputs, layers.Dense(4, name="head")(x), seed=seed)
    randomize(net)
    net.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), cross_entropy(), metrics=["accuracy"]
    )
    return net


def fit(net, epochs, initial_epoch=0, **arguments):
    return net.fit(
        X,
        Y,
        batch_size=4,
        epochs=epochs,
        initial_epoch=initial_epoch,
        shuffle=False,
        verbose=0,
        **arguments,
    )


def assert_identical(a, b):
    """Weights, statistics and slots; seeds of dropout are derived, not kept."""
    a, b = ([*net.weights, *net.optimizer.variables] for net in (a, b))
    for variable, x, y in zip(a, values(a), values(b), strict=True):
        np.testing.assert_array_equal(x, y, variable.path)


@pytest.fixture(scope="module")
def uninterrupted():
    net = make()
    fit(net, 3)
    return net


def test_paths_depend_on_seed_and_step_alone():
    net, same, other = make(), make(), make(seed=1)
    steps = range(50)
    paths = [tuple(net.draw(step)) for step in steps]
    assert paths[::-1] == [tuple(same.draw(step)) for step in reversed(steps)]
    assert paths != [tuple(other.draw(step)) for step in steps]
    assert len(set(paths)) == 9


def test_trained_paths_are_the_drawn_ones():
    net = dense_net(seed=7)
    net.compile("sgd", cross_entropy())
    drawn = []
    draw = net.sampler.draw
    net.sampler.draw = lambda *a: drawn.append(tuple(draw(*a))) or drawn[-1]
    fit(net, 2)
    fit(net, 1)
    del net.sampler.draw
    assert drawn == [tuple(net.draw(step)) for step in range(18)]
    net.optimizer.iterations.assign(3)
    assert net.count_steps() == 3


@pytest.mark.parametrize("scaled", [False, True])
def test_accumulated_steps_share_a_path(scaled):
    net = dense_net(seed=7)
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=3)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    net.compile(optimizer, cross_entropy())
    paths = [tuple(net.draw(step)) for step in range(30)]
    assert paths[::3] == paths[1::3] == paths[2::3]
    assert len(set(paths)) > 1


def test_same_seed_gives_the_same_weights(uninterrupted):
    net = make()
    fit(net, 3)
    assert_identical(net, uninterrupted)


def test_dropout_differs_from_step_to_step():
    net = make()
    net.compile(keras.optimizers.SGD(0.0), cross_entropy())
    net.draw = lambda step: (1, 1)
    losses = set()
    for _ in range(4):
        losses.add(net.train_on_batch(X, Y, return_dict=True)["loss"])
    assert len(losses) == 4


def test_saved_and_loaded_midway_equals_uninterrupted(uninterrupted, tmp_path):
    net = make()
    fit(net, 1)
    net.save(tmp_path / "net.keras")
    resumed = keras.saving.load_model(tmp_path / "net.keras")
    fit(resumed, 3, initial_epoch=1)
    assert_identical(resumed, uninterrupted)


def test_backup_and_restore_equals_uninterrupted(uninterrupted, tmp_path):
    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise Killed

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path)

    with pytest.raises(Killed):
        fit(make(), 3, callbacks=[backup(), Kill()])
    resumed = make()
    fit(resumed, 3, callbacks=[backup()])
    assert_identical(resumed, uninterrupted)
