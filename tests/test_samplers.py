"""Samplers draw what they say, and nothing else is trained."""

import collections

import keras
import numpy as np
import pytest
from keras import layers
from models import cross_entropy, data, dense_net, randomize, values
from reference import slots_of

from keras_spos import (
    CostRangeSampler,
    CostTable,
    Decision,
    FairSampler,
    PathDropoutSampler,
    SearchSpace,
    UniformSampler,
    WideningSampler,
    params_table,
)
from keras_spos.costs import Block

SPACE = SearchSpace([Decision("a", "012"), Decision("b", "01"), Decision("c", "0123")])
# Costs 10 to 60 in steps of 10, of which the ends are rare.
TABLE = CostTable(
    SPACE,
    10,
    [Block(str(i), (i,), np.arange(n) * 10.0) for i, n in enumerate((3, 2, 4))],
)


def draws(sampler, n=2000, space=SPACE):
    return [sampler.draw(space, np.random.default_rng((3, s))) for s in range(n)]


def test_uniform_draws_every_option_equally():
    paths = SPACE.validate(np.array(draws(UniformSampler(), 6000)))
    for column, size in zip(paths.T, SPACE.sizes, strict=True):
        counts = np.bincount(column, minlength=size)
        # Five standard deviations of a binomial count.
        assert np.all(np.abs(counts - 6000 / size) < 5 * np.sqrt(6000 / size))
    assert len({tuple(p) for p in paths}) == SPACE.size


def test_fair_draws_take_every_option_once_a_round():
    paths = np.array([FairSampler().draw_step(SPACE, 3, s) for s in range(1200)])
    for column, size in zip(SPACE.validate(paths).T, SPACE.sizes.tolist(), strict=True):
        rounds = column.reshape(-1, size)
        assert np.all(np.sort(rounds, axis=1) == np.arange(size))
        # All orders occur, so decisions are not in step with one another.
        assert len(np.unique(rounds, axis=0)) == np.prod(np.arange(1, size + 1))
    assert len(np.unique(paths, axis=0)) == SPACE.size
    # Nor are decisions of one size.
    same = SearchSpace([Decision("a", "01"), Decision("b", "01")])
    assert len({tuple(FairSampler().draw_step(same, 3, s)) for s in range(40)}) == 4
    again = [FairSampler().draw_step(SPACE, 3, s) for s in (7, 500)]
    assert again == paths[[7, 500]].tolist()
    other = [FairSampler().draw_step(SPACE, 4, s) for s in range(24)]
    assert other != paths[:24].tolist()


def test_fair_training_steps_each_option_equally():
    net = dense_net(sampler=FairSampler())
    net.compile(keras.optimizers.SGD(0.1), cross_entropy())
    taken = [tuple(net.draw(step)) for step in range(4)]
    assert sorted(a for a, _ in taken[:2]) == sorted(b for _, b in taken[:2]) == [0, 1]
    options = [net.searchable_layers[0].options[i] for i, _ in taken]
    for step, option in enumerate(options):
        before = [values(o.weights) for o in net.searchable_layers[0].options]
        net.train_on_batch(*data(6, (3,), seed=step))
        for other, old in zip(net.searchable_layers[0].options, before, strict=True):
            moved = any(
                np.any(a != b) for a, b in zip(old, values(other.weights), strict=True)
            )
            assert moved == (other is option)


def test_cost_ranges_are_equally_likely_and_kept():
    bins = [(10, 15), (25, 35), (70, 70)]
    costs = TABLE(np.array(draws(CostRangeSampler(TABLE, bins), 3000)))
    counts = collections.Counter(costs.tolist())
    assert set(counts) == {10.0, 30.0, 70.0}
    # Uniform paths cost 10 or 70 one time in 24.
    assert all(
        abs(count - 1000) < 5 * np.sqrt(1000 * 2 / 3) for count in counts.values()
    )


def test_paths_are_uniform_within_a_range():
    paths = draws(CostRangeSampler(TABLE, [(20, 20)]), 3000)
    counts = collections.Counter(tuple(int(i) for i in p) for p in paths)
    assert set(counts) == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    assert all(abs(count - 1000) < 5 * np.sqrt(1000) for count in counts.values())


def test_edges_make_the_ranges_between_them():
    sampler = CostRangeSampler(TABLE, [10, 20, 40])
    assert sampler.bins.tolist() == [[10, 20], [20, 40]]
    costs = TABLE(np.array(draws(sampler, 300)))
    assert costs.min() >= 10 and costs.max() <= 40


def test_the_nearest_of_so_many_draws_is_taken():
    # Nothing costs between 11 and 12; what costs 10 is one path of 24.
    narrow = [(11, 12)]
    one = TABLE(draws(CostRangeSampler(TABLE, narrow, max_draws=1), 200))
    uniform = TABLE(draws(UniformSampler(), 200))
    assert sorted(set(one)) == sorted(set(uniform))
    many = TABLE(draws(CostRangeSampler(TABLE, narrow, max_draws=200), 50))
    assert set(many) == {10}


def test_no_more_paths_are_drawn_than_needed(monkeypatch):
    drawn = []

    def counted(table, paths):
        drawn.append(len(paths))
        return original(table, paths)

    original = CostTable.__call__
    monkeypatch.setattr(CostTable, "__call__", counted)
    draws(CostRangeSampler(TABLE, [(12, 19)], max_draws=120), 1)
    assert drawn == [50, 50, 20]
    draws(CostRangeSampler(TABLE, [(10, 70)], max_draws=120), 1)
    assert drawn == [50, 50, 20, 50]


def test_ranges_that_the_space_cannot_reach():
    for bins in ([(80, 90)], [(0, 5)], [(30, 20)], [], [np.nan, 30]):
        with pytest.raises(ValueError, match=r"what the space reaches.*10 to 70"):
            CostRangeSampler(TABLE, bins)
    with pytest.raises(ValueError, match="Expected pairs.*Received: bins of shape"):
        CostRangeSampler(TABLE, 30)
    with pytest.raises(ValueError, match="max_draws >= 1"):
        CostRangeSampler(TABLE, [10, 20], max_draws=0)


def test_a_table_of_another_space_is_refused():
    """Also where the costs would have the right shape."""
    a, *rest = SPACE.decisions
    others = [
        SearchSpace([Decision("a", reversed(a.options)), *rest]),
        SearchSpace([Decision("renamed", a.options), *rest]),
    ]
    sampler = CostRangeSampler(TABLE, [10, 20, 40])
    sampler.draw(SPACE, np.random.default_rng(0))
    for other in others:
        with pytest.raises(ValueError, match="'cost' belongs to another search space"):
            sampler.draw(other, np.random.default_rng(0))
    # An equal space is the same.
    sampler.draw(SearchSpace(SPACE.decisions), np.random.default_rng(0))


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_bad_drop_rate(rate):
    with pytest.raises(ValueError, match=f"between 0 and 1. Received: rate={rate}"):
        PathDropoutSampler(rate)


def test_path_dropout_keeps_each_option_so_often():
    active = draws(PathDropoutSampler(0.25), 4000)
    kept = np.mean([2 in options[2] for options in active])
    # 0.75, and where all four are dropped one of them is kept.
    assert abs(kept - (0.75 + 0.25**4 / 4)) < 5 * np.sqrt(0.25 * 0.75 / 4000)
    assert all(len(options) > 0 for path in active for options in path)
    assert all(list(o) == sorted(set(o)) for path in active for o in path)


def test_path_dropout_at_rate_one_is_a_single_path():
    active = draws(PathDropoutSampler(1.0), 3000)
    assert all(len(options) == 1 for path in active for options in path)
    counts = np.bincount([path[2][0] for path in active], minlength=4)
    assert np.all(np.abs(counts - 750) < 5 * np.sqrt(750))


def test_path_dropout_at_rate_zero_trains_the_mean_of_all_options():
    net = randomize(dense_net(sampler=PathDropoutSampler(0.0)))
    pairs = []

    def copy(layer):
        pairs.append((type(layer).from_config(layer.get_config()), layer))
        return pairs[-1][0]

    x = inputs = keras.Input((3,))
    for block in net.searchable_layers:
        x = layers.Average()([copy(option)(x) for option in block.options])
    stock = keras.Model(inputs, copy(net.layers[-1])(x))
    for mine, original in pairs:
        mine.set_weights(values(original.weights))
    for model in (net, stock):
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), cross_entropy())
    for step in range(3):
        batch = data(6, (3,), seed=step)
        losses = [model.train_on_batch(*batch) for model in (net, stock)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
    for mine, original in pairs:
        for a, b in zip(values(mine.weights), values(original.weights), strict=True):
            np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_path_dropout_updates_exactly_the_active_options():
    net = randomize(dense_net(sampler=PathDropoutSampler(0.6), seed=1))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01)
    net.compile(optimizer, cross_entropy())
    options = [option for block in net.searchable_layers for option in block.options]

    def state():
        return [values([*o.weights, *slots_of(optimizer, o.weights)]) for o in options]

    seen = set()
    net.train_on_batch(*data(6, (3,)))
    for step in range(1, 12):
        active = net.draw(step)
        seen.update(len(kept) for kept in active)
        before = state()
        net.train_on_batch(*data(6, (3,), seed=step))
        moved = [
            [np.any(x != y) for x, y in zip(a, b, strict=True)]
            for a, b in zip(before, state(), strict=True)
        ]
        expected = [i in kept for kept in active for i in range(2)]
        assert [all(m) for m in moved] == [any(m) for m in moved] == expected
    assert seen == {1, 2}


@pytest.mark.parametrize(
    "make",
    [
        lambda net: UniformSampler(),
        lambda net: CostRangeSampler(params_table(net), [(0, 200), (50, 500)], 7),
        lambda net: PathDropoutSampler(0.3),
        lambda net: FairSampler(),
    ],
    ids=["uniform", "cost_range", "path_dropout", "fair"],
)
def test_saved_with_the_model(make, tmp_path):
    net = dense_net()
    net.sampler = make(net)
    net.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert type(loaded.sampler) is type(net.sampler)
    assert loaded.sampler.get_config() == net.sampler.get_config()
    for step in range(20):
        assert list(net.draw(step)) == list(loaded.draw(step))


def test_widths_are_admitted_from_the_largest():
    space = SearchSpace(
        [Decision("a", "xyz"), Decision("a_width", "1234"), Decision("b_width", "12")]
    )
    sampler = WideningSampler(steps=9)
    for step, smallest in ((0, 2), (2, 2), (3, 1), (5, 1), (6, 0), (8, 0), (10**6, 0)):
        paths = np.array([sampler.draw_step(space, i, step) for i in range(200)])
        assert paths.min(axis=0).tolist() == [0, smallest, 0]
        assert paths.max(axis=0).tolist() == [2, 3, 1]
    # More are admitted at the start than there are.
    space.validate(WideningSampler(9, first=9).draw_step(space, 0, 10**6))
    again = WideningSampler.from_config(sampler.get_config())
    assert again.get_config() == sampler.get_config()
    paths = [sampler.draw(space, np.random.default_rng(i)) for i in range(50)]
    assert np.min(paths, axis=0).tolist() == [0, 0, 0]


def test_a_supernet_tells_the_sampler_the_step():
    net = dense_net(sampler=WideningSampler(steps=4, first=1, suffix="block_0"))
    assert {tuple(net.draw(step)) for step in range(2)} <= {(1, 0), (1, 1)}
    assert {net.draw(step)[0] for step in range(4, 40)} == {0, 1}


def test_widening_needs_widths():
    space = SearchSpace([Decision("a", "xyz")])
    with pytest.raises(ValueError, match="ends in '_width'. Received: .'a'."):
        WideningSampler(steps=4).draw(space, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 1. Received: steps=0"):
        WideningSampler(steps=0)
