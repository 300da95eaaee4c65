"""A random walk through all legal paths, one decision at a time.

With the decisions in some order, a prefix of a path can be completed within a limit if

    base + min over the open decisions of (sum over blocks of costs) <= value

The minimum is computed for all prefixes beforehand, by eliminating the decisions from
the last to the first (bucket elimination): blocks that share a decision are added, then
minimized over it. Under one limit no descent that keeps to this test can fail. Several
limits may exclude each other further down: then the walk backtracks.
"""

import math

import numpy as np

_LARGEST_SUM = 1_000_000  # entries; beyond it blocks are minimized one by one: a bound
_COMBINATIONS, _KEPT_COMBINATIONS = 32, 3


class Descent:
    """All legal paths in a random order.

    Args:
        space: The `SearchSpace`.
        limits: `Limit`s. Paths meet them up to rounding: check them once more.
        rng: A `numpy.random.Generator`.

    Attributes:
        steps: Number of options that all walks tried so far.
    """

    def __init__(self, space, limits, rng):
        self.steps = 0
        self.sizes = space.sizes
        self.order = rng.permutation(space.num_decisions).tolist()
        tests = [
            (_layers(factors, self.order), budget)
            for factors, budget in _inequalities(limits, rng)
        ]
        # Of the combinations those that are hardest to meet tell most.
        combinations = sorted(tests[len(limits) :], key=self._slack)
        self.tests = tests[: len(limits)] + combinations[:_KEPT_COMBINATIONS]

    def walk(self, rng, steps):
        """Yields legal paths by depth-first search.

        Args:
            rng: A `numpy.random.Generator`; it orders the options.
            steps: Number of options that may be tried.

        Yields:
            Every legal path once, as a tuple of integers. If the steps do not suffice,
            the last thing yielded is None.
        """
        path = [0] * len(self.order)
        known = [np.zeros(len(self.tests))]
        stack = [self._options(path, 0, known[0], rng)]
        while stack:
            option = next(stack[-1], None)
            if option is None:
                stack.pop()
                known.pop()
                continue
            if not steps:
                yield None
                return
            steps -= 1
            self.steps += 1
            path[self.order[len(stack) - 1]] = option
            if len(stack) == len(self.order):
                yield tuple(path)
            else:
                known.append(known[-1] + self._settled(path, len(stack)))
                stack.append(self._options(path, len(stack), known[-1], rng))

    def _slack(self, test):
        layers, budget = test
        lowest, _, factors = layers[0]
        # A number alone, if no factor depends on the first decision.
        return budget - np.min(lowest + sum(costs for _, costs in factors))

    def _settled(self, path, depth):
        """For each inequality, the factors that the last decision has settled."""
        return [
            sum(costs[tuple(path[d] for d in scope)] for scope, costs in settled)
            for _, settled, _ in (layers[depth] for layers, _ in self.tests)
        ]

    def _options(self, path, depth, known, rng):
        """Options of a decision from which every inequality can still be met.

        `known` is, for each inequality, the sum of all factors settled before.
        """
        decision = self.order[depth]
        allowed = np.ones(self.sizes[decision], dtype=bool)
        for (layers, budget), settled in zip(self.tests, known, strict=True):
            lowest, _, factors = layers[depth]
            for scope, costs in factors:
                index = (slice(None) if d == decision else path[d] for d in scope)
                lowest = lowest + costs[tuple(index)]
            allowed &= lowest + settled <= budget
        return iter(rng.permutation(np.flatnonzero(allowed)).tolist())


def _inequalities(limits, rng):
    """What a path must meet, as (factors, budget): sum of the factors <= budget.

    A factor is (decisions, costs). Positive combinations of the limits follow from
    them, but tell earlier that they exclude each other.
    """
    inequalities, scaled = [], []
    for limit in limits:
        table = limit.table
        factors = list(table.grouped().items())
        # The table adds its blocks in another order.
        budget = limit.value - table.base + limit.rounding()
        inequalities.append((factors, budget))
        low, high = table.reachable_range()
        scale = high - low if high > low else 1.0
        scaled.append(([(d, costs / scale) for d, costs in factors], budget / scale))
    if len(limits) > 1:
        for weights in rng.dirichlet(np.ones(len(limits)), size=_COMBINATIONS):
            factors = [
                (decisions, weight * costs)
                for weight, (one, _) in zip(weights, scaled, strict=True)
                for decisions, costs in one
            ]
            inequalities.append((factors, float(weights @ [b for _, b in scaled])))
    return inequalities


def _layers(factors, order):
    """`_eliminate`, with the factors that the decisions before have settled apart.

    Returns:
        A list of (constant, those settled by the decision before, those that are open).
    """
    layers = _eliminate(factors, order)
    positions = {decision: number for number, decision in enumerate(order)}
    # Once settled, a factor is in all layers that follow.
    depths = {
        id(factor): 1 + max(positions[d] for d in factor[0]) for factor in layers[-1][1]
    }
    never = len(order)
    return [
        (
            constant,
            [f for f in left if depths.get(id(f), never) == depth],
            [f for f in left if depths.get(id(f), never) > depth],
        )
        for depth, (constant, left) in enumerate(layers)
    ]


def _eliminate(factors, order):
    """Layers: number t has the factors minimized over all decisions after the t-th.

    Returns:
        A list of (constant, factors), one per decision, in the order.
    """
    constant = float(sum(costs for scope, costs in factors if not scope))
    layers = [(constant, [factor for factor in factors if factor[0]])]
    for decision in reversed(order[1:]):
        layers.append(_minimize(*layers[-1], decision))
    return layers[::-1]


def _minimize(constant, factors, decision):
    """Minimizes a sum of factors over one decision."""
    bucket = [factor for factor in factors if decision in factor[0]]
    result = [factor for factor in factors if decision not in factor[0]]
    while bucket:
        total, *others = bucket
        bucket = []
        for factor in others:
            merged = _add(total, factor)
            if merged is None:
                bucket.append(factor)
            else:
                total = merged
        scope, costs = total
        costs = costs.min(axis=scope.index(decision))
        if len(scope) == 1:
            constant += float(costs)
        else:
            result.append((tuple(d for d in scope if d != decision), costs))
    return constant, result


def _add(a, b):
    """Adds two factors over the union of their decisions; None if that is too large."""
    (scope, costs), (other_scope, other_costs) = a, b
    union = (*scope, *(d for d in other_scope if d not in scope))
    axes = sorted(range(len(other_scope)), key=lambda i: union.index(other_scope[i]))
    other_costs = other_costs.transpose(axes)
    sizes = dict(zip(scope, costs.shape, strict=True))
    sizes |= zip((other_scope[i] for i in axes), other_costs.shape, strict=True)
    if math.prod(sizes.values()) > _LARGEST_SUM:
        return None
    costs = costs.reshape([sizes[d] if d in scope else 1 for d in union])
    other_costs = other_costs.reshape(
        [sizes[d] if d in other_scope else 1 for d in union]
    )
    return union, costs + other_costs
