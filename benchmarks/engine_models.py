"""What do the parts of `benchmarks.engine` train, on what, and how do they measure?"""

import functools
import time

import numpy as np

HEAVIEST = 3  # choice_x: of the options, the one with the most activations.


def network(size, **options):
    """SPOS's supernet for images of a size."""
    from keras_spos import spaces

    return spaces.shufflenet_v2((size, size, 3), **options)


def batch_of(size, batch, classes=1000):
    """Random images and labels."""
    rng = np.random.default_rng(0)
    x = rng.random((batch, size, size, 3), dtype="float32")
    return x, rng.integers(0, classes, batch)


def compiled(model):
    """The model, ready to train."""
    import keras

    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(model, x, y):
    """Trains on a batch, to the end: on JAX, updates go on after the loss is there."""
    model.train_on_batch(x, y)
    settle(model)


def settle(model):
    """Waits for what the device still computes of a model."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready([variable.value for variable in _variables(model)])


@functools.lru_cache(8)
def _variables(model):
    # Going through hundreds of options takes milliseconds, which a step does not.
    return [*model.variables, *model.optimizer.variables]


def seconds_of(function, *args):
    """Seconds of a call."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def fit_of(x, y, batches):
    """A function that trains a model on a batch, so many times in one `fit`."""
    options = {"batch_size": len(x), "shuffle": False, "verbose": 0}
    x, y = np.concatenate([x] * batches), np.concatenate([y] * batches)

    def fit(model):
        model.fit(x, y, **options)
        settle(model)

    return fit


def path_of(net, option):
    """The path of one option in all blocks."""
    return (option,) * len(net.space.decisions)


def paths_of(net, args, count):
    """The paths to time: random ones, or that of the option given."""
    if args.option is not None:
        return [path_of(net, args.option)]
    return net.space.sample(count, seed=0)


class Fixed:
    """Draws the same path always."""

    def __init__(self, path):
        self.path = path

    def draw(self, space, rng):
        """The path."""
        return self.path
