"""Corrects a table by whole networks that were measured.

Corrections, from the coarsest to the finest, for s the sum over a path's blocks and n
the number of them that compute something:

    none:       s
    offset:     a + s
    linear:     a + b s
    per block:  a + b s + c n

What a block takes on its own is not quite what it takes inside a network: inputs come
from a cold cache, layouts are converted at its ends, and a run has a cost of its own.

Corrections with b <= 0, or under which a block would take less than nothing, are left
out: they fit noise.
"""

import numpy as np

from .statistics import agreement

FOLDS = 5
LEAST = 4 * FOLDS  # Networks; of fewer, a fold says too little.
_MODELS = ("none", "offset", "linear", "per block")


def fit_correction(sums, counts, measured, blocks=(), seed=0):
    """Chooses and fits a correction, and tests it on networks that it has not seen.

    Each fold's networks are predicted by a correction that was chosen and fitted on the
    other folds'; the correction that is returned is chosen and fitted on all. Of those
    that are as good within a tenth, the coarsest is chosen; none if the predictions
    are no better than the sums are.

    Args:
        sums: Uncorrected predictions, in ms.
        counts: Number of blocks that compute something, for each network.
        measured: Measured latencies, in ms.
        blocks: What each block that computes something takes on its own, in ms.
        seed: Seed of the folds.

    Returns:
        A correction, as `with_correction` takes it, with the errors of the held-out
        predictions, and those predictions.
    """
    sums, counts, measured = (np.asarray(v, float) for v in (sums, counts, measured))
    blocks = np.asarray(blocks, float)
    if len(sums) < LEAST:
        raise ValueError(
            f"Fitting needs at least {LEAST} networks. Received: {len(sums)}."
        )
    predicted = np.empty(len(sums))
    for out in _folds(len(sums), seed):
        data = sums[~out], counts[~out], measured[~out]
        model = _choose(*data, blocks, seed)[0]
        predicted[out] = _apply(_solve(model, *data), sums[out], counts[out])
    best, errors = _choose(sums, counts, measured, blocks, seed)
    held_out, raw = agreement(predicted, measured), agreement(sums, measured)
    if best == "none" or held_out["mape_percent"] >= raw["mape_percent"]:
        best, predicted, held_out = "none", sums, raw
    offset, factor, per_block = _solve(best, sums, counts, measured)
    return {
        "kind": best,
        "factor": float(factor),
        "per_block_ms": float(per_block),
        "offset_ms": float(offset),
        "fitted_on": len(sums),
        "cross_validated_mape_percent": errors,
        "held_out": held_out,
    }, predicted


def _folds(count, seed):
    """Masks of the networks in each fold."""
    place = np.random.default_rng(seed).permutation(count) % FOLDS
    return [place == fold for fold in range(FOLDS)]


def _choose(sums, counts, measured, blocks, seed):
    """The coarsest of the best kinds of correction, and the error of each."""
    errors = {}
    for model in _MODELS:
        _, factor, per_block = _solve(model, sums, counts, measured)
        if factor <= 0 or np.any(factor * blocks + per_block < 0):
            continue
        predicted = np.empty(len(sums))
        for out in _folds(len(sums), seed):
            weights = _solve(model, sums[~out], counts[~out], measured[~out])
            predicted[out] = _apply(weights, sums[out], counts[out])
        errors[model] = agreement(predicted, measured)["mape_percent"]
    limit = 1.1 * min(errors.values())
    return next(m for m in errors if errors[m] <= limit), errors


def _solve(model, sums, counts, measured):
    """Weighted by 1 / measured, so that relative errors are what is least."""
    if model == "none":
        return 0.0, 1.0, 0.0
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
