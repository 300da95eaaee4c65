"""What every search promises, and that it finds something."""

import numpy as np
import pytest
from landscapes import Landscape, all_paths, make_space, make_table
from pymoo.core.population import Population

from keras_spos import search
from keras_spos.costs import Block, CostTable, InfeasibleLimitError
from keras_spos.search.operators import ArchitectureProblem, GeneCrossover, TopK

SPACE = make_space(*[4] * 12)
FLOPS = make_table(SPACE)
PARAMS = make_table(SPACE, "params", seed=1)
MS = make_table(SPACE, "ms", seed=2)


def evolve(space, score, **options):
    return search.evolve(space, score, verbose=False, **options)


def random_search(space, score, generations=20, population=50, **options):
    evaluations = generations * population
    return search.random_search(
        space,
        score,
        evaluations=evaluations,
        batch=population,
        verbose=False,
        **options,
    )


def nsga2(space, score, minimize=(FLOPS,), **options):
    return search.nsga2(space, score, minimize=minimize, verbose=False, **options)


SEARCHES = pytest.mark.parametrize("run", [evolve, random_search, nsga2])


@SEARCHES
def test_nothing_twice_and_nothing_over_a_limit(run):
    score = Landscape(SPACE)
    median = np.median(FLOPS(SPACE.sample(1000)))
    limits = [FLOPS <= median, PARAMS <= PARAMS.reachable_range()[1] * 0.7]
    result = run(SPACE, score, limits=limits, generations=15, costs=[MS])
    assert len(score.paths) == len(set(score.paths)) == 15 * 50
    assert all(limit.satisfied(score.paths).all() for limit in limits)
    assert [len(call) for call in score.calls] == [50] * 15
    history = result.history
    assert [row["path"] for row in history] == score.paths
    np.testing.assert_array_equal(history.scores, score.truth(history.paths))
    np.testing.assert_array_equal(history.costs["flops"], FLOPS(history.paths))
    assert result.best.score == history.scores.max() == score.truth(history.paths).max()
    assert result.best.costs == {
        "flops": FLOPS(result.best.path)[0],
        "params": PARAMS(result.best.path)[0],
        "ms": MS(result.best.path)[0],
    }
    assert all(type(value) is int for value in result.best.path)
    assert not result.exhausted


@SEARCHES
def test_seed_alone_decides(run):
    def paths(seed):
        return run(SPACE, Landscape(SPACE), generations=4, seed=seed).history.paths

    np.random.seed(0)
    first = paths(3)
    before = np.random.get_state()[1].copy()
    np.random.seed(1)
    np.testing.assert_array_equal(paths(3), first)
    np.testing.assert_array_equal(paths(np.int64(3)), first)
    assert not np.array_equal(paths(4), first)
    np.random.seed(0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_evolution_finds_more_than_random_search():
    best = {evolve: [], random_search: []}
    for seed in range(5):
        score = Landscape(SPACE, seed)
        limit = FLOPS <= np.quantile(FLOPS(SPACE.sample(1000)), 0.2)
        for run, scores in best.items():
            result = run(SPACE, score, limits=[limit], generations=10, seed=seed)
            scores.append(result.best.score)
    assert all(a > b for a, b in zip(best[evolve], best[random_search], strict=True))


def test_evolution_finds_the_optimum_of_a_small_space():
    space = make_space(*[4] * 6)
    paths, score = all_paths(space), Landscape(space)
    flops = make_table(space)
    limit = flops <= np.quantile(flops(paths), 0.3)
    best = score.truth(paths)[limit.satisfied(paths)].max()
    result = evolve(space, score, limits=[limit], generations=12)
    assert result.best.score == best


def test_children_come_from_the_top_k():
    space = make_space(*[8] * 30)
    score = Landscape(space)
    options = {"population": 40, "generations": 2, "topk": 5}
    # By default the first half comes by crossover and the other by mutation.
    for share, crossed in (({"crossover": 40}, 40), ({"crossover": 0}, 0), ({}, 20)):
        share |= {"mutation_probability": 0.05}
        history = evolve(space, score, **options, **share).history
        first, second = history.paths[:40], history.paths[40:]
        parents = first[np.argsort(-history.scores[:40])[:5]]
        same = (second[:, None] == parents).sum(axis=2)
        if crossed:
            # Each gene is one of a parent, about half of them from either.
            assert (second[:crossed, None] == parents).any(axis=1).all()
            assert 12 < np.sort(same[:crossed], axis=1)[:, -1].mean() < 24
        if crossed < 40:
            changed = 30 - same[crossed:].max(axis=1)
            assert set(same[crossed:].argmax(axis=1)) == set(range(5))
            assert 1 <= changed.mean() < 3  # 30 * 0.05 * 7/8, no unchanged child


def test_a_mutation_draws_every_option_equally():
    options = {"population": 200, "generations": 2, "crossover": 0}
    history = evolve(SPACE, Landscape(SPACE), mutation_probability=1, **options).history
    share = np.bincount(history.paths[200:].ravel(), minlength=4) / 2400
    assert np.all(np.abs(share - 1 / 4) < 5 * np.sqrt(1 / 4 * 3 / 4 / 2400))


def test_the_top_k_is_kept_across_generations():
    space = make_space(*[8] * 30)
    winners = space.sample(3, seed=5)
    known = {tuple(path) for path in winners.tolist()}

    def score(paths):
        # After the first generation everything is worse: its best stay the parents.
        scores = -np.arange(len(paths)) - 1000.0 * (len(seen) > 0)
        seen.append(paths)
        return scores

    seen = []
    evolve(space, score, population=10, generations=6, topk=3, crossover=10)
    parents = seen[0][:3]
    assert known.isdisjoint(map(tuple, parents.tolist()))
    for children in seen[1:]:
        assert (children[:, None] == parents).any(axis=1).all()


def test_what_breeding_cannot_deliver_is_drawn_at_random():
    # One parent: crossing it with itself gives nothing new, nor does this mutation.
    result = evolve(
        SPACE, Landscape(SPACE), topk=1, mutation_probability=0.0, generations=3
    )
    assert len(result.history) == 150
    parent = result.history.paths[:50][np.argmax(result.history.scores[:50])]
    same = (result.history.paths[50:100] == parent).mean()
    assert abs(same - 0.25) < 0.06


@SEARCHES
def test_a_space_that_runs_out_ends_the_search(run):
    space = make_space(3, 4, 2)
    flops = make_table(space)
    limit = flops <= np.median(flops(all_paths(space)))
    legal = all_paths(space)[limit.satisfied(all_paths(space))]
    for population in (5, 50):
        score = Landscape(space)
        options = {"minimize": [flops]} if run is nsga2 else {}
        result = run(space, score, limits=[limit], population=population, **options)
        assert sorted(score.paths) == sorted(map(tuple, legal.tolist()))
        assert result.exhausted
        assert result.best.score == score.truth(legal).max()


@pytest.mark.parametrize("run", [evolve, nsga2])
def test_the_first_generation_begins_with_initial_paths(run, tmp_path):
    limit = FLOPS <= np.median(FLOPS(SPACE.sample(1000)))
    given = search.sample_legal(SPACE, 5, [limit], seed=9)
    options = {"limits": [limit], "generations": 2, "population": 8}
    score = Landscape(SPACE)
    result = run(SPACE, score, initial=[*given, *given], **options)
    assert score.paths[:5] == list(map(tuple, given.tolist()))
    assert len(set(score.paths)) == len(score.paths) == 16
    assert limit.satisfied(score.paths).all()
    # One path, and a checkpoint that knows of it.
    options["checkpoint"] = tmp_path / "run.json"
    result = run(SPACE, score, initial=given[0], **options)
    again = run(SPACE, score, initial=given[0].tolist(), **options)
    np.testing.assert_array_equal(result.history.paths, again.history.paths)
    with pytest.raises(ValueError, match="differs in: initial"):
        run(SPACE, score, initial=given[1], **options)
    with pytest.raises(ValueError, match="differs in: initial .* None here"):
        run(SPACE, score, **options)


@SEARCHES
def test_limits_may_come_from_a_generator(run):
    limit = FLOPS <= np.median(FLOPS(SPACE.sample(1000)))
    options = {"limits": (one for one in [limit]), "generations": 2}
    if run is not random_search:
        options["initial"] = search.sample_legal(SPACE, 5, [limit])
    assert limit.satisfied(run(SPACE, Landscape(SPACE), **options).history.paths).all()


def test_a_space_may_be_all_initial():
    space = make_space(2, 2)
    score = Landscape(space)
    result = evolve(space, score, initial=all_paths(space), population=4, topk=2)
    assert score.paths == list(map(tuple, all_paths(space).tolist()))
    assert result.exhausted
    score = Landscape(space)
    evolve(space, score, initial=all_paths(space)[:3], population=4, topk=2)
    assert len(score.calls) == 1 and len(set(score.paths)) == 4


def test_what_pymoo_is_handed():
    problem = ArchitectureProblem(make_space(*[2] * 400))
    pairs = np.array([Population.new("X", [[0] * 400, [1] * 400])] * 60)
    children = GeneCrossover()(problem, pairs, random_state=np.random.default_rng(0))
    share = children.get("X").mean(axis=1)
    assert len(share) == 60 and np.all(abs(share - 0.5) < 0.12)
    # Of equal scores those that came first.
    equal = Population.new(
        "X", np.arange(100)[:, None], "F", np.arange(100)[:, None] % 2
    )
    kept = TopK().do(problem, equal, n_survive=5).get("X")
    np.testing.assert_array_equal(kept[:, 0], range(0, 10, 2))


def test_nsga2_approaches_the_front():
    space = make_space(*[4] * 6)
    paths, score, flops = all_paths(space), Landscape(space), make_table(space)
    reference = (score.truth(paths).min(), flops.reachable_range()[1])
    result = nsga2(space, score, minimize=[flops], generations=12, reference=reference)
    volumes = [row["hypervolume"] for row in result.history.by_generation()]
    assert len(volumes) == 12 and volumes == sorted(volumes)
    first = nsga2(space, score, minimize=[flops], generations=1, reference=reference)
    assert first.history.hypervolume == volumes[:1] < volumes[1:]
    objectives = np.stack([-score.truth(paths), flops(paths)], axis=1)
    assert volumes[-1] > 0.97 * search.result.hypervolume(objectives, reference)


def test_nsga2_breeds_from_as_many_as_a_generation_has():
    space = make_space(*[8] * 30)
    calls = []

    def score(paths):
        # Better than all before, so of them nothing survives.
        calls.append(paths)
        return np.arange(len(paths)) + 1000.0 * len(calls)

    constant = CostTable(space, 1.0, [], "constant")
    options = {"population": 10, "generations": 4, "mutation_probability": 0.0}
    nsga2(space, score, minimize=[constant], **options)
    for parents, children in zip(calls, calls[1:], strict=False):
        # The first, which is the worst, loses every tournament.
        assert (children[:, None] == parents[1:]).any(axis=1).all()


def test_errors_teach():
    score = Landscape(SPACE)
    with pytest.raises(InfeasibleLimitError, match="flops <= 1. This space reaches"):
        evolve(SPACE, score, limits=[FLOPS <= 1])
    with pytest.raises(ValueError, match="belongs to another search space"):
        evolve(make_space(2, 2), score, limits=[FLOPS <= 100])
    with pytest.raises(ValueError, match="belongs to another search space"):
        evolve(SPACE, score, costs=[make_table(make_space(*[4] * 11, 5))])
    with pytest.raises(ValueError, match="crossover=30, mutation=30, population=50"):
        evolve(SPACE, score, crossover=30, mutation=30)
    with pytest.raises(ValueError, match="crossover=60, mutation=0, population=50"):
        evolve(SPACE, score, crossover=60)
    for name in ("topk", "population", "generations"):
        for wrong in (0, 5.0, None):
            message = f"at least 1. Received: {name}={wrong}"
            for run in (evolve, nsga2):
                with pytest.raises(ValueError, match=message):
                    run(SPACE, score, **{name: wrong})
    for name in ("evaluations", "batch", "topk"):
        with pytest.raises(ValueError, match=f"at least 1. Received: {name}=0"):
            search.random_search(SPACE, score, **{name: 0})
    for name in ("crossover", "mutation"):
        with pytest.raises(ValueError, match=f"at least 0. Received: {name}=-1"):
            evolve(SPACE, score, **{name: -1})
    with pytest.raises(ValueError, match="seed: integers of at least 0. Received"):
        evolve(SPACE, score, seed=None)
    with pytest.raises(ValueError, match="such as net.space. Received: .*CostTable"):
        evolve(FLOPS, score)
    with pytest.raises(ValueError, match="such as flops <= 330e6. Received: False"):
        evolve(SPACE, score, limits=[FLOPS == 40])
    with pytest.raises(ValueError, match="such as flops <= 330e6. Received: CostT"):
        evolve(SPACE, score, limits=FLOPS)
    with pytest.raises(ValueError, match="mutation_probability is within"):
        evolve(SPACE, score, mutation_probability=10)
    with pytest.raises(ValueError, match="Two different tables are named 'flops'"):
        evolve(SPACE, score, costs=[FLOPS, make_table(SPACE, seed=9)])
    with pytest.raises(ValueError, match="cannot be named 'score'"):
        evolve(SPACE, score, costs=[CostTable(SPACE, 0, [], "score")])
    with pytest.raises(ValueError, match="a table to minimize"):
        nsga2(SPACE, score, minimize=[])
    for wrong in ([PARAMS, FLOPS <= 1e6], FLOPS <= 1e6):
        with pytest.raises(ValueError, match="`flops <= 1e.06` goes into limits="):
            nsga2(SPACE, score, minimize=wrong)
    with pytest.raises(ValueError, match="a score and 1 costs"):
        nsga2(SPACE, score, reference=(0.0,))
    with pytest.raises(ValueError, match="a score and 1 costs. Received: .*nan"):
        nsga2(SPACE, score, reference=(0.0, float("nan")))
    with pytest.raises(ValueError, match="costs takes .*search.Objective.*Received: "):
        evolve(SPACE, score, costs=len)
    with pytest.raises(ValueError, match="initial paths with flops <= .* Received: "):
        paths = SPACE.sample(9)
        limits = [PARAMS <= 1e9, FLOPS <= FLOPS(paths).min()]
        evolve(SPACE, score, limits=limits, initial=paths)
    with pytest.raises(ValueError, match="as a generation has, 4. Received: 9"):
        evolve(SPACE, score, initial=SPACE.sample(9), population=4)
    with pytest.raises(TypeError, match="minimized, not limited.*: ms <= 3"):
        search.Objective(SPACE, len, "ms") <= 3  # noqa: B015
    with pytest.raises(ValueError, match="no decisions"):
        evolve(make_space(), score)
    assert not score.calls


def test_one_limit_or_table_needs_no_list():
    options = {"population": 4, "generations": 2, "topk": 2}
    limit = FLOPS <= FLOPS(SPACE.sample(9))[0]
    alone = evolve(SPACE, Landscape(SPACE), limits=limit, **options)
    listed = evolve(SPACE, Landscape(SPACE), limits=[limit], **options)
    np.testing.assert_array_equal(alone.history.paths, listed.history.paths)
    one = nsga2(SPACE, Landscape(SPACE), minimize=FLOPS, limits=limit, **options)
    some = nsga2(
        SPACE, Landscape(SPACE), minimize=iter([FLOPS]), limits=iter([limit]), **options
    )
    assert one.front == some.front
    reported = evolve(SPACE, Landscape(SPACE), costs=FLOPS, **options)
    paths = reported.history.paths
    np.testing.assert_array_equal(reported.history.costs["flops"], FLOPS(paths))


def test_a_table_of_joint_options_can_be_a_limit():
    costs = np.array([[0.0, 9, 9, 9], [9, 0, 9, 9], [9, 9, 0, 9], [9, 9, 9, 0]])
    table = CostTable(SPACE, 0, [Block("both", (2, 7), costs)], "mismatch")
    result = evolve(SPACE, Landscape(SPACE), limits=[table <= 0], generations=3)
    np.testing.assert_array_equal(
        result.history.paths[:, 2], result.history.paths[:, 7]
    )


def test_the_callable_may_write_into_its_paths():
    truth = Landscape(SPACE)

    def score(paths):
        scores = truth(paths)
        paths[:] = 0
        return scores

    history = evolve(SPACE, score, generations=2).history
    assert [row["path"] for row in history] == truth.paths


def test_progress_bar_shows_the_best_score(capsys, tmp_path):
    checkpoint = tmp_path / "run.json"
    for generations in (2, 1):  # At last, of what the checkpoint has.
        result = search.evolve(
            SPACE, Landscape(SPACE), generations=generations, checkpoint=checkpoint
        )
        shown, n = capsys.readouterr().err, 50 * generations
        assert f"best={result.best.score:.5g}" in shown and "no more" not in shown
        assert f" {n}/{n} " in shown.split("\r")[-1]
    space = make_space(2, 3)
    search.evolve(space, Landscape(space))
    assert "Scored 6 of 1000 paths" in capsys.readouterr().err
    evolve(space, Landscape(space))
    assert not capsys.readouterr().err
