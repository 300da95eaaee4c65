"""Multi-path samplers draw what they say."""

import collections
import itertools
import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_spos import (
    BernoulliSampler,
    ChoiceBlock,
    Decision,
    MultiPathBlock,
    MultiPathSampler,
    OneShotSampler,
    SearchSpace,
    Supernet,
    callbacks,
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
        for i, p in probabilities.items()
    )


def test_the_number_of_paths_is_uniform_then_the_subset():
    assert close(
        draws(MultiPathSampler(OPTIONS), 6000), dict.fromkeys(range(12), 1 / 12), 6000
    )
    # Of one path 3 options, of two and of three paths 1: 1/9 each and 1/3.
    uneven = {"block": [(0, s) for s in ((0,), (1,), (2,), (0, 2), (0, 1, 2))]}
    counts = draws(MultiPathSampler(uneven), 3000)
    assert close(counts, {**dict.fromkeys(range(3), 1 / 9), 3: 1 / 3, 4: 1 / 3}, 3000)


def test_other_decisions_are_uniform():
    assert close(
        draws(MultiPathSampler(OPTIONS), 2000, column=0), {0: 0.5, 1: 0.5}, 2000
    )


def test_choice_blocks_beside_are_no_blocks_of_paths():
    x = inputs = keras.Input((3,))
    x = ChoiceBlock([layers.Dense(3), layers.Dense(3)], "ab", name="other")(x)
    paths = [layers.Dense(3, name=name) for name in "ab"]
    x = MultiPathBlock(paths, max_paths=2, name="block")(x)
    sampler = MultiPathSampler.of(Supernet(inputs, x).searchable_layers)
    assert sampler.options == {"block": [(0, (0,)), (0, (1,)), (0, (0, 1))]}


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
    assert close(
        draws(BernoulliSampler(OPTIONS, 0.3), 6000), dict(enumerate(expected)), 6000
    )
    # Of equal odds, which is the default, every option is as likely.
    assert close(
        draws(BernoulliSampler(OPTIONS), 6000), dict.fromkeys(range(12), 1 / 12), 6000
    )


def test_one_shot_runs_what_is_not_dropped_of_a_group():
    assert close(draws(OneShotSampler(ALL), 600), {12: 0.5, 13: 0.5}, 600)
    one = draws(OneShotSampler(ALL, rate=1.0), 1200)
    assert close(one, {i: 1 / 6 for i in (0, 1, 2, 6, 7, 8)}, 1200)
    # One path is left in 3 ways of 8, and in a third of the case that none is.
    some = draws(OneShotSampler(ALL, rate=0.5), 2000)
    expected = {0: (1 / 8 + 1 / 24) / 2, 3: 1 / 16, 12: 1 / 16}
    assert close(some, expected, 2000)
    # Groups are drawn equally, also of unequal size; subsets are in any order.
    options = [(0, (1,)), (0, (0,)), (0, (1, 0)), (1, (0,))]
    one = draws(OneShotSampler({"block": options}), 600)
    assert close(one, {2: 0.5, 3: 0.5}, 600)
    twice = [(0, (1,)), (0, (0,)), (0, (0,))]
    for lacks in (OPTIONS["block"], options[1:], options[2:], twice):
        with pytest.raises(ValueError, match="every subset.*Received: 'block' with"):
            OneShotSampler({"block": lacks})


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
    for rate in (-0.5, 1.5):
        with pytest.raises(ValueError, match=f"between 0 and 1. Received: rate={rate}"):
            OneShotSampler(ALL, rate)


def test_path_dropout_grows_with_the_step():
    paths = [layers.Dense(3, name=name) for name in "ab"]
    block = MultiPathBlock(paths, 2, name="block")
    inputs = keras.Input((3,))
    net = Supernet(inputs, block(inputs), sampler=OneShotSampler.of([block]))
    net.compile("sgd", "mse")
    rates = []
    draw = OneShotSampler.draw

    class Watched(OneShotSampler):
        def draw(self, space, rng):
            rates.append(self.rate)
            return draw(self, space, rng)

    net.sampler = Watched.of([block])
    grow = callbacks.GrowPathDropout(0.5, steps=4)
    x = np.zeros((6, 3), "float32")
    net.fit(x, x, batch_size=2, epochs=1, callbacks=[grow], verbose=0)
    # A second `fit` goes on where the first stopped.
    net.fit(x, x, batch_size=2, epochs=1, callbacks=[grow], verbose=0)
    assert rates == [0, 0.125, 0.25, 0.375, 0.5, 0.5]
    net.sampler = MultiPathSampler.of([block])
    with pytest.raises(ValueError, match="OneShotSampler. Received: MultiPathSampler"):
        net.fit(x, x, callbacks=[grow], verbose=0)
    with pytest.raises(ValueError, match="Received: final_rate=2, steps=1"):
        callbacks.GrowPathDropout(2, 1)


def test_path_dropout_goes_on_from_a_checkpoint_in_the_same_process(tmp_path):
    paths = [layers.Dense(3, name=name) for name in "ab"]
    block = MultiPathBlock(paths, 2, name="block")
    inputs = keras.Input((3,))
    net = Supernet(inputs, block(inputs), sampler=OneShotSampler.of([block]))
    net.compile("sgd", "mse")
    x = np.zeros((6, 3), "float32")
    for epochs in (1, 2):
        grow = callbacks.GrowPathDropout(0.5, steps=4)
        resume = callbacks.Resume(tmp_path)
        net.fit(x, x, 2, epochs, callbacks=[grow, resume], verbose=0)
    assert len(resume.logs) == 2 and net.sampler.rate == 0.5
