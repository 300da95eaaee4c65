"""Which paths of a `MultiPathBlock` a training step takes.

Decisions of other kinds are drawn uniformly.

Example:
    >>> net.sampler = MultiPathSampler.of(net.searchable_layers)   # doctest: +SKIP
"""

import collections

import keras
import numpy as np

from keras_spos.layers import MultiPathBlock
from keras_spos.samplers import Sampler


class _BlockSampler(Sampler):
    """Knows which paths each option of a decision runs.

    Args:
        options: Dict from a decision's name to the (group, paths) of each option.
    """

    def __init__(self, options):
        self.options = {
            name: [(int(group), tuple(int(i) for i in paths)) for group, paths in pairs]
            for name, pairs in options.items()
        }

    @classmethod
    def of(cls, blocks, **arguments):
        """A sampler for the `MultiPathBlock`s among some layers."""
        options = {
            b.decision: b.options for b in blocks if isinstance(b, MultiPathBlock)
        }
        return cls(options, **arguments)

    def draw(self, space, rng):
        """Draws a path; see `UniformSampler.draw`."""
        return [
            self._draw_one(self.options[d.name], rng)
            if d.name in self.options
            else int(rng.integers(len(d.options)))
            for d in space.decisions
        ]

    def get_config(self):
        """Mirrors `__init__`."""
        return {"options": self.options}


@keras.saving.register_keras_serializable("keras_spos")
class MultiPathSampler(_BlockSampler):
    """A number of paths m' ~ U{1, ..., m}, then m' of them (MixPath, section 3.3).

    Uniform over the options of m' paths.

    Args:
        options: Dict from a decision's name to the (group, paths) of each option.
    """

    def _draw_one(self, options, rng):
        counts = np.array([len(paths) for _, paths in options])
        count = rng.choice(np.unique(counts))
        return int(rng.choice(np.flatnonzero(counts == count)))


@keras.saving.register_keras_serializable("keras_spos")
class BernoulliSampler(_BlockSampler):
    """Each path on its own with probability p (MixPath, section 3.2, Algorithm 1).

    Drawn again while what is on is no option: no path, more than the block's m, or, of
    several groups, paths of more than one. An option of k paths is then drawn with a
    probability proportional to (p / (1 - p))^k.

    Args:
        options: Dict from a decision's name to the (group, paths) of each option.
        probability: Probability of a path, between 0 and 1.
    """

    def __init__(self, options, probability=0.5):
        super().__init__(options)
        if not 0 < probability < 1:
            raise ValueError(
                "A path's probability is between 0 and 1. "
                f"Received: probability={probability}"
            )
        self.probability = probability

    def _draw_one(self, options, rng):
        odds = self.probability / (1 - self.probability)
        weights = np.array([odds ** len(paths) for _, paths in options])
        return int(rng.choice(len(options), p=weights / weights.sum()))

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "probability": self.probability}


@keras.saving.register_keras_serializable("keras_spos")
class OneShotSampler(_BlockSampler):
    """All paths but those dropped: One-Shot (Bender et al., 2018; MixPath, Figure 3).

    Of a group, drawn uniformly, each path is dropped with a probability. Those that are
    left are added; if none is, one random path is kept. The rate grows while the
    supernet trains: see `callbacks.GrowPathDropout`.

    Args:
        options: Dict from a decision's name to the (group, paths) of each option; every
            subset of a group's paths must be one, that is ``max_paths`` their number.
        rate: Probability that a path is dropped.
    """

    def __init__(self, options, rate=0.0):
        super().__init__(options)
        for name, given in self.options.items():
            subsets = {(group, frozenset(paths)) for group, paths in given}
            known = {(group, path) for group, paths in subsets for path in paths}
            sizes = collections.Counter(group for group, _ in known)
            if len(subsets) < sum(2**size - 1 for size in sizes.values()):
                raise ValueError(
                    "Expected every subset of a group's paths as an option "
                    f"(max_paths their number). Received: {name!r} with {given}"
                )
        if not 0 <= rate <= 1:
            raise ValueError(f"A drop rate is between 0 and 1. Received: rate={rate}")
        self.rate = rate

    def _draw_one(self, options, rng):
        group = rng.choice(sorted({group for group, _ in options}))
        singles = [
            paths[0] for number, paths in options if number == group and len(paths) == 1
        ]
        kept = [path for path in singles if rng.random() >= self.rate]
        if not kept:
            kept = [singles[rng.integers(len(singles))]]
        # The paths of a subset may be in any order.
        sets = [(number, set(paths)) for number, paths in options]
        return sets.index((group, set(kept)))

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "rate": self.rate}
