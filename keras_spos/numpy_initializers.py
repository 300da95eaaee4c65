"""How does a supernet get its first weights quickly on JAX? NumPy draws them.

Keras' random initializers compile a program for each shape there: 10 seconds for SPOS's
space on two cores. The distributions are the same; TensorFlow is left as it is.

Example:
    >>> with numpy_initializers():
    ...     layer.build((None, 8, 8, 16))
"""

import contextlib
import math

import keras
import numpy as np
from keras.initializers import RandomNormal, VarianceScaling

# The standard deviation of a standard normal that is cut off at -2 and 2.
_TRUNCATED = 0.87962566103423978


@contextlib.contextmanager
def numpy_initializers():
    """Inside, on JAX, `RandomNormal`, `VarianceScaling` and heirs draw with NumPy."""
    if keras.backend.backend() != "jax":
        yield
        return
    stock = {kind: kind.__call__ for kind in (RandomNormal, VarianceScaling)}

    def scaled(initializer, shape, dtype=None):
        if getattr(initializer, "input_axes", None) is not None:
            return stock[VarianceScaling](initializer, shape, dtype)
        return _scaled(initializer, shape, dtype)

    RandomNormal.__call__ = _normal
    VarianceScaling.__call__ = scaled
    try:
        yield
    finally:
        for kind, call in stock.items():
            kind.__call__ = call


def _normal(initializer, shape, dtype=None):
    values = _generator(initializer).standard_normal(shape, "float32")
    return _tensor(values * initializer.stddev + initializer.mean, dtype)


def _scaled(initializer, shape, dtype=None):
    generator = _generator(initializer)
    variance = initializer.scale / max(1.0, _fan(initializer, shape))
    if initializer.distribution == "uniform":
        limit = math.sqrt(3 * variance)
        return _tensor(generator.uniform(-limit, limit, shape), dtype)
    values = generator.standard_normal(shape, "float32")
    if initializer.distribution == "truncated_normal":
        while (outside := np.abs(values) > 2).any():
            values[outside] = generator.standard_normal(outside.sum(), "float32")
        values /= _TRUNCATED
    return _tensor(values * math.sqrt(variance), dtype)


def _fan(initializer, shape):
    """What the variance is divided by: numbers of inputs, outputs, or their mean."""
    receptive = math.prod(shape[:-2])
    fan_in = receptive * shape[-2] if len(shape) > 1 else shape[0]
    fan_out = receptive * shape[-1]
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    return fans[initializer.mode]


def _generator(initializer):
    seed = initializer.seed
    if isinstance(seed, keras.random.SeedGenerator):
        seed = np.asarray(seed.next())
    return np.random.default_rng(seed)


def _tensor(values, dtype):
    return keras.ops.convert_to_tensor(values.astype("float32"), dtype)
