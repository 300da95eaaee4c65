"""Legal candidates: all of them, only them, and as evenly as may be."""

import numpy as np
import pytest
from landscapes import all_paths, make_space, make_table

from keras_spos.costs import Block, CostTable, InfeasibleLimitError
from keras_spos.search import descent, sample_legal, sampling


@pytest.mark.parametrize("n", [-1, 2.5, None])
def test_a_number_of_paths_is_none_or_more(n):
    with pytest.raises(ValueError, match=f"at least 0. Received: n={n}"):
        sample_legal(make_space(2, 2), n)


def as_set(paths):
    return set(map(tuple, paths.tolist()))


@pytest.mark.parametrize("seed", range(9))
def test_all_legal_paths_are_found_and_no_other(seed, monkeypatch):
    if seed > 2:  # as a space would be that is too large to be listed
        monkeypatch.setattr(sampling, "_SMALL_SPACE", 0)
    if seed > 5:  # and where no other way finds a legal path
        monkeypatch.setattr(sampling, "_DRAW_ROUNDS", 0)
        monkeypatch.setattr(sampling, "_BUILD_ROUNDS", 0)
    rng = np.random.default_rng(seed)
    space = make_space(3, 2, 4, 1, 3, 3)
    paths = all_paths(space)
    limits = []
    for name in "abc"[: 1 + seed % 3]:
        table = make_table(space, name, seed=rng.integers(99), pairs=seed % 2)
        limits.append(table <= np.quantile(table(paths), rng.uniform(0.1, 0.6)))
    legal = as_set(paths[sampling.meets(limits, paths)])
    if not legal:
        with pytest.raises(InfeasibleLimitError):
            sample_legal(space, 1, limits, seed)
        return
    assert as_set(sample_legal(space, 300, limits, seed)) == legal
    exclude = set(sorted(legal)[: len(legal) // 3])
    found = sample_legal(space, 300, limits, seed, exclude)
    assert found.dtype == np.int64
    assert len(found) == len(as_set(found))
    assert as_set(found) == legal - exclude
    assert len(sample_legal(space, 1, limits, seed, legal)) == 0


def mixed_table(space, name, seed, scale=1.0):
    """Costs of either sign, of single and of joint options, and of no decision."""
    table = make_table(space, name, seed, pairs=True)
    blocks = [Block(b.name, b.decisions, scale * (b.costs - 3)) for b in table.blocks]
    return CostTable(space, scale, [*blocks, Block("fixed", (), scale)], name)


@pytest.mark.parametrize("largest", [1, 1_000_000])
@pytest.mark.parametrize("seed", range(6))
def test_a_walk_finds_all_legal_paths_and_no_other(seed, largest, monkeypatch):
    # At 1 no two blocks are added before they are minimized: a bound, if not the best.
    monkeypatch.setattr(descent, "_LARGEST_SUM", largest)
    space = make_space(3, 2, 4, 1, 3, 3)
    paths, rng = all_paths(space), np.random.default_rng(seed)
    tables = [mixed_table(space, "a", seed), mixed_table(space, "b", seed + 9, 0.01)]
    constant = CostTable(space, 1.0, [Block("c", (1,), np.ones(2))], "constant")
    limits = [t <= np.quantile(t(paths), 0.3) for t in tables] + [constant <= 2]
    for some in (limits, limits[:2], limits[1:], limits[:1]):
        walked = list(descent.Descent(space, some, rng).walk(rng, 10_000))
        legal = paths[sampling.meets(some, paths)]
        assert sorted(walked) == sorted(map(tuple, legal.tolist()))
    # One option for each of six decisions is the least that a path takes.
    for steps, found in ((5, 0), (6, 1)):
        few, complete = sampling._enumerate(space, [], rng, steps)
        assert len(few) == found and not complete


@pytest.mark.parametrize("seed", range(6))
def test_a_walk_under_one_limit_never_goes_back(seed):
    space = make_space(*[3] * 8)
    table, rng = mixed_table(space, "a", seed), np.random.default_rng(seed)
    limit = table <= np.sort(table(all_paths(space)))[seed]
    walk = descent.Descent(space, [limit], rng)
    path = next(walk.walk(rng, steps=8))
    assert limit.satisfied(path).all() and walk.steps == 8


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("size", [4, 32])
def test_a_tight_limit(size, pairs):
    # At 4.9 standard deviations: fewer than one path in a million.
    space = make_space(*[size] * 20)
    table = make_table(space, pairs=pairs)
    costs = table(space.sample(20_000))
    limit = table <= costs.mean() - 4.9 * costs.std()
    paths = sample_legal(space, 50, [limit], seed := 3)
    assert len(as_set(paths)) == 50
    assert limit.satisfied(paths).all()
    np.testing.assert_array_equal(paths, sample_legal(space, 50, [limit], seed))


def test_exactly_the_few_paths_that_exist(monkeypatch):
    # At most one decision may leave option 0: 61 paths of 4^20.
    space = make_space(*[4] * 20)
    blocks = [Block(str(i), (i,), np.array([0, 1, 1, 1])) for i in range(20)]
    count = CostTable(space, 0, blocks, "changes")
    paths = sample_legal(space, 200, [count <= 1])
    assert len(as_set(paths)) == 61
    np.testing.assert_array_equal(sample_legal(space, 9, [count <= 0]), [[0] * 20])
    # Some are built and the rest enumerated, as far as the steps go.
    monkeypatch.setattr(sampling, "_BUILD_ROUNDS", 1)
    assert len(sample_legal(space, 200, [count <= 1])) == 61
    monkeypatch.setattr(sampling, "_ENUMERATION_STEPS", 0)
    assert 0 < len(sample_legal(space, 200, [count <= 1])) < 61
    # What is excluded does not use them up, and says that there is something.
    monkeypatch.setattr(sampling, "_BUILD_ROUNDS", 0)
    known = as_set(paths)
    last = known.pop()
    monkeypatch.setattr(sampling, "_ENUMERATION_STEPS", 100)
    assert as_set(sample_legal(space, 1, [count <= 1], exclude=known)) == {last}
    monkeypatch.setattr(sampling, "_ENUMERATION_STEPS", 0)
    assert len(sample_legal(space, 1, [count <= 1], exclude={last})) == 0
    with pytest.raises(InfeasibleLimitError, match="found in 0 steps .*<= 1.$"):
        sample_legal(space, 1, [count <= 1])


def test_the_lowest_cost_is_met_despite_rounding():
    space = make_space(*[3] * 15)
    for seed in range(5):
        table = make_table(space, seed=seed, base=0.1)
        lowest = np.array([[g.argmin() for g in table.grouped().values()]])
        # One digit more than the sum: sums in another order may differ in the last.
        limit = table <= np.nextafter(table(lowest)[0], np.inf) * (1 + 1e-15)
        np.testing.assert_array_equal(sample_legal(space, 5, [limit]), lowest)
        # A sum that the table has is what a walk finds, and one of less is not legal.
        rng = np.random.default_rng(seed)
        walk = descent.Descent(space, [table <= table(lowest)[0]], rng)
        assert [*walk.walk(rng, 50)] == [tuple(lowest[0])]
        with pytest.raises(InfeasibleLimitError, match="No architecture meets flops"):
            sample_legal(space, 5, [table <= table(lowest)[0] * (1 - 1e-12)])


def test_limits_that_exclude_each_other():
    space = make_space(*[4] * 20)
    rng = np.random.default_rng(0)
    blocks = [Block(str(i), (i,), rng.uniform(1, 5, 4)) for i in range(20)]
    flops = CostTable(space, 0, blocks, "flops")
    opposite = [Block(b.name, b.decisions, 6 - b.costs) for b in blocks]
    inverse = CostTable(space, 0, opposite, "inverse")  # flops + inverse = 120
    with pytest.raises(InfeasibleLimitError, match="flops <= 50 and inverse <= 60"):
        sample_legal(space, 5, [flops <= 50, inverse <= 60])
    paths = sample_legal(space, 5, [flops <= 50, inverse <= 70.5])
    assert len(paths) == 5
    assert np.all((flops(paths) <= 50) & (flops(paths) >= 49.5))


def test_limits_that_all_but_exclude_each_other():
    """What costs less of one costs about as much more of the other."""
    space, rng = make_space(*[5] * 16), np.random.default_rng(0)
    costs = rng.uniform(1, 5, (16, 5))
    # In another unit.
    opposite = 1e6 * (6 - costs + rng.normal(0, 0.3, (16, 5)))
    limits = [
        CostTable(space, 0, [Block(str(i), (i,), row) for i, row in enumerate(table)])
        <= limit
        for table, limit in ((costs, 48), (opposite, 43.2e6))
    ]
    assert len(sample_legal(space, 10, limits)) == 10


def test_many_limits_at_once():
    space = make_space(*[4] * 20)
    tables = [make_table(space, f"t{i}", seed=i) for i in range(8)]
    sample = space.sample(5000, seed=0)
    limits = [table <= np.quantile(table(sample), 0.1) for table in tables]
    limits += [CostTable(space, 1.0, [], "constant") <= 2]
    paths = sample_legal(space, 20, limits)
    assert len(as_set(paths)) == 20 and sampling.meets(limits, paths).all()


def test_limits_that_leave_decisions_free():
    # Whichever decision a walk begins with, if neither table knows it.
    space = make_space(*[8] * 12)
    tables = [
        CostTable(
            space, 0, [Block(str(i), (i,), np.arange(8)) for i in known], str(known)
        )
        for known in (range(4), range(3, 7))
    ]
    limits = [table <= 1 for table in tables]
    for seed in range(3):
        paths = sample_legal(space, 20, limits, seed)
        assert len(as_set(paths)) == 20 and sampling.meets(limits, paths).all()


def test_a_limit_that_only_shared_decisions_exclude():
    # Each pair may cost 0, but an odd cycle cannot alternate.
    space = make_space(2, 2, 2)
    blocks = [Block(f"{i}", (i, (i + 1) % 3), np.eye(2)) for i in range(3)]
    table = CostTable(space, 0, blocks, "conflicts")
    with pytest.raises(InfeasibleLimitError, match=r"meets conflicts <= 0.5\.$"):
        sample_legal(space, 1, [table <= 0.5])
    assert len(sample_legal(space, 9, [table <= 1])) == 6


@pytest.mark.parametrize("small", [0, 100])
def test_draws_are_uniform(small, monkeypatch):
    monkeypatch.setattr(sampling, "_SMALL_SPACE", small)
    space = make_space(2, 3)
    draws = [tuple(sample_legal(space, 1, seed=seed)[0]) for seed in range(1200)]
    counts = np.unique(draws, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.all(abs(counts - 200) < 65)  # 5 standard deviations


def test_built_paths_are_nearly_uniform(monkeypatch):
    space = make_space(*[4] * 6)
    table, paths = make_table(space), all_paths(space)
    limit = table <= np.sort(table(paths))[60]
    rng = np.random.default_rng(0)
    built = sampling._build(space, [limit], rng, 4000)
    mixed = sampling._mix(space, [limit], rng, built)
    legal = sorted(as_set(paths[limit.satisfied(paths)]))

    def distance(sample):
        rows = list(map(tuple, sample.tolist()))
        shares = np.array([rows.count(path) for path in legal]) / len(rows)
        return abs(shares - 1 / len(legal)).sum() / 2

    assert len(mixed) == 4000
    assert distance(mixed) < 0.1 < distance(built) < 0.5
    # That is what is returned.
    monkeypatch.setattr(sampling, "_SMALL_SPACE", 0)
    monkeypatch.setattr(sampling, "_DRAW_ROUNDS", 0)
    monkeypatch.setattr(sampling, "_mix", lambda *_: mixed[7:8])
    np.testing.assert_array_equal(sample_legal(space, 1, [limit]), mixed[7:8])
