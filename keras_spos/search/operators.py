"""The categorical operators that the searchers hand to pymoo.

A child is made of option indices, so genes are exchanged or redrawn, never blended.
`NewAndLegal` is where the two promises are kept: nothing twice, nothing over a limit.
"""

import numpy as np
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.core.selection import Selection
from pymoo.core.survival import Survival

from keras_spos.search.arguments import checked_limits, checked_space
from keras_spos.search.loop import checked_numbers
from keras_spos.search.sampling import meets, sample_legal


class ArchitectureProblem(Problem):
    """A search space with limits, as pymoo sees it; it evaluates nothing.

    Args:
        space: The `SearchSpace`.
        limits: `Limit`s that every candidate meets.
        minimize: `CostTable`s that are objectives, next to the negative score.
        initial: Legal paths to begin with, tuples.
    """

    def __init__(self, space, limits=(), minimize=(), initial=()):
        if not checked_space(space).num_decisions:
            raise ValueError("The search space has no decisions: nothing to search.")
        super().__init__(n_var=space.num_decisions, n_obj=1 + len(minimize))
        self.space = space
        self.limits = checked_limits(limits)
        self.minimize = tuple(minimize)
        self.initial = tuple(initial)
        self.visited = set()

    def objectives(self, paths, scores):
        """What pymoo minimizes, a float array ``[n, 1 + tables]``."""
        costs = [checked_numbers(table, paths, table.name) for table in self.minimize]
        return np.column_stack([-scores, *costs])


class LegalSampling(Sampling):
    """The initial paths, then random legal candidates; none that was visited."""

    def _do(self, problem, n_samples, random_state=None, **kwargs):
        exclude = problem.visited.union(problem.initial)
        missing = n_samples - len(problem.initial)
        drawn = sample_legal(
            problem.space, missing, problem.limits, random_state, exclude
        )
        return np.array([*problem.initial, *drawn]).reshape(-1, problem.n_var)


class UniformSelection(Selection):
    """Parents drawn uniformly and independently: both may be the same."""

    def _do(self, problem, pop, n_select, n_parents, random_state=None, **kwargs):
        return random_state.integers(len(pop), size=(n_select, n_parents))


class GeneCrossover(Crossover):
    """One child from two parents, each gene from either with probability 1/2."""

    def __init__(self):
        # Always crosses: pymoo's default leaves one pair in ten alone.
        super().__init__(n_parents=2, n_offsprings=1, prob=1.0)

    def _do(self, problem, X, random_state=None, **kwargs):
        first, second = X
        return np.where(random_state.random(first.shape) < 0.5, first, second)[None]


class RedrawMutation(Mutation):
    """Redraws each gene with a probability, uniformly: it may draw the old value."""

    def __init__(self, probability):
        super().__init__()
        self.probability = probability

    def _do(self, problem, X, random_state=None, **kwargs):
        redraw = random_state.random(X.shape) < self.probability
        values = random_state.integers(0, problem.space.sizes, size=X.shape)
        return np.where(redraw, values, X)


class TopK(Survival):
    """Keeps the best scores; of equal ones those that came first."""

    def _do(self, problem, pop, n_survive=None, **kwargs):
        order = np.argsort(pop.get("F")[:, 0], kind="stable")
        return pop[order[:n_survive]]


class NewAndLegal(DuplicateElimination):
    """Drops what breaks a limit, was visited before, or repeats another child."""

    def __init__(self, problem):
        super().__init__()
        self.problem = problem

    def do(self, pop, *others, **kwargs):
        """Returns what may be scored of `pop`, an empty population if nothing may."""
        paths = pop.get("X")
        legal = meets(self.problem.limits, paths)
        taken = {path for other in others for path in paths_of(other)}
        keep = []
        for i, path in enumerate(map(tuple, paths.tolist())):
            if legal[i] and path not in self.problem.visited and path not in taken:
                taken.add(path)
                keep.append(i)
        return pop[keep]


def paths_of(population):
    """The paths of a population, as a list of tuples of Python integers."""
    return [tuple(individual.X.tolist()) for individual in population]


def fill(problem, children, n, random_state):
    """Adds random legal candidates until there are `n` children, as far as they go."""
    missing = n - len(children)
    if missing <= 0:
        return children
    exclude = problem.visited.union(paths_of(children))
    paths = sample_legal(problem.space, missing, problem.limits, random_state, exclude)
    return Population.merge(children, Population.new("X", paths))
