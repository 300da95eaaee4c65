"""Which path a training step takes.

A sampler draws from (seed, step) alone, on the host, in well under a millisecond: a
resumed run repeats its draws, and every replica draws the same. It has either
``draw(space, rng)``, with a generator seeded with (seed, step), or
``draw_step(space, seed, step)``, where a step's path depends on other steps' paths, or
on how far training has come.
"""

import operator

import keras
import numpy as np

from keras_spos.costs import CostTable, check_space


def draw(sampler, space, seed, step):
    """What a sampler draws for a training step.

    Args:
        sampler: An object with `draw` or `draw_step`.
        space: The `SearchSpace`.
        seed: An integer.
        step: Number of the step.

    Returns:
        One entry per decision: an option, or a tuple of options (path dropout).

    Raises:
        ValueError: The sampler draws something else.
    """
    if hasattr(sampler, "draw_step"):
        path = sampler.draw_step(space, seed, step)
    else:
        path = sampler.draw(space, np.random.default_rng((seed, step)))
    if not _is_drawn(path, space.sizes):
        raise ValueError(
            f"Expected {type(sampler).__name__} to draw an option, or a tuple "
            f"of options, for each of {space.num_decisions} decisions, less "
            f"than {space.sizes.tolist()}. Received: {path}"
        )
    return path


def _is_drawn(path, sizes):
    """Whether this is a path, or one with several options for some decisions."""
    if isinstance(path, np.ndarray) and path.dtype.kind == "i":
        return path.shape == sizes.shape and bool(np.all((path >= 0) & (path < sizes)))
    several = (tuple, list, frozenset)
    try:
        options = [c if isinstance(c, several) else (c,) for c in path]
        return len(path) == len(sizes) and all(
            len(own) > 0 and all(0 <= operator.index(i) < size for i in own)
            for own, size in zip(options, sizes.tolist(), strict=True)
        )
    except TypeError:
        return False


class Sampler:
    """Base of samplers that are saved with a supernet, by their arguments."""

    def get_config(self):
        """Mirrors `__init__`."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("keras_spos")
class UniformSampler(Sampler):
    """Every option of every decision with equal probability (SPOS, section 3)."""

    def draw(self, space, rng):
        """Draws a path.

        Args:
            space: The `SearchSpace`.
            rng: A `numpy.random.Generator`.

        Returns:
            A sequence with one integer per decision.
        """
        return rng.integers(0, space.sizes)


@keras.saving.register_keras_serializable("keras_spos")
class FairSampler(Sampler):
    """Every option of a decision once in as many consecutive steps as it has options.

    Uniform draws train some options more often than others; here each decision runs
    through a random permutation of its options, then through another ("strict
    fairness": Chu et al., "FairNAS", 2021, which adds up the gradients of such a round;
    here each step updates).
    """

    def draw_step(self, space, seed, step):
        """The path of a step, which depends on earlier ones of its round.

        Args:
            space: The `SearchSpace`.
            seed: An integer.
            step: Number of the step.

        Returns:
            A list with one integer per decision.
        """
        path = []
        for decision, size in enumerate(space.sizes.tolist()):
            number, position = divmod(step, size)
            rng = np.random.default_rng((seed, number, decision))
            path.append(int(rng.permutation(size)[position]))
        return path


@keras.saving.register_keras_serializable("keras_spos")
class CostRangeSampler(Sampler):
    """Uniform over ranges of a cost: SPOS's "uniform constraint sampling" (section 3).

    Draws one of the ranges, then uniform paths until one falls inside. If none of
    `max_draws` does, the nearest of them is taken, so that ranges far from what is
    common are trained too (the authors' code takes any path then).

    Args:
        table: A `CostTable`, such as `flops_table(net)`.
        bins: Pairs (low, high), or increasing edges ``[e0, e1, ...]`` that make the
            ranges between neighbours. The paper's: 290e6 to 360e6 in steps of 10e6.
        max_draws: Number of uniform paths to try.
    """

    def __init__(self, table, bins, max_draws=500):
        bins = np.asarray(bins, dtype=float)
        if bins.ndim == 1:
            bins = np.stack([bins[:-1], bins[1:]], axis=1)
        if bins.ndim != 2 or bins.shape[1] != 2:
            raise ValueError(
                "Expected pairs (low, high) or increasing edges [e0, e1, ...]. "
                f"Received: bins of shape {bins.shape}."
            )
        low, high = table.reachable_range()
        outside = [
            tuple(b)
            for b in bins
            if not (low <= b[1] and b[0] <= high and b[0] <= b[1])
        ]
        if outside or not len(bins):
            raise ValueError(
                f"Each range must overlap what the space reaches in {table.name}, "
                f"{low:g} to {high:g} {table.unit}. Received: {outside or bins}."
            )
        if max_draws < 1:
            raise ValueError(f"Expected max_draws >= 1. Received: {max_draws}")
        self.table = table
        self.bins = bins
        self.max_draws = max_draws
        self._space = None  # The space that the table was last compared with.

    def draw(self, space, rng):
        """Draws a path; see `UniformSampler.draw`.

        Raises:
            ValueError: The table belongs to another search space.
        """
        if space is not self._space:
            check_space(self.table, space)
            self._space = space
        low, high = self.bins[rng.integers(len(self.bins))]
        nearest, least, drawn = None, np.inf, 0
        while drawn < self.max_draws:
            n = min(50, self.max_draws - drawn)
            drawn += n
            paths = rng.integers(0, space.sizes, size=(n, space.num_decisions))
            costs = self.table(paths)
            outside = np.maximum(np.maximum(low - costs, costs - high), 0)
            best = np.argmin(outside)  # The first of those inside, if there are any.
            if outside[best] < least:
                nearest, least = paths[best], outside[best]
            if not least:
                break
        return nearest

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            "table": self.table.to_dict(),
            "bins": self.bins.tolist(),
            "max_draws": self.max_draws,
        }

    @classmethod
    def from_config(cls, config):
        """Inverse of `get_config`."""
        return cls(**{**config, "table": CostTable.from_dict(config["table"])})


@keras.saving.register_keras_serializable("keras_spos")
class WideningSampler(Sampler):
    """Uniform, with large widths at first and smaller ones admitted step by step.

    Supernets of operations and widths together are reported not to converge if widths
    of 0.2 and 0.4 are drawn from the start. At step s, the largest

        n = min(size, first + floor((size - first + 1) s / steps))

    options of each width decision are drawn from; all other decisions are uniform.

    Args:
        steps: The step from which on every width is admitted.
        first: How many widths are admitted at the start.
        suffix: How the names of the decisions of widths end; their options increase.
    """

    def __init__(self, steps, first=2, suffix="_width"):
        if steps < 1 or first < 1:
            raise ValueError(
                f"Expected steps and first of at least 1. Received: {steps=}, {first=}"
            )
        self.steps = steps
        self.first = first
        self.suffix = suffix

    def draw(self, space, rng):
        """Draws a path from all widths; see `UniformSampler.draw`."""
        return self._draw(space, rng, self.steps)

    def draw_step(self, space, seed, step):
        """Draws a training step's path from the widths that are admitted there."""
        return self._draw(space, np.random.default_rng((seed, step)), step)

    def _draw(self, space, rng, step):
        widths = np.array([d.name.endswith(self.suffix) for d in space.decisions])
        if not widths.any():
            raise ValueError(
                f"No decision's name ends in {self.suffix!r}. "
                f"Received: {[d.name for d in space.decisions]}"
            )
        later = np.maximum(space.sizes - self.first, 0)
        closed = later - np.minimum((later + 1) * step // self.steps, later)
        return rng.integers(np.where(widths, closed, 0), space.sizes)

    def get_config(self):
        """Mirrors `__init__`."""
        return {"steps": self.steps, "first": self.first, "suffix": self.suffix}


@keras.saving.register_keras_serializable("keras_spos")
class PathDropoutSampler(Sampler):
    """Drops each option with a probability, and averages those that are left.

    The baseline of SPOS's Figure 1 (Bender et al., 2018): where all options of a
    block would be dropped, one random option is kept. At rate 1 this is uniform
    single-path sampling. The mean rather than the sum is taken, so that what an option
    passes through unchanged (ShuffleNet's other half) keeps its scale.

    Args:
        rate: Probability that an option is dropped, in [0, 1].
    """

    def __init__(self, rate):
        if not 0 <= rate <= 1:
            raise ValueError(f"A drop rate is between 0 and 1. Received: rate={rate}")
        self.rate = rate

    def draw(self, space, rng):
        """Draws the options left of each decision, as a list of tuples."""
        active = []
        for size in space.sizes:
            kept = np.flatnonzero(rng.random(size) >= self.rate)
            if not len(kept):
                kept = [rng.integers(size)]
            active.append(tuple(int(i) for i in kept))
        return active

    def get_config(self):
        """Mirrors `__init__`."""
        return {"rate": self.rate}
