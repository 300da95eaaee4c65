"""NSGA-II over score and costs: a front instead of one architecture.

Objectives, all minimized by pymoo: ``(-score, cost of each table)``. One path dominates
another if it is no worse in any objective and better in one.

Example:
    >>> result = search.nsga2(net.space, score, minimize=[flops])   # doctest: +SKIP
    >>> [(c.score, c.costs["flops"]) for c in result.front]         # doctest: +SKIP
"""

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.core.mating import Mating
from pymoo.operators.selection.tournament import TournamentSelection

from keras_spos.search.arguments import (
    check_integers,
    checked_initial,
    checked_limits,
    checked_objectives,
)
from keras_spos.search.loop import ask_tell
from keras_spos.search.operators import (
    ArchitectureProblem,
    GeneCrossover,
    LegalSampling,
    NewAndLegal,
    RedrawMutation,
    fill,
)
from keras_spos.search.result import hypervolume


def nsga2(
    space,
    score,
    minimize,
    limits=(),
    population=50,
    generations=20,
    mutation_probability=0.1,
    reference=None,
    topk=10,
    seed=0,
    checkpoint=None,
    costs=(),
    verbose=True,
    initial=(),
):
    """Finds the paths that trade score against one or more costs best.

    ``result.front`` is the non-dominated set over everything that was scored, and
    ``result.history.by_generation()`` has its hypervolume after each generation.

    Args:
        space: The `SearchSpace`.
        score: See `evolve`.
        minimize: `CostTable`s to minimize next to maximizing the score, or
            `Objective`s, which wrap any callable.
        limits: `Limit`s that every candidate meets.
        population: Number of paths that a generation scores, and that survive it.
        generations: Number of generations, the random first one included.
        mutation_probability: Probability with which a child redraws a decision.
        reference: Reference point of the hypervolume, ``(score, cost, ...)``: what is
            worse than it in any objective counts for nothing. Defaults to a score of 0
            and for each table its lowest limit, or its highest cost if it has none.
            Give it if scores may be negative.
        topk: Length of ``result.topk``.
        seed: An integer. The same seed and scores give the same search.
        checkpoint: A file to write after each generation and to go on from; see
            `evolve`.
        costs: More `CostTable`s to report.
        verbose: Whether to show a progress bar.
        initial: Paths that the first generation has; see `evolve`.

    Returns:
        A `Result`.

    Raises:
        InfeasibleLimitError: No path meets the limits.
        ValueError: An argument, a score or the checkpoint is not valid.
    """
    limits, minimize = checked_limits(limits), checked_objectives(minimize)
    check_integers(1, population=population, generations=generations, topk=topk)
    if reference is None:
        reference = (0.0, *(_worst(table, limits) for table in minimize))
        if not np.all(np.isfinite(reference)):
            raise ValueError(
                "An Objective without a worst value needs the reference point of the "
                f"hypervolume, (score, cost, ...). Received: reference={reference}"
            )
    if len(reference) != 1 + len(minimize) or np.any(np.isnan(reference)):
        raise ValueError(
            f"The reference point has a score and {len(minimize)} costs. "
            f"Received: {reference}"
        )
    settings = {
        "algorithm": "nsga2",
        "population": population,
        "mutation_probability": mutation_probability,
        "seed": seed,
    }
    initial = checked_initial(initial, space, limits, population)
    problem = ArchitectureProblem(space, limits, minimize, initial)
    result = ask_tell(
        NSGA2(
            pop_size=population,
            sampling=LegalSampling(),
            mating=FilledMating(problem, mutation_probability),
            eliminate_duplicates=NewAndLegal(problem),
        ),
        problem,
        score,
        settings,
        batch=population,
        evaluations=population * generations,
        checkpoint=checkpoint,
        costs=costs,
        topk=topk,
        verbose=verbose,
    )
    result.reference = tuple(float(value) for value in reference)
    history = result.history
    objectives = problem.objectives(history.paths, history.scores)
    history.hypervolume = [
        hypervolume(objectives[: row["evaluations"]], result.reference)
        for row in history.by_generation()
    ]
    return result


def _worst(table, limits):
    """The highest cost that a path may have."""
    values = [limit.value for limit in limits if limit.table.name == table.name]
    return min([table.reachable_range()[1], *values])


class FilledMating(Mating):
    """Tournament, crossover and mutation; what is missing is drawn at random."""

    def __init__(self, problem, mutation_probability):
        super().__init__(
            TournamentSelection(func_comp=binary_tournament),
            GeneCrossover(),
            RedrawMutation(mutation_probability),
            eliminate_duplicates=NewAndLegal(problem),
            n_max_iterations=10,
        )

    def do(self, problem, pop, n_offsprings, random_state=None, **kwargs):
        """Returns up to `n_offsprings` children, fewer if no other path is left."""
        children = super().do(
            problem, pop, n_offsprings, random_state=random_state, **kwargs
        )
        return fill(problem, children, n_offsprings, random_state)
