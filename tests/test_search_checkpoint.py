"""Killed and resumed equals never killed; a wrong checkpoint is refused."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from landscapes import Landscape, make_space, make_table
from test_search import SEARCHES, evolve, nsga2, random_search

from keras_spos import CostTable, search

SPACE = make_space(*[4] * 12)
FLOPS = make_table(SPACE)
LIMIT = FLOPS <= np.median(FLOPS(SPACE.sample(1000)))


def assert_same(a, b):
    np.testing.assert_array_equal(a.history.generations, b.history.generations)
    np.testing.assert_array_equal(a.history.paths, b.history.paths)
    np.testing.assert_array_equal(a.history.scores, b.history.scores)
    assert a.best == b.best and a.topk == b.topk and a.front == b.front
    assert a.history.by_generation() == b.history.by_generation()


def never(paths):
    raise AssertionError(f"scored {len(paths)} paths of a finished search")


class Failing(Landscape):
    """Raises in a later call."""

    def __init__(self, space, call, error):
        super().__init__(space)
        self.call, self.error = call, error

    def __call__(self, paths):
        if len(self.calls) == self.call:
            raise self.error
        return super().__call__(paths)


@SEARCHES
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_and_resumed_equals_uninterrupted(run, error, tmp_path):
    options = {"limits": [LIMIT], "generations": 6, "population": 20}
    whole = run(SPACE, Landscape(SPACE), **options)
    checkpoint = str(tmp_path / "new" / "run.json")
    first = Failing(SPACE, 3, error)
    with pytest.raises(error):
        run(SPACE, first, checkpoint=checkpoint, **options)
    second = Landscape(SPACE)
    resumed = run(SPACE, second, checkpoint=checkpoint, **options)
    assert_same(resumed, whole)
    assert len(first.paths) == len(second.paths) == 60
    assert set(first.paths).isdisjoint(second.paths)
    assert_same(run(SPACE, never, checkpoint=checkpoint, **options), whole)


CHILD = """
import sys, time, types
# The search needs no backend: skip the package's own imports, which take seconds.
package = types.ModuleType("keras_spos")
package.__path__ = [sys.argv[1]]
sys.modules["keras_spos"] = package
sys.path.insert(0, sys.argv[2])
from landscapes import Landscape, make_space, make_table
from keras_spos import search
space = make_space(*[4] * 12)
landscape = Landscape(space)
def score(paths):
    print("scoring", flush=True)
    time.sleep(0.02)
    return landscape(paths)
search.evolve(space, score, population=10, generations=10_000, topk=5,
              limits=[make_table(space) <= float(sys.argv[3])],
              checkpoint=sys.argv[4], verbose=False)
"""


def test_killed_and_resumed_equals_never_killed(tmp_path):
    checkpoint = tmp_path / "run.json"
    folders = [os.path.dirname(os.path.dirname(search.__file__))]
    folders += [os.path.dirname(__file__), repr(LIMIT.value), str(checkpoint)]
    command = [sys.executable, "-c", CHILD, *folders]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        for _ in range(4):  # Anywhere after the third generation.
            assert child.stdout.readline()
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    done = json.loads(checkpoint.read_text())["rows"]["generations"][-1] + 1
    options = {"population": 10, "generations": done + 3, "topk": 5, "limits": [LIMIT]}
    score = Landscape(SPACE)
    resumed = evolve(SPACE, score, checkpoint=str(checkpoint), **options)
    assert len(score.paths) == 30
    assert_same(resumed, evolve(SPACE, Landscape(SPACE), **options))


@SEARCHES
def test_more_or_fewer_generations(run, tmp_path):
    checkpoint = str(tmp_path / "run.json")
    run(SPACE, Landscape(SPACE), generations=3, checkpoint=checkpoint)
    more = Landscape(SPACE)
    longer = run(SPACE, more, generations=5, checkpoint=checkpoint)
    assert len(more.paths) == 100
    assert_same(longer, run(SPACE, Landscape(SPACE), generations=5))
    content = (tmp_path / "run.json").read_bytes()
    shorter = run(SPACE, never, generations=2, checkpoint=checkpoint)
    assert_same(shorter, run(SPACE, Landscape(SPACE), generations=2))
    assert (tmp_path / "run.json").read_bytes() == content


def test_evaluations_need_not_fill_a_batch(tmp_path):
    options = {"verbose": False, "checkpoint": str(tmp_path / "run.json")}
    for evaluations in (30, 70, 70, 165):
        score = Landscape(SPACE)
        part = search.random_search(SPACE, score, evaluations=evaluations, **options)
        assert len(part.history) == evaluations
    assert len(score.paths) == 95
    whole = search.random_search(
        SPACE, Landscape(SPACE), evaluations=165, verbose=False
    )
    assert_same(part, whole)
    fewer = search.random_search(SPACE, never, evaluations=30, **options)
    np.testing.assert_array_equal(fewer.history.paths, whole.history.paths[:30])
    with pytest.raises(ValueError, match=r"batch \(50 there, 30 here\)"):
        search.random_search(SPACE, never, batch=30, **options)


def test_a_table_is_known_by_its_costs_alone(tmp_path):
    described = {"unit": "MAC", "metadata": {"measured": "again"}}
    same = CostTable.from_dict({**FLOPS.to_dict(), **described})
    options = {"generations": 2, "population": 5, "checkpoint": tmp_path / "run.json"}
    evolve(SPACE, Landscape(SPACE), costs=[FLOPS], limits=[LIMIT], **options)
    options["population"] = np.int64(5)
    evolve(SPACE, never, costs=[FLOPS], limits=[same <= LIMIT.value], **options)


def test_other_draws_go_on_after_whole_generations_alone(tmp_path, monkeypatch):
    options = {"batch": 10, "verbose": False, "checkpoint": tmp_path / "run.json"}
    first = search.random_search(SPACE, Landscape(SPACE), evaluations=20, **options)
    # As another version of the software may draw.
    monkeypatch.setattr(search.loop, "_ASK", 2)
    more = search.random_search(SPACE, Landscape(SPACE), evaluations=25, **options)
    np.testing.assert_array_equal(more.history.paths[:20], first.history.paths)
    monkeypatch.setattr(search.loop, "_ASK", 3)
    with pytest.raises(ValueError, match="within generation 2, .* draws other paths"):
        search.random_search(SPACE, never, evaluations=30, **options)


@SEARCHES
def test_an_exhausted_search_is_finished(run, tmp_path):
    space = make_space(3, 4, 2)
    options = {"checkpoint": str(tmp_path / "run.json"), "population": 10}
    if run is nsga2:
        options["minimize"] = [make_table(space)]
    whole = run(space, Landscape(space), **options)
    assert len(whole.history) == 24
    assert_same(run(space, never, **options), whole)


def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path):
    checkpoint = tmp_path / "run.json"
    options = {"generations": 2, "checkpoint": str(checkpoint)}
    evolve(SPACE, Landscape(SPACE), **options)
    content = checkpoint.read_bytes()
    damaged = [content[:n] for n in (0, 1, len(content) // 2, len(content) - 1)]
    digit = content.index(b'"scores": [') + 20
    damaged.append(content[:digit] + b"77" + content[digit + 2 :])
    damaged += [b"[]", b"3", b"\xff\xfe", b'{"settings": {}}']
    for text in damaged:
        checkpoint.write_bytes(text)
        with pytest.raises(ValueError, match="run.json is not a complete.*remove it"):
            evolve(SPACE, never, **options)
        assert checkpoint.read_bytes() == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"population": 51}, "population"),
        ({"topk": 9}, "topk"),
        ({"crossover": 10, "mutation": 25}, r"crossover \(25 there, 10 here"),
        ({"mutation": 10}, r"mutation \(25 there, 10 here"),
        ({"mutation_probability": 0.2}, "mutation_probability"),
        ({"limits": [FLOPS <= 40.5]}, "limits .*<= 40.5"),
        ({"limits": [make_table(SPACE, seed=9) <= LIMIT.value]}, "limits"),
        ({"limits": []}, "limits .*none here"),
        ({"space": make_space(*[4] * 11, 3), "limits": []}, "space"),
    ],
)
def test_a_foreign_checkpoint_is_refused_and_kept(change, message, tmp_path):
    checkpoint = tmp_path / "run.json"
    options = {"space": SPACE, "limits": [LIMIT], "generations": 1}
    options["checkpoint"] = str(checkpoint)
    evolve(score=Landscape(SPACE), **options)
    content = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=f"another search.* differs in: .*{message}"):
        evolve(score=never, **options | change)
    assert checkpoint.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 1}, r"another search.* seed \(1 there, 0 here\)"), ({}, "was changed")],
)
def test_two_searches_do_not_write_to_one_file(change, message, tmp_path):
    options = {"checkpoint": str(tmp_path / "run.json"), "population": 5}
    other = Landscape(SPACE)

    def score(paths):
        # Another process has begun meanwhile, and is ahead.
        if not other.calls:
            evolve(SPACE, other, generations=3, **options | change)
        return other.truth(paths)

    with pytest.raises(ValueError, match=message):
        evolve(SPACE, score, generations=2, **options)
    kept = evolve(SPACE, never, generations=3, **options | change)
    assert [row["path"] for row in kept.history] == other.paths


def test_scores_of_another_supernet_are_refused(tmp_path):
    class Identified(Landscape):
        def identity(self):
            return self.weights

    options = {"checkpoint": str(tmp_path / "run.json"), "generations": 1}
    score = Identified(SPACE)
    score.weights = ("weights", 1)  # Anything that `str` tells apart.
    first = evolve(SPACE, score, **options)
    again = evolve(SPACE, score, **options)
    np.testing.assert_array_equal(first.history.scores, again.history.scores)
    score.weights = ("weights", 2)
    with pytest.raises(ValueError, match=r"score \(.*, 1\) there, .*, 2\) here\)"):
        evolve(SPACE, score, **options)


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path):
    checkpoint = str(tmp_path / "run.json")
    random_search(SPACE, Landscape(SPACE), generations=1, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="algorithm"):
        evolve(SPACE, never, checkpoint=checkpoint)
    options = {"generations": 1, "checkpoint": str(tmp_path / "nsga2.json")}
    nsga2(SPACE, Landscape(SPACE), **options)
    with pytest.raises(ValueError, match=r"mutation_probability \(0.1 there, 0.2"):
        nsga2(SPACE, never, mutation_probability=0.2, **options)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: np.where(np.arange(len(s)) == 7, np.nan, s), "nan for path"),
        (lambda s: np.where(np.arange(len(s)) == 7, np.inf, s), "inf for path"),
        (lambda s: s[:, None], r"shape \(50,\). Received: shape \(50, 1\)"),
        (lambda s: s[1:], r"Received: shape \(49,\)"),
        (lambda s: s.mean(), r"Received: shape \(\)"),
    ],
)
def test_scores_that_cannot_be_ranked(spoil, message, tmp_path):
    checkpoint = str(tmp_path / "run.json")
    good = Landscape(SPACE)

    def bad(paths):
        scores = good(paths)
        return spoil(scores) if len(good.calls) == 2 else scores

    with pytest.raises(ValueError, match=message) as caught:
        evolve(SPACE, bad, generations=3, checkpoint=checkpoint)
    culprit = good.calls[1][7 if "for path" in message else 0]
    assert str(culprit) in str(caught.value)
    again = Landscape(SPACE)
    evolve(SPACE, again, generations=3, checkpoint=checkpoint)
    assert len(again.paths) == 100
