"""The weights that networks begin with."""

import keras
import numpy as np
import pytest
import scipy.stats

from keras_spos import spaces
from keras_spos.numpy_initializers import numpy_initializers

on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="on others, Keras draws"
)


@pytest.mark.parametrize("name", ["proxyless", "fbnet", "shufflenet_v2", "mixpath_s1"])
def test_no_two_kernels_are_equal(name):
    net = getattr(spaces, name)()
    kernels = [np.asarray(v) for v in net.trainable_variables if len(v.shape) > 1]
    assert len({k.tobytes() for k in kernels}) == len(kernels) > 100


@pytest.mark.parametrize(
    "build, arguments, number",
    [
        # Stem, head; for each block and expansion, two 1x1 and four depthwise ones.
        (
            spaces.mixpath_s1,
            {"channels": (48, 96), "strides": (1, 2)},
            2 + 2 * 2 * 6,
        ),
        # Stem, first block, head; those of one layer, and squeeze-and-excitation's.
        (
            spaces.mixpath_s2,
            {"skeleton": [(1, 2, 3, 40, 0.5, 1, 1)], "num_classes": 10},
            4 + 6 + 2,
        ),
        # Stem; in each cell, four nodes of two, two and one, and node 5.
        (
            spaces.nasbench101_mixpath,
            {"channels": 16, "stacks": 2, "cells": 1},
            1 + 2 * (4 * 5 + 1),
        ),
    ],
    ids=["s1", "s2", "nasbench101"],
)
def test_mixpath_begins_as_in_the_authors_code(build, arguments, number):
    keras.utils.set_random_seed(0)
    net = build(**arguments)
    kernels = {v.path: np.asarray(v) for v in net.trainable_variables if v.ndim > 1}
    classifier = kernels.pop("classifier/kernel")
    assert 0.95 / 10**0.5 < np.abs(classifier).max() <= 1 / 10**0.5
    for path, kernel in kernels.items():
        size, _, inputs, outputs = kernel.shape
        # A depthwise kernel's output channels are its input channels.
        outputs = inputs if outputs == 1 else outputs
        scaled = kernel.ravel() / (2 / (size**2 * outputs)) ** 0.5
        assert scipy.stats.kstest(scaled, "norm").pvalue > 1e-4, path
    assert len(kernels) == number


@on_jax
@pytest.mark.parametrize(
    "initializer",
    [
        keras.initializers.RandomNormal(1.0, 0.1, seed=1),
        keras.initializers.HeNormal(seed=1),
        keras.initializers.GlorotUniform(seed=1),
        keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", 1),
    ],
)
@pytest.mark.parametrize("shape", [(3, 3, 40, 20), (5, 5, 400, 1), (100, 90)])
def test_numpy_draws_from_the_distributions_of_keras(initializer, shape):
    expected = np.asarray(initializer(shape, "float32"))
    with numpy_initializers():
        values = initializer(shape, "float32")
        again = np.asarray(initializer(shape, "float32"))
    drawn = np.asarray(values)
    assert keras.backend.standardize_dtype(values.dtype) == "float32"
    assert drawn.shape == shape
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != expected).any()
    assert scipy.stats.ks_2samp(drawn.ravel(), expected.ravel()).pvalue > 1e-3
    # Cut off where Keras' are.
    assert np.abs(drawn).max() < 1.3 * np.abs(expected).max()
    np.testing.assert_array_equal(np.asarray(initializer(shape)), expected)


@on_jax
def test_a_seed_generator_goes_on():
    initializer = keras.initializers.HeNormal(keras.random.SeedGenerator(3))
    with numpy_initializers():
        first, second = (np.asarray(initializer((3, 3, 4, 4))) for _ in "ab")
    assert (first != second).any()
