"""Does a supernet order architectures as their true accuracies do (SPOS, Table 8)?

    tau = (concordant - discordant pairs)
          / sqrt(pairs not tied in scores * pairs not tied in truth)        (tau-b)

Whoever scores architectures competes with their costs: on NAS-Bench-201, counting
multiply-adds alone reaches a tau of 0.58. So `report` puts the tau of every cost, and
the tau that is left among architectures of about equal cost, beside that of the scores.

Example:
    >>> kendall_tau([0.1, 0.2, 0.3, 0.4], [70, 80, 90, 85])        # doctest: +SKIP
    0.667
    >>> report(score(paths), truth, {"flops": flops(paths)})       # doctest: +SKIP
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    Args:
        value: The number, on all the data.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self):
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def kendall_tau(scores, truth):
    """Kendall's tau-b: 1 for the same order, 0 for none, -1 for the reverse.

    Pairs that are tied on either side count for nothing, and are taken out of the
    denominator. If all scores, or all truths, are equal, there is no order: 0.

    Args:
        scores: `n` numbers.
        truth: `n` numbers.
    """
    return tau_within(scores, truth, np.zeros(len(scores)))


def tau_within(scores, truth, groups):
    """Kendall's tau-b over the pairs of one group alone.

    Args:
        scores: `n` numbers.
        truth: `n` numbers.
        groups: `n` labels. Only pairs with equal labels are compared; the sums in the
            numerator and in the denominator of tau run over all groups.
    """
    scores, truth = _columns(scores, truth)
    groups = np.asarray(groups)
    if groups.shape != scores.shape:
        raise ValueError(
            f"Expected a group for each of {len(scores)} architectures. Received: "
            f"shape {groups.shape}."
        )
    difference, pairs_scores, pairs_truth = 0.0, 0.0, 0.0
    order = np.argsort(groups)
    starts = np.flatnonzero(groups[order][1:] != groups[order][:-1]) + 1
    for members in np.split(order, starts):
        parts = _concordance(scores[members], truth[members])
        difference += parts[0]
        pairs_scores += parts[1]
        pairs_truth += parts[2]
    if not pairs_scores or not pairs_truth:
        return 0.0
    # Two roots: the product may be beyond what a float holds exactly.
    return float(difference / np.sqrt(pairs_scores) / np.sqrt(pairs_truth))


def residual_tau(scores, truth, cost, bins=10):
    """The tau that is left among architectures of about equal cost.

    Args:
        scores: `n` numbers.
        truth: `n` numbers.
        cost: `n` numbers, such as FLOPs.
        bins: Number of `cost_bins`.
    """
    return tau_within(scores, truth, cost_bins(cost, bins))


def cost_bins(cost, bins=10):
    """Labels 0, 1, .. of ranges of a cost that hold about equally many architectures.

    Equal costs are never separated, so a cost with few values gives fewer ranges.

    Args:
        cost: `n` numbers.
        bins: Number of ranges.
    """
    if bins < 1:
        raise ValueError(f"Expected bins >= 1. Received: bins={bins}")
    cost = np.asarray(cost, dtype=np.float64)
    if not np.all(np.isfinite(cost)):
        raise ValueError("Expected finite costs. Received: NaN or infinity.")
    edges = np.quantile(cost, np.arange(1, bins) / bins, method="lower")
    return np.searchsorted(edges, cost, side="left")


def spearman(scores, truth):
    """Spearman's rho: the correlation of ranks. 0 if either side has no order.

    Args:
        scores: `n` numbers.
        truth: `n` numbers.
    """
    from scipy import stats  # Slow to import.

    ranks = [stats.rankdata(values) for values in _columns(scores, truth)]
    centred = [r - r.mean() for r in ranks]
    norm = np.prod([np.sqrt((c * c).sum()) for c in centred])
    return float((centred[0] * centred[1]).sum() / norm) if norm else 0.0


def topk_regret(scores, truth, k=10):
    """What is lost by training the `k` highest-scored architectures alone.

    The best truth of all, minus the best truth among the `k` with the highest scores
    (of equal scores the first count).

    Args:
        scores: `n` numbers.
        truth: `n` numbers.
        k: How many are taken.
    """
    if k < 1:
        raise ValueError(f"Expected k >= 1. Received: k={k}")
    scores, truth = _columns(scores, truth)
    chosen = np.argsort(-scores, kind="stable")[:k]
    return float(truth.max() - truth[chosen].max())


def bootstrap(statistic, *columns, resamples=200, confidence=0.95, seed=0):
    """A statistic with its percentile bootstrap interval over architectures.

    Architectures are drawn with replacement. Copies of one architecture are tied with
    each other on both sides, which tau-b leaves out.

    Args:
        statistic: A function of arrays ``[n]`` to a number.
        *columns: The arrays, one for each argument.
        resamples: How often to draw, at least once.
        confidence: Share of the resamples within the interval, above 0 and below 1.
        seed: Seed of the draws.

    Returns:
        An `Estimate`.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            "Expected resamples >= 1 and 0 < confidence < 1. Received: "
            f"resamples={resamples}, confidence={confidence}"
        )
    columns = [np.asarray(column) for column in columns]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            "Expected columns of one length, a row for each architecture. Received: "
            f"lengths {lengths}."
        )
    rng = np.random.default_rng(seed)
    n = lengths[0]
    values = []
    for _ in range(resamples):
        drawn = rng.integers(n, size=n)
        values.append(statistic(*(column[drawn] for column in columns)))
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(statistic(*columns)), float(low), float(high))


def joined(scores, cost):
    """Sums of the ranks by score and by cost: what both say, with equal weight.

    Supernets know little of what larger networks gain by longer training; costs know
    nothing else.

    Args:
        scores: `n` numbers.
        cost: `n` numbers, of which larger ones are thought to be better.

    Returns:
        A float array ``[n]``, larger for better.
    """
    from scipy import stats  # Slow to import.

    scores, cost = _columns(scores, cost, ("scores", "costs"))
    return stats.rankdata(scores) + stats.rankdata(cost)


def report(
    scores, truth, costs=None, k=10, bins=10, resamples=200, confidence=0.95, seed=0
):
    """Everything about one ranking, and its trivial rivals, as JSON-able data.

    Args:
        scores: `n` numbers, final: read the truth only once they are.
        truth: `n` numbers.
        costs: Dict from a cost's name, such as "flops", to `n` numbers. Each ranks
            alone, as a rival, and each gives ranges of about equal cost.
        k: For `topk_regret`.
        bins: For `residual_tau`.
        resamples: For `bootstrap`.
        confidence: For `bootstrap`.
        seed: For `bootstrap`.

    Returns:
        A dict with "n", "distinct_scores", "kendall_tau", "spearman", "top<k>_regret",
        and for each cost "<cost>_tau" (of the cost alone), "tau_with_<cost>" (of
        `joined` scores) and "residual_tau_in_<cost>". A statistic is a dict with
        "value", "low" and "high".
    """
    scores, truth = _columns(scores, truth)
    settings = {"resamples": resamples, "confidence": confidence, "seed": seed}
    statistics = {
        "kendall_tau": (kendall_tau, scores, truth),
        "spearman": (spearman, scores, truth),
        f"top{k}_regret": (lambda s, t: topk_regret(s, t, k), scores, truth),
    }
    for name, cost in (costs or {}).items():
        cost, _ = _columns(cost, truth, (f"costs {name!r}", "truth"))
        statistics[f"{name}_tau"] = (kendall_tau, cost, truth)
        statistics[f"tau_with_{name}"] = (kendall_tau, joined(scores, cost), truth)
        within = cost_bins(cost, bins)
        statistics[f"residual_tau_in_{name}"] = (tau_within, scores, truth, within)
    return {
        "n": len(scores),
        "distinct_scores": len(np.unique(scores)),
        **{
            name: dataclasses.asdict(bootstrap(*arguments, **settings))
            for name, arguments in statistics.items()
        },
    }


def _concordance(scores, truth):
    """Concordant minus discordant pairs, and the pairs not tied on either side."""
    untied = [_pairs(len(v)) - _tied_pairs(v) for v in (scores, truth)]
    if not all(untied):
        return 0.0, *untied
    from scipy import stats  # Slow to import.

    tau = stats.kendalltau(scores, truth).statistic
    return tau * np.sqrt(untied[0]) * np.sqrt(untied[1]), *untied


def _pairs(n):
    return n * (n - 1) / 2


def _tied_pairs(values):
    return float(_pairs(np.unique(values, return_counts=True)[1]).sum())


def _columns(scores, truth, names=("scores", "truth")):
    """Both as float arrays of one length; not a number is an error."""
    columns = [np.asarray(values, dtype=np.float64) for values in (scores, truth)]
    if columns[0].ndim != 1 or columns[0].shape != columns[1].shape:
        raise ValueError(
            f"Expected {names[0]} and {names[1]} of one length, a number for each "
            f"architecture. Received: shapes {columns[0].shape} and {columns[1].shape}."
        )
    if not len(columns[0]):
        raise ValueError("Expected at least one architecture. Received: none.")
    for name, values in zip(names, columns, strict=True):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ValueError(
                f"Expected finite {name}. Received: {values[bad[0]]} at {bad[0]}, "
                f"{len(bad)} in all."
            )
    return columns
