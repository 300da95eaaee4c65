"""Small trainings that are stopped and go on, for the tests of `Resume`."""

import os
import signal

import keras
import numpy as np
from keras import layers
from models import cross_entropy
from models import data as small_data

import keras_spos as ks

EPOCHS, STEPS, BATCH = 3, 5, 4


def stock(units=5, noise=layers.Dropout):
    """A small model of stock layers, with dropout and a batch norm."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Dense(units, activation="relu")(layers.Flatten()(x))
    x = layers.BatchNormalization()(noise(0.5)(x))
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


def assert_same(one, other):
    assert one[0] == other[0]
    assert len(one[1]) == len(other[1])
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


def names(folder):
    return sorted(os.listdir(folder))


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
