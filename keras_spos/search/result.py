"""What a search found, and every candidate on the way to it.

Example:
    >>> result.best.path, result.best.score, result.best.costs     # doctest: +SKIP
    >>> result.history.to_csv("run.csv")                           # doctest: +SKIP
    >>> pandas.DataFrame(list(result.history))                     # doctest: +SKIP
"""

import csv
import dataclasses
import json
import typing

import numpy as np
from pymoo.indicators.hv import HV
from pymoo.util.nds.non_dominated_sorting import find_non_dominated

from keras_spos.space import SearchSpace
from keras_spos.whole_file import whole_file


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One scored architecture.

    Args:
        path: Tuple of Python integers.
        score: What the search maximized.
        costs: Dict from table name to cost.
    """

    path: tuple[int, ...]
    score: float
    costs: dict[str, float]


@dataclasses.dataclass
class History:
    """Every candidate, in the order in which they were scored.

    A sequence of dicts with the keys of `columns` and one for each cost; the columns
    themselves are attributes.

    Args:
        space: The `SearchSpace`.
        generations: int64 array ``[n]``.
        paths: int64 array ``[n, num_decisions]``.
        scores: float64 array ``[n]``.
        costs: Dict from table name to a float64 array ``[n]``.
        hypervolume: List with one number per generation; None but after `nsga2`.
    """

    columns: typing.ClassVar = ("generation", "index", "path", "score")

    space: SearchSpace
    generations: np.ndarray
    paths: np.ndarray
    scores: np.ndarray
    costs: dict[str, np.ndarray]
    hypervolume: list[float] | None = None

    def __len__(self):
        return len(self.scores)

    def __getitem__(self, index):
        """One row as a dict, or a list of rows for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        candidate = self.candidate(index)
        return {
            "generation": int(self.generations[index]),
            "index": index,
            "path": candidate.path,
            "score": candidate.score,
            **candidate.costs,
        }

    def candidate(self, index):
        """The candidate that was scored as number `index`."""
        return Candidate(
            tuple(self.paths[index].tolist()),
            float(self.scores[index]),
            {name: float(values[index]) for name, values in self.costs.items()},
        )

    def ranking(self, minimize=()):
        """Indices from the best score to the worst.

        Args:
            minimize: Names of costs: of equal scores the cheapest is first. Then, of
                equal ones, the first.
        """
        costs = [self.costs[name] for name in reversed(minimize)]
        # Stable; the last key counts most.
        return np.lexsort([*costs, -self.scores])

    def by_generation(self, topk=10):
        """A summary row (dict) for each generation.

        Args:
            topk: How many of the best scores so far to list.

        Returns:
            Dicts with the generation, the evaluations so far, the best score so far,
            the generation's mean score, the top-k scores so far (highest first) and,
            after `nsga2`, the hypervolume.
        """
        rows = []
        for generation in np.unique(self.generations).tolist():
            seen = self.scores[self.generations <= generation]
            row = {
                "generation": generation,
                "evaluations": len(seen),
                "best": float(seen.max()),
                "mean": float(self.scores[self.generations == generation].mean()),
                "topk": np.sort(seen)[::-1][:topk].tolist(),
            }
            if self.hypervolume is not None:
                row["hypervolume"] = self.hypervolume[generation]
            rows.append(row)
        return rows

    def to_csv(self, path):
        """Writes one line per candidate; the path is a JSON list in one cell."""
        names = [*self.columns, *self.costs]
        with (
            whole_file(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for row in self:
                writer.writerow({**row, "path": json.dumps(row["path"])})


class Result:
    """What a search returns.

    Attributes:
        history: The `History` of everything that was scored.
        best: The `Candidate` with the highest score; of equal ones the cheapest by the
            costs in `minimize`, then the first.
        topk: The best `Candidate`s, in the same order.
        front: The non-dominated `Candidate`s over score and the costs in `minimize`,
            cheapest first. After a search with a single objective: the best.
        minimize: Names of the costs that were objectives.
        reference: Reference point of the hypervolume, ``(score, cost, ...)``, or None.
        exhausted: Whether fewer paths were scored than asked for, because no further
            legal ones were found.
    """

    def __init__(self, history, topk=10, minimize=(), reference=None, exhausted=False):
        self.history = history
        self.minimize = list(minimize)
        self.reference = reference
        self.exhausted = exhausted
        ranking = history.ranking(self.minimize)
        self.topk = [history.candidate(i) for i in ranking[:topk]]
        self.best = self.topk[0]
        self.front = [history.candidate(i) for i in front(history, self.minimize)]

    def __repr__(self):
        return f"Result(best={self.best}, evaluations={len(self.history)})"

    def to_json(self, path):
        """Writes everything as JSON, the best path with its options' names.

        The file is complete or is not there.
        """
        history = self.history
        data = {
            "best": dataclasses.asdict(self.best),
            "best_choices": history.space.describe(self.best.path),
            "topk": [dataclasses.asdict(candidate) for candidate in self.topk],
            "front": [dataclasses.asdict(candidate) for candidate in self.front],
            "minimize": self.minimize,
            "reference": self.reference,
            "exhausted": self.exhausted,
            "generations": history.by_generation(len(self.topk)),
            "history": list(history),
        }
        with whole_file(path) as temporary, open(temporary, "w") as file:
            json.dump(data, file, indent=1)


def front(history, minimize):
    """Indices of the candidates that no other one dominates, cheapest first.

    Args:
        history: A `History`.
        minimize: Names of the costs that count next to the score.
    """
    costs = [history.costs[name] for name in minimize]
    indices = find_non_dominated(np.column_stack([-history.scores, *costs]))
    keys = [history.scores[indices], *(cost[indices] for cost in reversed(costs))]
    return indices[np.lexsort(keys)]


def hypervolume(objectives, reference):
    """Volume that the objectives dominate, up to the reference point.

    Args:
        objectives: Float array ``[n, 1 + costs]`` of ``(-score, cost, ...)``.
        reference: ``(score, cost, ...)``; worse points count for nothing.
    """
    worst = np.array([-reference[0], *reference[1:]])
    return float(HV(ref_point=worst)(objectives))
