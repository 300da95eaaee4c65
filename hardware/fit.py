"""Fits a table to whole networks: a correction of one, or an additive one from nothing.

Corrections, from the coarsest to the finest, for s the sum over a path's blocks and n
the number of them that compute something:

    offset:     a + s
    linear:     a + b s
    per block:  a + b s + c n

What a block takes on its own is not quite what it takes inside a network: inputs come
from a cold cache, layouts are converted at its ends, and a run has a cost of its own.
"""

import numpy as np

from .statistics import agreement

_MODELS = ("offset", "linear", "per block")


def fit_correction(sums, counts, measured, held_out=0.5, seed=0, folds=5):
    """Chooses and fits a correction on some networks, and tests it on the others.

    The choice is by cross-validation among the networks that it is fitted on.

    Args:
        sums: Uncorrected predictions, in ms.
        counts: Number of blocks that compute something, for each network.
        measured: Measured latencies, in ms.
        held_out: Share of the networks that is kept for the test.
        seed: Seed of the split.
        folds: Folds of the cross-validation.

    Returns:
        A correction, as `with_correction` takes it, with its errors on the networks
        held out.
    """
    sums, counts, measured = (np.asarray(v, float) for v in (sums, counts, measured))
    order = np.random.default_rng(seed).permutation(len(sums))
    test, fit = np.split(order, [round(held_out * len(order))])
    if len(fit) < 2 * folds:
        raise ValueError(
            f"Fitting needs at least {4 * folds} networks. Received: {len(sums)}."
        )
    models = [m for m in _MODELS if m != "per block" or np.ptp(counts[fit]) > 0]
    errors = {}
    for model in models:
        predicted = np.empty(len(fit))
        for fold in range(folds):
            out = np.arange(len(fit)) % folds == fold
            weights = _solve(
                model, sums[fit[~out]], counts[fit[~out]], measured[fit[~out]]
            )
            predicted[out] = _apply(weights, sums[fit[out]], counts[fit[out]])
        errors[model] = agreement(predicted, measured[fit])["mape_percent"]
    best = min(models, key=errors.get)
    offset, factor, per_block = _solve(best, sums[fit], counts[fit], measured[fit])
    predicted = _apply((offset, factor, per_block), sums[test], counts[test])
    return {
        "kind": best,
        "factor": float(factor),
        "per_block_ms": float(per_block),
        "offset_ms": float(offset),
        "fitted_on": len(fit),
        "cross_validated_mape_percent": errors,
        "held_out": agreement(predicted, measured[test]),
    }


def fit_additive(sizes, paths, measured):
    """Fits base and costs to whole networks alone, by least squares.

    Args:
        sizes: Number of options of each decision.
        paths: An integer array ``[n, decisions]``.
        measured: Latencies ``[n]``.

    Returns:
        The base, and a list with an array of costs for each decision, the lowest of
        each being 0. Options that no path takes are not a number.
    """
    paths = np.asarray(paths)
    columns = [np.eye(size)[paths[:, d]] for d, size in enumerate(sizes)]
    matrix = np.hstack([np.ones((len(paths), 1)), *columns])
    solution = np.linalg.lstsq(matrix, np.asarray(measured, float), rcond=None)[0]
    base, rest = solution[0], np.split(solution[1:], np.cumsum(sizes)[:-1])
    costs = []
    for column, values in zip(columns, rest, strict=True):
        values = np.where(column.any(axis=0), values, np.nan)
        low = np.nanmin(values)
        base += low
        costs.append(values - low)
    return float(base), costs


def _solve(model, sums, counts, measured):
    """Weighted by 1 / measured, so that relative errors are what is least."""
    ones = np.ones(len(sums))
    if model == "offset":
        return np.average(measured - sums, weights=measured**-2.0), 1.0, 0.0
    columns = [ones, sums] + ([counts] if model == "per block" else [])
    matrix = np.stack(columns, axis=1) / measured[:, None]
    solution = np.linalg.lstsq(matrix, ones, rcond=None)[0]
    return tuple(solution) if model == "per block" else (*solution, 0.0)


def _apply(weights, sums, counts):
    offset, factor, per_block = weights
    return offset + factor * sums + per_block * counts
