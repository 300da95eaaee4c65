"""How a good architecture is found: evolution, random search and NSGA-II.

Every searcher sees a `SearchSpace`, limits, and a callable ``score(paths) -> scores``,
never a model. No architecture is scored twice, none breaks a limit, and a search that
was killed goes on from its checkpoint as if it had not been.

Example:
    >>> from keras_spos import search                              # doctest: +SKIP
    >>> limit = flops <= 330e6                                     # doctest: +SKIP
    >>> result = search.evolve(                                    # doctest: +SKIP
    ...     net.space, score, limits=[limit], checkpoint="run.json")
    >>> result.best.path, result.best.score, result.best.costs     # doctest: +SKIP
    >>> result.history.to_csv("run.csv")                           # doctest: +SKIP
"""

from keras_spos.search.baseline import random_search
from keras_spos.search.evolution import evolve
from keras_spos.search.multi_objective import nsga2
from keras_spos.search.objective import Objective
from keras_spos.search.result import Candidate, History, Result
from keras_spos.search.sampling import sample_legal

__all__ = [
    "Candidate",
    "History",
    "Objective",
    "Result",
    "evolve",
    "nsga2",
    "random_search",
    "sample_legal",
]
