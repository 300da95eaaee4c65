"""Rank statistics equal their definitions, pair by pair, and scipy's."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from keras_spos import ranking


def tau_by_pairs(scores, truth, groups=None):
    """Tau-b from its definition, one pair after the other."""
    groups = [0] * len(scores) if groups is None else groups
    difference = in_scores = in_truth = 0
    for i, j in itertools.combinations(range(len(scores)), 2):
        if groups[i] == groups[j]:
            a, b = np.sign(scores[i] - scores[j]), np.sign(truth[i] - truth[j])
            difference += a * b
            in_scores += a != 0
            in_truth += b != 0
    return difference / np.sqrt(in_scores * in_truth)


@pytest.fixture
def tied():
    """Noisy scores with many ties, and a cost with few values."""
    rng = np.random.default_rng(0)
    cost = rng.integers(0, 12, 80)
    truth = np.round(cost + rng.normal(size=80) * 3)
    return np.round(truth + rng.normal(size=80) * 4), truth, cost


def test_one_case_by_hand():
    # Of six pairs only (90, 85) is discordant.
    assert ranking.kendall_tau([1, 2, 3, 4], [70, 80, 90, 85]) == pytest.approx(4 / 6)
    # One pair is tied in the scores: (5 - 0) / sqrt(5 * 6).
    assert ranking.kendall_tau([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(
        5 / np.sqrt(30)
    )
    assert ranking.topk_regret([3, 2, 1, 0], [70, 80, 90, 85], k=1) == 20
    assert ranking.topk_regret([3, 2, 1, 0], [70, 80, 90, 85], k=2) == 10
    assert ranking.topk_regret([3, 2, 1, 0], [70, 80, 90, 85], k=3) == 0
    # Of equal scores the first counts.
    assert ranking.topk_regret([1, 1, 0], [70, 80, 90], k=1) == 20
    assert ranking.topk_regret(np.arange(99) % 2, np.arange(99), k=9) == 98 - 17


def test_ties_are_those_of_tau_b(tied):
    scores, truth, _ = tied
    tau = ranking.kendall_tau(scores, truth)
    assert tau == pytest.approx(tau_by_pairs(scores, truth))
    assert tau == pytest.approx(stats.kendalltau(scores, truth).statistic)
    assert ranking.spearman(scores, truth) == pytest.approx(
        stats.spearmanr(scores, truth).statistic
    )


def test_residual_tau_compares_within_ranges_only(tied):
    scores, truth, cost = tied
    groups = ranking.cost_bins(cost, 4)
    assert ranking.residual_tau(scores, truth, cost, 4) == pytest.approx(
        tau_by_pairs(scores, truth, groups)
    )
    names = np.array(["small", "middle", "large", "huge"])[groups]
    assert ranking.tau_within(scores, truth, names) == pytest.approx(
        tau_by_pairs(scores, truth, groups)
    )
    assert ranking.tau_within(scores, truth, names.tolist()) == ranking.tau_within(
        scores, truth, names
    )
    with pytest.raises(ValueError, match=r"group for each of 80 .* \(79,\)"):
        ranking.tau_within(scores, truth, groups[1:])
    # Within ranges of one cost, the cost orders nothing.
    assert ranking.residual_tau(cost, truth, cost, bins=80) == 0


@pytest.mark.parametrize("bins", [1, 3, 10, 1000])
def test_ranges_keep_equal_costs_together(tied, bins):
    cost = tied[2]
    groups = ranking.cost_bins(cost, bins)
    assert len(np.unique(groups)) <= min(bins, len(np.unique(cost)))
    for value in np.unique(cost):
        assert len(np.unique(groups[cost == value])) == 1
    assert np.all(np.diff(groups[np.argsort(cost)]) >= 0)


def test_ranges_of_different_costs_are_of_equal_size():
    groups = ranking.cost_bins(np.random.default_rng(0).permutation(100), 10)
    assert np.bincount(groups).tolist() == [10] * 10


@pytest.mark.parametrize(
    "statistic", [ranking.kendall_tau, ranking.spearman], ids=["kendall", "spearman"]
)
def test_extremes(statistic):
    x = np.arange(20.0)
    assert statistic(x, x**3) == pytest.approx(1)
    assert statistic(x, -x) == pytest.approx(-1)
    # No order at all, not a warning and not a number that is none.
    assert statistic(np.ones(20), x) == statistic(x, np.ones(20)) == 0


def test_interval_covers_the_truth_as_often_as_it_says():
    # Of normal pairs with correlation r, tau is 2 / pi asin(r).
    rng = np.random.default_rng(0)
    expected = 2 / np.pi * np.arcsin(0.6)
    inside = 0
    for trial in range(40):
        x, noise = rng.normal(size=(2, 60))
        y = 0.6 * x + 0.8 * noise
        tau = ranking.bootstrap(
            ranking.kendall_tau, x, y, resamples=60, confidence=0.9, seed=trial
        )
        assert tau.low <= tau.value <= tau.high
        inside += tau.low <= expected <= tau.high
    assert 30 <= inside <= 39


def test_report_has_the_rivals_beside_the_scores(tied):
    scores, truth, cost = tied
    arguments = scores, truth, {"flops": cost}, 5, 4, 50
    result = ranking.report(*arguments)
    assert json.loads(json.dumps(result)) == result
    assert result["n"] == 80
    assert result["distinct_scores"] == len(set(scores)) != len(set(truth))
    assert result["flops_tau"]["value"] == ranking.kendall_tau(cost, truth)
    assert result["tau_with_flops"]["value"] == ranking.kendall_tau(
        ranking.joined(scores, cost), truth
    )
    assert result["residual_tau_in_flops"]["value"] == ranking.residual_tau(
        scores, truth, cost, 4
    )
    assert result["top5_regret"]["value"] == ranking.topk_regret(scores, truth, 5)
    assert ranking.report(*arguments) == result != ranking.report(*arguments, seed=1)


def test_joined_scores_are_sums_of_ranks():
    np.testing.assert_array_equal(
        ranking.joined([0.3, 0.1, 0.9], [10, 30, 10]), [2 + 1.5, 1 + 3, 3 + 1.5]
    )


@pytest.mark.parametrize(
    "scores, truth, message",
    [
        ([1, 2], [1], r"shapes \(2,\) and \(1,\)"),
        ([[1, 2]], [[1, 2]], "shapes"),
        ([], [], "none"),
        ([1, np.nan], [1, 2], "finite scores"),
    ],
)
def test_wrong_columns(scores, truth, message):
    with pytest.raises(ValueError, match=message):
        ranking.kendall_tau(scores, truth)


def test_what_is_wrong_is_called_by_its_name():
    numbers = np.arange(4.0)
    for costs in ([1, 2, np.nan, 4], [1, 2, 4]):
        with pytest.raises(ValueError, match="costs 'flops'.*Received: (nan|shapes)"):
            ranking.report(numbers, numbers, {"flops": costs})
    with pytest.raises(ValueError, match="finite costs. Received: nan at 1"):
        ranking.joined(numbers, [1, np.nan, 3, 4])
    for wrong in ({"resamples": 0}, {"confidence": 1.5}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"Received: .*{name}={wrong[name]}"):
            ranking.report(numbers, numbers, **wrong)


@pytest.mark.parametrize("lengths", [(3, 4), (4, 3), (0,), ()])
def test_columns_that_are_not_of_the_same_architectures(lengths):
    """Of a longer column, only the beginning would be drawn."""
    columns = [np.arange(n) for n in lengths]
    with pytest.raises(ValueError, match="of one length"):
        ranking.bootstrap(lambda *columns: columns[-1].mean(), *columns)
