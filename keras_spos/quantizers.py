"""Quantizes activations (PACT) and weights (DoReFa), with straight-through gradients.

The network computes in float, on values that k bits can hold (SPOS, section 4,
"Mixed-Precision Quantization": PACT is the quantization algorithm). Rounding has the
gradient of the identity. A bit width is 1 to 8, or 32, which is float.

Example:
    >>> pact(ops.array([-1.0, 0.4, 5.0]), alpha=3.0, bits=2)       # 0, 1, 2 or 3
    array([0., 0., 3.])
    >>> dorefa(kernel, bits=1)  # plus or minus the mean size      # doctest: +SKIP
"""

from keras import ops

FLOAT = 32
_SMALLEST = 1e-6


def check_bits(bits):
    """Checks a bit width and returns it as an integer."""
    if bits not in (*range(1, 9), FLOAT):
        raise ValueError(
            f"A bit width is 1 to 8, or {FLOAT} for float. Received: {bits!r}"
        )
    return int(bits)


def pact(x, alpha, bits):
    """Clips to a learnable range, then rounds to 2^k levels (Choi et al., 2018).

        y = clip(x, 0, alpha),    q = round(y / s) s,    s = alpha / (2^k - 1)
        dq/dx = 1 where 0 < x < alpha, else 0,    dq/dalpha = 1 where x >= alpha, else 0

    Args:
        x: Activations.
        alpha: The upper end of the range, a positive number or scalar tensor.
        bits: k, the bit width; 32 returns `x`.
    """
    if check_bits(bits) == FLOAT:
        return x
    alpha = ops.cast(alpha, x.dtype)
    # Not `minimum`, whose gradient where both are equal differs between backends.
    y = ops.where(x >= alpha, alpha, ops.relu(x))
    scale = step(alpha, bits)
    return _straight_through(y, ops.round(y / scale) * scale)


def step(alpha, bits):
    """The distance between two levels of `pact`."""
    return ops.maximum(alpha, _SMALLEST) / (2**bits - 1)


def dorefa(w, bits):
    """Rounds weights to k bits (Zhou et al., 2016).

    For k > 1, with t = tanh(w), the levels are evenly spaced in [-1, 1]:

        u = t / (2 max|t|) + 1/2,    q = 2 round(u n) / n - 1,    n = 2^k - 1

    For k = 1, q = mean|w| where w >= 0 and -mean|w| elsewhere, and dq/dw = 1.

    Args:
        w: Weights.
        bits: k, the bit width; 32 returns `w`.
    """
    if check_bits(bits) == FLOAT:
        return w
    if bits == 1:
        size = ops.mean(ops.abs(w))
        return _straight_through(w, ops.where(w >= 0, size, -size))
    t = ops.tanh(w)
    u = t / (2.0 * ops.maximum(ops.max(ops.abs(t)), _SMALLEST)) + 0.5
    n = 2**bits - 1
    return 2.0 * _straight_through(u, ops.round(u * n) / n) - 1.0


def _straight_through(x, quantized):
    """`quantized` to the last bit, with the gradient of `x`."""
    return ops.stop_gradient(quantized) + (x - ops.stop_gradient(x))
