"""Search spaces with a known truth: scores and costs from small random tables."""

import itertools

import numpy as np

from keras_spos.costs import Block, CostTable
from keras_spos.space import Decision, SearchSpace


def make_space(*sizes):
    return SearchSpace(
        Decision(f"block_{i}", tuple(f"option_{j}" for j in range(size)))
        for i, size in enumerate(sizes)
    )


def make_table(space, name="flops", seed=0, base=10.0, pairs=False):
    """One random cost per option; with `pairs` neighbours have a joint cost too."""
    rng = np.random.default_rng(seed)
    sizes = space.sizes.tolist()
    blocks = [
        Block(f"block_{i}", (i,), rng.uniform(1, 5, size))
        for i, size in enumerate(sizes)
    ]
    if pairs:
        blocks += [
            Block(f"pair_{i}", (i + 1, i), rng.uniform(0, 5, size))
            for i, size in enumerate(zip(sizes[1:], sizes, strict=False))
        ]
    return CostTable(space, base, blocks, name)


def all_paths(space):
    return np.array(list(space.enumerate()))


class Landscape:
    """A score with additive and pairwise parts; it remembers what it was asked.

    Higher costs tend to score higher, so that a limit bites.
    """

    def __init__(self, space, seed=0):
        rng = np.random.default_rng(seed)
        self.single = [np.sort(rng.normal(size=size)) for size in space.sizes]
        self.double = {
            (i, j): rng.normal(size=(space.sizes[i], space.sizes[j])) / 2
            for i, j in itertools.pairwise(range(space.num_decisions))
        }
        self.calls = []

    @property
    def paths(self):
        return [path for call in self.calls for path in call]

    def truth(self, paths):
        total = sum(table[paths[:, i]] for i, table in enumerate(self.single))
        for (i, j), table in self.double.items():
            total = total + table[paths[:, i], paths[:, j]]
        return total

    def __call__(self, paths):
        self.calls.append([tuple(path) for path in paths.tolist()])
        return self.truth(paths)
