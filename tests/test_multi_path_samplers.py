"""Multi-path samplers draw what they say."""

import collections
import itertools
import json

import keras
import numpy as np
import pytest

from keras_spos import (
    BernoulliSampler,
    Decision,
    MultiPathSampler,
    OneShotSampler,
    SearchSpace,
)

# Two groups of three paths, up to two of which run: 2 x (3 + 3) options.
SUBSETS = [s for k in (1, 2) for s in itertools.combinations(range(3), k)]
OPTIONS = {"block": [(group, subset) for group in (0, 1) for subset in SUBSETS]}
ALL = {"block": [*OPTIONS["block"], (0, (0, 1, 2)), (1, (0, 1, 2))]}
SPACE = SearchSpace([Decision("other", "01"), Decision("block", map(str, range(12)))])


def draws(sampler, n, column=1):
    drawn = [sampler.draw(SPACE, np.random.default_rng((3, s))) for s in range(n)]
    return collections.Counter(path[column] for path in drawn)


def close(counts, probabilities, n):
    """Whether counts are within five standard deviations of what is expected."""
    return all(
        abs(counts[i] - n * p) < 5 * np.sqrt(n * p * (1 - p))
        for i, p in enumerate(probabilities)
    )


def test_the_number_of_paths_is_uniform_then_the_subset():
    assert close(draws(MultiPathSampler(OPTIONS), 6000), [1 / 12] * 12, 6000)
    # Of one path 3 options, of two paths 1: 1/6 each and 1/2.
    uneven = {"block": [(0, (0,)), (0, (1,)), (0, (2,)), (0, (0, 2))]}
    counts = draws(MultiPathSampler(uneven), 3000)
    assert close(counts, [1 / 6, 1 / 6, 1 / 6, 1 / 2], 3000)


def test_other_decisions_are_uniform():
    assert close(draws(MultiPathSampler(OPTIONS), 2000, column=0), [0.5, 0.5], 2000)


def test_bernoulli_equals_independent_draws_that_are_repeated_until_legal():
    rng = np.random.default_rng(0)
    on = rng.random((100_000, 2, 3)) < 0.3
    numbers = {option: i for i, option in enumerate(OPTIONS["block"])}
    legal = []
    for groups in on:
        taken = [
            (g, tuple(np.flatnonzero(paths).tolist()))
            for g, paths in enumerate(groups)
            if paths.any()
        ]
        if len(taken) == 1 and taken[0] in numbers:
            legal.append(numbers[taken[0]])
    expected = np.bincount(legal, minlength=12) / len(legal)
    assert close(draws(BernoulliSampler(OPTIONS, 0.3), 6000), expected, 6000)


def test_one_shot_runs_everything_that_is_not_dropped():
    everything = OneShotSampler(ALL, rate=0.0).draw(SPACE, np.random.default_rng(0))
    assert everything[1] == (12, 13)
    one = draws(OneShotSampler(ALL, rate=1.0), 600)
    assert set(one) == {(i,) for i in (0, 1, 2, 6, 7, 8)}
    some = draws(OneShotSampler(ALL, rate=0.5), 2000)
    # Nothing dropped: one in 2^6.
    assert abs(some[12, 13] - 2000 / 64) < 5 * np.sqrt(2000 / 64)


@pytest.mark.parametrize(
    "sampler",
    [
        MultiPathSampler(OPTIONS),
        BernoulliSampler(OPTIONS, 0.25),
        OneShotSampler(ALL, 0.5),
    ],
    ids=lambda s: type(s).__name__,
)
def test_a_saved_sampler_draws_the_same(sampler):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(sampler)))
    loaded = keras.saving.deserialize_keras_object(config)
    assert draws(loaded, 50) == draws(sampler, 50)


def test_probabilities_out_of_range():
    for probability in (0, 1):
        with pytest.raises(ValueError, match="between 0 and 1. Received: prob"):
            BernoulliSampler(OPTIONS, probability)
    with pytest.raises(ValueError, match="between 0 and 1. Received: rate=1.5"):
        OneShotSampler(ALL, 1.5)
