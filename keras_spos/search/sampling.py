"""Random candidates that meet every limit, however tight (SPOS, section 3).

A small space is listed. In a large one uniform draws are tried first; what is still
missing is built one decision at a time (`descent`), or moved towards the limits, and
mixed; at last, all legal paths are enumerated, which tells an exhausted or infeasible
space from bad luck.

Example:
    >>> sample_legal(net.space, 50, [flops <= 330e6], seed)        # doctest: +SKIP
"""

import numpy as np

from keras_spos.costs import InfeasibleLimitError
from keras_spos.search.arguments import check_integers, checked_limits
from keras_spos.search.descent import Descent

_SMALL_SPACE = 50_000  # number of paths that are simply listed
_DRAW_ROUNDS = 20  # rounds of uniform draws, each of at least 1,000 paths
_BUILD_ROUNDS = 10  # rounds of built paths
_BUILD_STEPS = 15  # options per decision that a descent may try: restarts pay more
_ROUND_STEPS = 3_000  # options that the descents of a round may try in all
_BUILDS_PER_ORDER = 8
_MIXING_SWEEPS = 4
_STARTS = 64  # random paths that are moved towards the limits, at least
_DESCENT_SWEEPS = 5
_ENUMERATION_STEPS = 20_000  # options that the enumeration may try (seconds)


def sample_legal(space, n, limits=(), seed=0, exclude=frozenset()):
    """Draws up to `n` different paths that meet every limit.

    Uniform over the legal paths when at least about one path in 1,000 is legal. Below
    that the built paths are near to uniform only: each is built with decisions and
    options in random order, then moved by Metropolis steps, whose target is uniform.

    Args:
        space: The `SearchSpace`.
        n: Number of paths wanted.
        limits: `Limit`s, all of which hold for every returned path.
        seed: An integer or a `numpy.random.Generator`.
        exclude: Set of paths (tuples) that must not be returned.

    Returns:
        An int64 array ``[m, num_decisions]``. ``m < n`` means that no further legal
        path exists, or that none was found within a bounded effort.

    Raises:
        InfeasibleLimitError: No path meets the limits (or none could be found).
        ValueError: An argument is not valid.
    """
    check_integers(0, n=n)
    limits, exclude = checked_limits(limits), frozenset(exclude)
    for limit in limits:
        limit.check_feasible()
    rng = np.random.default_rng(seed)
    found = {}  # a dict keeps the order, which a set does not
    n = min(n, space.size)

    def add(paths):
        for row in paths[meets(limits, paths)]:
            if len(found) == n:
                break
            path = tuple(row.tolist())
            if path not in exclude:
                found[path] = None

    if space.size <= _SMALL_SPACE:
        paths = np.indices(space.sizes).reshape(space.num_decisions, -1).T
        legal = paths[meets(limits, paths)]
        if not len(legal):
            raise InfeasibleLimitError(_infeasible_message(limits))
        add(rng.permutation(legal))
        return _as_array(found, space)
    for _ in range(_DRAW_ROUNDS):
        if len(found) == n:
            break
        add(space.sample(max(1000, 4 * n), rng))
    walks_fail = False
    for _ in range(_BUILD_ROUNDS):
        before = len(found)
        if before == n:
            break
        built = [] if walks_fail else _build(space, limits, rng, n - before)
        if walks_fail := not len(built):
            built = _descend(space, limits, rng, max(n - before, _STARTS))
        add(_mix(space, limits, rng, built))
        if len(found) == before:
            break
    if len(found) < n:
        # Paths that were excluded must not use up the effort.
        steps = _ENUMERATION_STEPS + 10 * len(exclude)
        legal, complete = _enumerate(space, limits, rng, steps)
        if not len(legal) and not found and not exclude:
            raise InfeasibleLimitError(
                _infeasible_message(limits, None if complete else steps)
            )
        add(rng.permutation(legal))
    return _as_array(found, space)


def meets(limits, paths):
    """Which paths meet every limit, as a bool array ``[n]``."""
    legal = np.ones(len(paths), dtype=bool)
    for limit in limits:
        legal &= limit.satisfied(paths)
    return legal


def _mix(space, limits, rng, paths):
    """Metropolis sweeps: redraw one decision, keep the draw where it is legal.

    Drawing decisions in turn favours paths that spend a budget early; the uniform
    distribution is what these symmetric moves leave unchanged.
    """
    paths = paths[meets(limits, paths)]
    for _ in range(_MIXING_SWEEPS):
        for decision in rng.permutation(space.num_decisions):
            moved = paths.copy()
            moved[:, decision] = rng.integers(space.sizes[decision], size=len(paths))
            legal = meets(limits, moved)
            paths[legal] = moved[legal]
    return paths


def _build(space, limits, rng, n):
    """`n` paths by independent descents, repeated if too few succeed, or none."""
    paths, steps = [], max(_ROUND_STEPS, 2 * n * space.num_decisions)
    while len(paths) < n and steps > 0:
        descent = Descent(space, limits, rng)
        for _ in range(_BUILDS_PER_ORDER):
            path = next(descent.walk(rng, _BUILD_STEPS * space.num_decisions), None)
            paths += [] if path is None else [path]
        if not descent.steps:
            break  # no first option is legal
        steps -= descent.steps
    paths = _as_array(paths, space)
    return paths[np.arange(n) % len(paths)] if len(paths) else paths


def _descend(space, limits, rng, n):
    """Moves `n` random paths towards the limits, one decision at a time.

    Many limits at once are met more often than a walk that must be right at every
    decision finds out.
    """
    paths = space.sample(n, rng)
    ranges = [np.ptp(limit.table.reachable_range()) or 1.0 for limit in limits]
    for _ in range(_DESCENT_SWEEPS):
        for decision in rng.permutation(space.num_decisions):
            size = space.sizes[decision]
            options = np.repeat(paths, size, axis=0)
            options[:, decision] = np.tile(np.arange(size), n)
            excess = sum(
                np.maximum(limit.table(options) - limit.value, 0) / scale
                for limit, scale in zip(limits, ranges, strict=True)
            )
            paths[:, decision] = excess.reshape(n, size).argmin(1)
    return paths


def _enumerate(space, limits, rng, steps):
    """All legal paths (or those found in time), and whether these are really all."""
    paths = list(Descent(space, limits, rng).walk(rng, steps))
    complete = None not in paths[-1:]
    paths = _as_array(paths if complete else paths[:-1], space)
    return paths[meets(limits, paths)], complete


def _as_array(paths, space):
    """A collection of `n` tuples as an int64 array ``[n, num_decisions]``."""
    array = np.array(list(paths), dtype=np.int64)
    return array.reshape(len(paths), space.num_decisions)


def _infeasible_message(limits, steps=None):
    """Says which limits nothing meets, or in how many steps nothing was found."""
    names = " and ".join(f"{limit.table.name} <= {limit.value:g}" for limit in limits)
    found = "meets" if steps is None else f"was found in {steps} steps that meets"
    alone = " Each limit alone may well be met, but not all together."
    return f"No architecture {found} {names}.{alone if len(limits) > 1 else ''}"
