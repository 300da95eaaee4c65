"""How are all architectures of a tabulated space scored, in one run that may be killed?

Three things are shared. Paths are taken in order, so that neighbours begin alike and an
`Evaluator` computes what they have in common once. Paths that compute the same function
are scored once (`merge`). Compiled functions stay: one process scores them all.

Example:
    >>> paths = np.array(list(net.space.enumerate()))              # doctest: +SKIP
    >>> scores = score_all(score, paths, checkpoint="scores.npz")  # doctest: +SKIP
"""

import os

import numpy as np
from tqdm.auto import tqdm

from keras_spos.whole_file import check_writable, whole_file


def score_all(score, paths, checkpoint=None, chunk=500, merge=None, verbose=True):
    """Scores many paths in chunks, and goes on where an earlier run was stopped.

    Args:
        score: An `Evaluator`, or a callable from an integer array ``[n, decisions]`` to
            `n` numbers, or to ``[n, metrics]``.
        paths: Integer array ``[n, decisions]``.
        checkpoint: A file (``.npz``) to write after each chunk and to go on from. It
            belongs to one evaluator: weights, images, metric and statistics.
        chunk: Paths per call of `score`.
        merge: A function from paths to paths that compute the same, such as
            `live_edges` of `keras_spos.spaces.nasbench201`; equal ones are scored once.
        verbose: Whether to show a progress bar.

    Returns:
        A float array ``[n]``, or ``[n, metrics]``.

    Raises:
        ValueError: The checkpoint belongs to another evaluator or other paths.
    """
    if chunk < 1:
        raise ValueError(f"Expected chunk >= 1. Received: chunk={chunk}")
    paths = np.asarray(paths)
    if paths.ndim != 2:
        raise ValueError(
            "Expected an integer array ``[n, decisions]``. Received: an array of shape "
            f"{paths.shape}."
        )
    # `unique` sorts: neighbours have the longest beginnings in common.
    unique, where = np.unique(
        paths if merge is None else merge(paths), axis=0, return_inverse=True
    )
    identity = _identity(score)
    scores = _read(checkpoint, unique, identity)
    show = tqdm(
        total=len(unique), initial=len(scores), unit="path", disable=not verbose
    )
    with show:
        while len(scores) < len(unique):
            # Before the work is done, not after.
            _check_writable(checkpoint, unique, identity, scores)
            new = _checked(score, unique[len(scores) : len(scores) + chunk])
            # Scoring takes long: another process may have begun.
            _check_writable(checkpoint, unique, identity, scores)
            scores = np.concatenate([scores, new]) if len(scores) else np.array(new)
            _write(checkpoint, unique, identity, scores)
            show.update(len(new))
    return scores[where.ravel()]


def _identity(score):
    """What an evaluator's scores depend on, as text; "" for another callable."""
    return getattr(score, "identity", lambda: "")()


def _checked(score, paths):
    """Scores of paths: finite, and one row for each."""
    scores = np.asarray(score(paths), dtype=np.float64)
    if scores.ndim not in (1, 2) or len(scores) != len(paths):
        raise ValueError(
            f"Expected a score for each of {len(paths)} paths. Received: scores of "
            f"shape {scores.shape}."
        )
    if not np.all(np.isfinite(scores)):
        (bad, *_), *_ = np.argwhere(~np.isfinite(scores))
        raise ValueError(
            f"Expected finite scores. Received: {scores[bad]} for path "
            f"{tuple(paths[bad].tolist())}."
        )
    return scores


def _check_writable(checkpoint, unique, identity, scores):
    """Raises an error if the file cannot be written, or is by now another's."""
    if checkpoint is None:
        return
    check_writable(checkpoint)
    held = _read(checkpoint, unique, identity)
    if os.path.exists(checkpoint) and not np.array_equal(held, scores):
        raise ValueError(
            f"{checkpoint} was changed while its paths were scored: another "
            "process goes on with it, too. Let one of them run alone."
        )


def _read(checkpoint, unique, identity):
    if checkpoint is None or not os.path.exists(checkpoint):
        return np.zeros(0)
    try:
        # NumPy does not close the file that it cannot read.
        with open(checkpoint, "rb") as file, np.load(file) as saved:
            paths, written_for = saved["paths"], str(saved["identity"])
            scores = saved["scores"]
    # A damaged archive raises nearly anything; there is one answer.
    except Exception as error:
        raise ValueError(
            f"{checkpoint} is not a complete file of scores: it is truncated, or is "
            "another kind of file. Restore it from a copy, or remove it to start again."
        ) from error
    if not np.array_equal(paths, unique):
        raise ValueError(
            f"{checkpoint} holds scores of {len(paths)} other paths than these "
            f"{len(unique)}. Use another file."
        )
    if written_for != identity:
        raise ValueError(
            f"{checkpoint} was written for {written_for}. Received: {identity}. Use "
            "another file."
        )
    return scores


def _write(checkpoint, unique, identity, scores):
    if checkpoint is None:
        return
    with whole_file(checkpoint) as temporary, open(temporary, "wb") as file:
        np.savez(file, paths=unique, identity=identity, scores=scores)
