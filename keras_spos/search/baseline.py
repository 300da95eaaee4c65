"""Random search: the baseline of evolution at equal evaluations (SPOS, Figure 2)."""

from pymoo.core.algorithm import Algorithm

from keras_spos.search.arguments import check_integers
from keras_spos.search.loop import ask_tell
from keras_spos.search.operators import ArchitectureProblem, LegalSampling


def random_search(
    space,
    score,
    limits=(),
    evaluations=1000,
    batch=50,
    topk=10,
    seed=0,
    checkpoint=None,
    costs=(),
    verbose=True,
):
    """Scores random legal paths, each once.

    Args:
        space: The `SearchSpace`.
        score: See `evolve`.
        limits: `Limit`s that every candidate meets.
        evaluations: Number of paths to score.
        batch: Number of paths per call of `score`; a generation of the history.
        topk: Length of ``result.topk``.
        seed: An integer. The same seed draws the same paths.
        checkpoint: A file to write after each batch and to go on from; see `evolve`.
        costs: More `CostTable`s to report next to those of the limits.
        verbose: Whether to show a progress bar.

    Returns:
        A `Result`.

    Raises:
        InfeasibleLimitError: No path meets the limits.
        ValueError: An argument, a score or the checkpoint is not valid.
    """
    settings = {"algorithm": "random_search", "batch": batch, "seed": seed}
    check_integers(1, evaluations=evaluations, batch=batch, topk=topk)
    problem = ArchitectureProblem(space, limits)
    return ask_tell(
        RandomSearch(batch),
        problem,
        score,
        settings,
        batch=batch,
        evaluations=evaluations,
        checkpoint=checkpoint,
        costs=costs,
        topk=topk,
        verbose=verbose,
    )


class RandomSearch(Algorithm):
    """Asks for random legal candidates and learns nothing from what it is told."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch
        self.sampling = LegalSampling()

    def _initialize_infill(self):
        return self._infill()

    def _infill(self):
        return self.sampling(self.problem, self.batch, random_state=self.random_state)
