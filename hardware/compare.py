"""Do two tables agree: two runs on one device, or two devices?"""

import numpy as np

from .statistics import kendall_tau

_SAME = ("batch", "precision")
_SHOWN = (
    "device",
    "engine",
    "engine_version",
    "driver",
    "threads",
    "clock",
    "statistic",
    "date",
)


def compare(first, second, paths=1000, seed=0):
    """Compares two `LatencyTable`s of one space, batch and precision.

    Args:
        first: A table.
        second: Another.
        paths: Number of random paths to rank.
        seed: Seed of the paths.

    Returns:
        A report: how many blocks agree within both spreads, the ratio of their
        latencies, and Kendall tau over random paths.
    """
    if first.data["space"] != second.data["space"]:
        raise ValueError("The tables are of different search spaces.")
    networks = [table.metadata.get("network") for table in (first, second)]
    if all(networks) and networks[0] != networks[1]:
        raise ValueError("The tables are of different networks.")
    for name in _SAME:
        a, b = first.metadata[name], second.metadata[name]
        if a != b:
            raise ValueError(f"Expected tables of one {name}. Received: {a} and {b}.")
    entries = first.metadata["entries"], second.metadata["entries"]
    keys = [
        k
        for k in entries[0]
        if k in entries[1] and not any("error" in e[k] for e in entries)
    ]
    if not keys:
        raise ValueError(
            "Expected tables of the same blocks. Received: two without one in common, "
            "as of other image sizes or versions of ONNX's operators."
        )
    medians, spreads = (
        np.array([[e[k][name] for k in keys] for e in entries])
        for name in ("latency_ms", "spread_ms")
    )
    ratios = medians[1] / medians[0]
    within = np.abs(medians[1] - medians[0]) <= spreads.sum(axis=0)
    rng = np.random.default_rng(seed)
    sample = rng.integers(0, first.sizes, (paths, len(first.sizes)))
    a, b = first(sample), second(sample)
    return {
        "first": {k: first.metadata.get(k) for k in _SHOWN},
        "second": {k: second.metadata.get(k) for k in _SHOWN},
        "blocks": len(keys),
        "within_spread": int(within.sum()),
        "ratio": dict(
            zip(
                ("lowest", "median", "highest"),
                np.percentile(ratios, (0, 50, 100)).tolist(),
                strict=True,
            )
        ),
        "paths_ratio": float(np.median(b / a)),
        "paths_kendall_tau": kendall_tau(a, b),
    }
