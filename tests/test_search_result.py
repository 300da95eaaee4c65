"""What a search found: fronts, hypervolume, tables, files."""

import csv
import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from landscapes import Landscape, all_paths, make_space, make_table

from keras_spos import search

SPACE = make_space(*[4] * 12)
FLOPS = make_table(SPACE)

evolve = functools.partial(search.evolve, verbose=False)
nsga2 = functools.partial(search.nsga2, minimize=(FLOPS,), verbose=False)


def test_front_is_the_non_dominated_set():
    space = make_space(3, 3, 3, 3)
    tables = [make_table(space), make_table(space, "params", seed=1)]
    score, paths = Landscape(space), all_paths(space)
    result = nsga2(space, score, minimize=tables, population=20, generations=20)
    assert len(result.history) == 81
    objectives = np.stack([-score.truth(paths), *(t(paths) for t in tables)], axis=1)
    worse = (objectives[:, None] >= objectives).all(axis=2)
    worse &= (objectives[:, None] > objectives).any(axis=2)
    expected = set(map(tuple, paths[~worse.any(axis=1)].tolist()))
    assert {candidate.path for candidate in result.front} == expected
    costs = [candidate.costs["flops"] for candidate in result.front]
    assert costs == sorted(costs)


def test_of_equal_scores_the_cheapest_is_best(tmp_path):
    space = make_space(3, 3, 3)
    tables = [make_table(space), make_table(space, "params", seed=1)]
    paths = all_paths(space)

    def score(paths):
        return np.ones(len(paths))

    result = nsga2(space, score, minimize=tables, population=9, generations=4)
    assert len(result.history) == 27
    assert result.best == result.front[0]
    assert result.best.costs["flops"] == tables[0](paths).min()
    costs = [candidate.costs["flops"] for candidate in result.topk]
    assert costs == sorted(costs)
    result.to_json(tmp_path / "run.json")
    data = json.loads((tmp_path / "run.json").read_text())
    assert data["exhausted"] and data["minimize"] == ["flops", "params"]
    assert tuple(data["front"][0]["path"]) == result.best.path
    # A search that minimizes no cost keeps the first.
    found = evolve(space, score, generations=2, population=9, costs=tables)
    assert found.best == found.history.candidate(0)


def test_hypervolume_by_hand():
    # (score, cost) = (0.5, 1) and (0.8, 3) against (0, 4):
    # 0.5 * (4 - 1) + 0.8 * (4 - 3) - 0.5 * (4 - 3) = 1.8; the third is beyond.
    objectives = np.array([[-0.5, 1.0], [-0.8, 3.0], [-0.9, 5.0]])
    assert search.result.hypervolume(objectives, (0.0, 4.0)) == pytest.approx(1.8)


def test_default_reference_is_the_limit():
    limit = FLOPS <= np.median(FLOPS(SPACE.sample(1000)))
    result = nsga2(SPACE, Landscape(SPACE), limits=[limit], generations=1)
    assert result.reference == (0.0, limit.value)
    # A limit of another table is none of this one.
    highest = FLOPS.reachable_range()[1]
    other = make_table(SPACE, "params") <= highest - 1
    result = nsga2(SPACE, Landscape(SPACE), limits=[other], generations=1)
    assert result.reference == (0.0, highest)


def test_history_is_a_table(tmp_path):
    result = evolve(SPACE, Landscape(SPACE), generations=3, topk=4, costs=[FLOPS])
    history = result.history
    rows = history.by_generation(topk=4)
    assert [row["evaluations"] for row in rows] == [50, 100, 150]
    assert rows[1]["best"] == history.scores[:100].max() == rows[1]["topk"][0]
    assert rows[1]["mean"] == history.scores[50:100].mean()
    assert rows[2]["topk"] == sorted(history.scores, reverse=True)[:4]
    assert [c.score for c in result.topk] == rows[2]["topk"]
    history.to_csv(tmp_path / "new" / "run.csv")
    with open(tmp_path / "new" / "run.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["generation", "index", "path", "score", "flops"]
    assert len(lines) == 150
    assert SPACE.path_from_json(lines[70]["path"]) == history[70]["path"]
    assert float(lines[70]["score"]) == history[70]["score"] == history.scores[70]
    result.to_json(tmp_path / "run.json")
    data = json.loads((tmp_path / "run.json").read_text())
    assert tuple(data["best"]["path"]) == result.best.path
    assert SPACE.parse(data["best_choices"]) == result.best.path
    assert data["generations"] == rows
    assert history[-1] == history[149] and len(history[10:12]) == 2


NAMES_BEYOND_ASCII = """
import sys
from landscapes import Landscape, make_space, make_table
from keras_spos import CostTable, search

table, history = sys.argv[1:]
space = make_space(2, 3)
costs = [make_table(space, CostTable.load(table).name)]
score = Landscape(space)
result = search.random_search(space, score, evaluations=3, costs=costs, verbose=False)
result.history.to_csv(history)
"""


def test_files_are_utf8_whatever_the_locale(tmp_path):
    table = make_table(SPACE, "gr\u00f6sse").to_dict()
    table = json.dumps(table, ensure_ascii=False)
    (tmp_path / "table.json").write_text(table, encoding="utf-8")
    root = pathlib.Path(__file__).parents[1]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = os.pathsep.join([str(root), str(root / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", NAMES_BEYOND_ASCII, "table.json", "run.csv"],
        cwd=tmp_path,
        env={**os.environ, **plain, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with open(tmp_path / "run.csv", encoding="utf-8") as file:
        assert next(csv.reader(file))[-1] == json.loads(table)["name"]


def test_a_result_that_cannot_be_written_leaves_the_last(tmp_path):
    result = evolve(SPACE, Landscape(SPACE), generations=2)
    result.to_json(tmp_path / "run.json")
    before = (tmp_path / "run.json").read_text()
    result.reference = object()  # No JSON, and not the first thing that is written.
    with pytest.raises(TypeError):
        result.to_json(tmp_path / "run.json")
    assert (tmp_path / "run.json").read_text() == before
