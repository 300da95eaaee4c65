"""The ask and tell loop that every searcher shares.

    for each generation:
        ask the algorithm for paths      (or take them from the checkpoint)
        score them                       (or take the scores from the checkpoint)
        tell the algorithm; write the checkpoint

The random numbers of a generation come from ``(seed, generation, phase)`` alone, so
telling an algorithm its checkpointed past puts it where it was when it was killed.
"""

import math
import sys

import numpy as np
from pymoo.core.population import Population
from pymoo.core.termination import NoTermination
from tqdm import tqdm

from keras_spos.costs import check_space
from keras_spos.search.arguments import check_integers
from keras_spos.search.checkpoint import Checkpoint, describe_table
from keras_spos.search.result import History, Result

_ASK, _TELL = 0, 1


def ask_tell(
    algorithm,
    problem,
    score,
    settings,
    *,
    batch,
    evaluations,
    checkpoint,
    costs,
    topk,
    verbose,
):
    """Runs a pymoo algorithm until `evaluations` paths are scored.

    Args:
        algorithm: A pymoo algorithm that asks for at most `batch` paths at a time.
        problem: The `ArchitectureProblem`.
        score: A callable from an int64 array ``[n, d]`` to `n` finite numbers. What its
            ``identity()`` says, if it has one, must be the same text when a search goes
            on.
        settings: JSON-able arguments of the search, its ``"seed"`` among them.
        batch: Number of paths in a generation.
        evaluations: Number of paths to score in all.
        checkpoint: A file name or None.
        costs: More tables to report.
        topk: Length of ``result.topk``.
        verbose: Whether to show a progress bar.

    Returns:
        A `Result`; its `exhausted` is true if too few legal paths were found.
    """
    check_integers(0, seed=settings["seed"])
    tables = _report_tables(problem, costs)
    settings = _full_settings(settings, problem)
    if checkpoint is not None and hasattr(score, "identity"):
        settings["score"] = str(score.identity())
    record = Checkpoint(checkpoint, problem.space, settings)
    algorithm.setup(problem, termination=NoTermination())
    seed, used = settings["seed"], 0
    with tqdm(
        total=evaluations,
        initial=min(len(record.scores), evaluations),
        unit="path",
        desc=settings["algorithm"],
        disable=not verbose,
    ) as progress:
        for generation in range(math.ceil(evaluations / batch)):
            wanted = min(batch, evaluations - used)
            paths, scores = _scored(
                algorithm, score, tables, record, seed, generation, wanted
            )
            if not len(paths):
                break  # no legal path is left
            _tell(algorithm, seed, generation, paths, scores)
            used += len(paths)
            progress.update(max(0, used - progress.n))
            progress.set_postfix(best=f"{record.scores[:used].max():.5g}")
        if verbose and used < evaluations:
            progress.write(
                f"Scored {used} of {evaluations} paths: no more legal ones were found.",
                file=sys.stderr,
            )
    history = History(
        problem.space,
        record.generations[:used],
        record.paths[:used],
        record.scores[:used],
        {
            table.name: checked_numbers(table, record.paths[:used], table.name)
            for table in tables
        },
    )
    return Result(
        history,
        topk=topk,
        minimize=[table.name for table in problem.minimize],
        exhausted=used < evaluations,
    )


def _scored(algorithm, score, tables, record, seed, generation, wanted):
    """Paths of a generation and their scores, which the record has or now gets."""
    paths, scores = record.generation(generation)
    paths, scores = paths[:wanted], scores[:wanted]
    if len(paths) == wanted or not record.may_grow(generation):
        return paths, scores
    asked = _ask(algorithm, seed, generation)[:wanted]
    record.check_repeats(asked, paths, generation)
    new = asked[len(paths) :]
    if len(new):
        record.check_writable()  # Before the work, not after.
        for table in tables:  # Before the scores, which take long.
            checked_numbers(table, new, table.name)
        new_scores = checked_numbers(score, new)
        record.append(generation, new, new_scores)
        scores = np.append(scores, new_scores)
    return asked, scores


def _ask(algorithm, seed, generation):
    """The paths that the algorithm wants scored, int64 ``[n, d]``."""
    algorithm.random_state = np.random.default_rng([seed, generation, _ASK])
    population = algorithm.ask()
    paths = np.empty(0) if population is None else population.get("X")
    return paths.astype(np.int64).reshape(-1, algorithm.problem.n_var)


def _tell(algorithm, seed, generation, paths, scores):
    """Hands the scores over and remembers the paths as visited."""
    algorithm.random_state = np.random.default_rng([seed, generation, _TELL])
    problem = algorithm.problem
    population = Population.new("X", paths)
    population.set("F", problem.objectives(paths, scores))
    algorithm.tell(infills=population)
    problem.visited.update(map(tuple, paths.tolist()))


def checked_numbers(function, paths, name="score"):
    """Calls a function of paths and refuses what a search cannot rank."""
    values = np.asarray(function(paths.copy()), dtype=np.float64)
    if values.shape != (len(paths),):
        raise ValueError(
            f"{name} returns one number per path, shape ({len(paths)},). Received: "
            f"shape {values.shape} for {len(paths)} paths, the first of which is "
            f"{tuple(paths[0].tolist())}."
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"{name} returns finite numbers. Received: {values[bad[0]]} for path "
            f"{tuple(paths[bad[0]].tolist())} ({len(bad)} of {len(paths)} paths)."
        )
    return values


def _report_tables(problem, costs):
    """The tables whose costs are reported: of limits, objectives and `costs`."""
    costs = (costs,) if callable(costs) else tuple(costs)
    for table in costs:
        if not hasattr(table, "to_dict"):
            raise ValueError(
                "costs takes cost tables, or callables as search.Objective(space, "
                f"function, name). Received: {table!r}"
            )
    tables = {}
    for table in [*(x.table for x in problem.limits), *problem.minimize, *costs]:
        known = tables.setdefault(table.name, table)
        if table.name in History.columns:
            raise ValueError(f"A table cannot be named {table.name!r} here: rename it.")
        if known is not table and describe_table(known) != describe_table(table):
            raise ValueError(
                f"Two different tables are named {table.name!r}: rename one."
            )
        check_space(table, problem.space)
    return list(tables.values())


def _full_settings(settings, problem):
    """Everything that decides which paths are asked for, next to the scores."""
    limits = [
        {**describe_table(limit.table), "value": limit.value}
        for limit in problem.limits
    ]
    minimize = [describe_table(table) for table in problem.minimize]
    settings = {**settings, "limits": limits, "minimize": minimize}
    return settings | ({"initial": str(problem.initial)} if problem.initial else {})
