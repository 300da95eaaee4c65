"""Evolutionary architecture search (SPOS, section 3, Algorithm 1).

    P_0 = random legal candidates;  Topk = {}
    for i = 1 .. T:
        score P_{i-1};  Topk = the k best of Topk and P_{i-1}
        P_i = n children by crossover and m by mutation of Topk

Example:
    >>> result = search.evolve(net.space, score, [flops <= 330e6])  # doctest: +SKIP
"""

from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.core.infill import InfillCriterion
from pymoo.core.population import Population

from keras_spos.search.arguments import (
    check_integers,
    checked_initial,
    checked_limits,
)
from keras_spos.search.loop import ask_tell
from keras_spos.search.operators import (
    ArchitectureProblem,
    GeneCrossover,
    LegalSampling,
    NewAndLegal,
    RedrawMutation,
    TopK,
    UniformSelection,
    fill,
)

_TRIES_PER_CHILD = 10


def evolve(
    space,
    score,
    limits=(),
    population=50,
    generations=20,
    topk=10,
    crossover=None,
    mutation=None,
    mutation_probability=0.1,
    seed=0,
    checkpoint=None,
    costs=(),
    verbose=True,
    initial=(),
):
    """Finds the path with the highest score that meets the limits.

    The paper's search with its defaults: 20 generations of 50, so 1,000 evaluations.

    Args:
        space: The `SearchSpace`.
        score: A callable from an int64 array ``[n, num_decisions]`` to `n` finite
            numbers. Higher is better. It is never called twice for one path.
        limits: `Limit`s, such as ``[flops <= 330e6]``. Every candidate meets them.
        population: Number of paths that a generation scores.
        generations: Number of generations, the random first one included.
        topk: Number of best paths, over all generations, that become parents.
        crossover: Number of children by crossover. Defaults to ``population // 2``.
        mutation: Number of children by mutation. Defaults to what is left. What
            neither delivers within 10 tries a child is filled with random paths.
        mutation_probability: Probability with which a mutation redraws a decision.
        seed: An integer. The same seed and scores give the same search.
        checkpoint: A file to write after each generation and to go on from. It knows
            this call's arguments and, of an `Evaluator`, weights, images and metric;
            what another callable does, keep the same.
        costs: More `CostTable`s to report next to those of the limits.
        verbose: Whether to show a progress bar.
        initial: Paths that the first generation has, such as known architectures: a
            list of at most `population` that meet the limits. Random ones complete it.

    Returns:
        A `Result`.

    Raises:
        InfeasibleLimitError: No path meets the limits.
        ValueError: An argument or a score is not valid, or the checkpoint is damaged or
            belongs to another search.
    """
    limits = checked_limits(limits)
    check_integers(1, population=population, generations=generations, topk=topk)
    crossover = population // 2 if crossover is None else crossover
    mutation = max(0, population - crossover) if mutation is None else mutation
    settings = {
        "algorithm": "evolve",
        "population": population,
        "topk": topk,
        "crossover": crossover,
        "mutation": mutation,
        "mutation_probability": mutation_probability,
        "seed": seed,
    }
    check_integers(0, crossover=crossover, mutation=mutation)
    if crossover + mutation > population:
        raise ValueError(
            "crossover + mutation is at most population. Received: "
            f"crossover={crossover}, mutation={mutation}, population={population}."
        )
    if not 0 <= mutation_probability <= 1:
        raise ValueError(
            f"mutation_probability is within 0 and 1. Received: {mutation_probability}"
        )
    initial = checked_initial(initial, space, limits, population)
    problem = ArchitectureProblem(space, limits, initial=initial)
    algorithm = TopKEvolution(
        problem, population, topk, crossover, mutation, mutation_probability
    )
    return ask_tell(
        algorithm,
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


class TopKEvolution(GeneticAlgorithm):
    """Algorithm 1 for pymoo's ask and tell; its population is the top k."""

    def __init__(
        self, problem, population, topk, crossover, mutation, mutation_probability
    ):
        super().__init__(
            pop_size=topk,
            n_offsprings=population,
            sampling=LegalSampling(),
            survival=TopK(),
            mating=TopKMating(problem, crossover, mutation, mutation_probability),
            eliminate_duplicates=NewAndLegal(problem),
        )

    def _initialize_infill(self):
        return self.initialization.do(
            self.problem, self.n_offsprings, random_state=self.random_state
        )

    def _initialize_advance(self, infills=None, **kwargs):
        self.pop = self.survival.do(self.problem, infills, n_survive=self.pop_size)


class TopKMating(InfillCriterion):
    """Children by crossover, then by mutation, then at random."""

    def __init__(self, problem, crossover, mutation, mutation_probability):
        super().__init__(eliminate_duplicates=NewAndLegal(problem))
        self.selection = UniformSelection()
        self.crossover = GeneCrossover()
        self.mutation = RedrawMutation(mutation_probability)
        self.shares = ((self._cross, crossover), (self._mutate, mutation))

    def do(self, problem, pop, n_offsprings, random_state=None, **kwargs):
        """Returns up to `n_offsprings` children, fewer if no other path is left."""
        children = Population.empty()
        for breed, n in self.shares:
            wanted, tries = len(children) + n, _TRIES_PER_CHILD * n
            while len(children) < wanted and tries:
                batch = breed(
                    problem, pop, min(wanted - len(children), tries), random_state
                )
                tries -= len(batch)
                batch = self.eliminate_duplicates.do(batch, children)
                children = Population.merge(children, batch)
        return fill(problem, children, n_offsprings, random_state)

    def _cross(self, problem, topk, n, random_state):
        parents = self.selection(problem, topk, n, 2, random_state=random_state)
        return self.crossover(problem, parents, random_state=random_state)

    def _mutate(self, problem, topk, n, random_state):
        parents = self.selection(problem, topk, n, 1, random_state=random_state)
        # Copies: pymoo's mutation writes into the individuals that it is given.
        copies = Population.new("X", parents[:, 0].get("X"))
        return self.mutation(problem, copies, random_state=random_state)
