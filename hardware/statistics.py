"""How well one list of numbers predicts another, in numpy alone."""

import numpy as np


def spread(values):
    """A robust standard deviation: 1.4826 times the median absolute deviation."""
    values = np.asarray(values, dtype=float)
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def agreement(predicted, measured):
    """Errors and correlations of predictions.

    MAPE = mean |p - m| / m and bias = mean (p - m) / m, in percent; Pearson's r; and
    Kendall's tau-b.
    """
    predicted = np.asarray(predicted, dtype=float)
    measured = np.asarray(measured, dtype=float)
    relative = (predicted - measured) / measured
    return {
        "networks": len(measured),
        "mape_percent": float(100 * np.mean(np.abs(relative))),
        "bias_percent": float(100 * np.mean(relative)),
        "pearson": pearson(predicted, measured),
        "kendall_tau": kendall_tau(predicted, measured),
    }


def pearson(a, b):
    """Pearson's correlation; not a number where one side is constant."""
    a, b = a - np.mean(a), b - np.mean(b)
    scale = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / scale) if scale else float("nan")


def kendall_tau(a, b):
    """Kendall's tau-b, ties included: (C - D) / sqrt((C + D + Ta) (C + D + Tb))."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    i, j = np.triu_indices(len(a), 1)
    x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    scale = np.sqrt(np.sum(x != 0) * np.sum(y != 0))
    return float(np.sum(x * y) / scale) if scale else float("nan")
