"""A latency table: what `measure` writes, and `keras_spos.CostTable.load` reads.

    latency(path) = base + sum over blocks of costs[block][joint option]

    cost of an option that computes something = factor * measured + per_block
    base = factor * (sum of the fixed blocks measured) + offset

`factor`, `per_block` and `offset` are the correction that `check` fits, 1, 0 and 0
before. What was measured stays in the metadata, so that a table can be corrected anew.

Example:
    >>> table = read_table("table.json", batch=32, precision="fp32")   # doctest: +SKIP
    >>> table(paths)                                               # doctest: +SKIP
"""

import datetime
import json
import math

import numpy as np

from .manifest import check_keys, read_json, write_json

UNIT = "ms"
NO_CORRECTION = {"kind": "none", "factor": 1.0, "per_block_ms": 0.0, "offset_ms": 0.0}
# What is read of a table's metadata.
_FACTS = ("batch", "precision", "statistic", "entries", "layout", "correction")
EXCLUDED = (
    "loading and warming up",
    "copying images to the device and results back",
    "preprocessing",
)


class LatencyTable:
    """A table in numpy alone, with what `CostTable` does not need to know.

    Args:
        data: The content of a table's file.
    """

    def __init__(self, data):
        self.data = data
        self.metadata = data["metadata"]
        self.sizes = [len(d["options"]) for d in data["space"]["decisions"]]

    def __call__(self, paths):
        """Latencies of one path or many, in ms."""
        paths = np.atleast_2d(np.asarray(paths))
        if paths.shape[1] != len(self.sizes) or paths.dtype.kind not in "iu":
            raise ValueError(
                f"Expected paths of {len(self.sizes)} integers. Received: shape "
                f"{paths.shape}, {paths.dtype}."
            )
        if np.any(paths < 0) or np.any(paths >= self.sizes):
            raise ValueError(
                f"Decisions have {self.sizes} options. Received: {paths.tolist()}"
            )
        if self.data["base"] is None:
            raise ValueError(f"The table misses fixed blocks: {self.failures()}")
        total = np.full(len(paths), float(self.data["base"]))
        for block in self.data["blocks"]:
            costs = np.array(block["costs"], dtype=float)
            found = costs[tuple(paths[:, d] for d in block["decisions"])]
            if not np.all(np.isfinite(found)):
                raise ValueError(
                    f"The table misses an option of block {block['name']!r} that was "
                    f"asked for: {self.failures()}"
                )
            total += found
        return total

    def count(self, paths):
        """How many blocks that compute something each path has, fixed ones aside."""
        total = np.zeros(len(paths))
        for block in self.metadata["layout"]["blocks"]:
            full = _map(block["options"], lambda key: key is not None)
            total += np.array(full)[tuple(np.asarray(paths)[:, block["decisions"]].T)]
        return total

    def block_latencies(self):
        """What the options that compute something took when they were measured, in ms.

        Without those that failed.
        """
        keys = []
        for block in self.metadata["layout"]["blocks"]:
            _map(block["options"], keys.append)
        entries = [self.metadata["entries"][k] for k in keys if k is not None]
        return np.array([e["latency_ms"] for e in entries if "error" not in e])

    def failures(self):
        """A dict from key to error, of the blocks that could not be measured."""
        entries = self.metadata["entries"].items()
        return {key: e["error"] for key, e in entries if "error" in e}

    def spread_ms(self, path):
        """The spread of a path's sum, its blocks' spreads being independent."""
        layout, entries = self.metadata["layout"], self.metadata["entries"]
        keys = list(layout["base"])
        for block in layout["blocks"]:
            option = block["options"]
            for decision in block["decisions"]:
                option = option[path[decision]]
            keys += [option] if option is not None else []
        factor = self.metadata["correction"]["factor"]
        return factor * float(
            np.sqrt(sum(entries[key]["spread_ms"] ** 2 for key in keys))
        )

    def same_measurements(self, other):
        """Whether another table has the same figures, whatever the corrections."""
        return self._measurements() == other._measurements()

    def _measurements(self):
        later = ("date", "clocks", "correction", "check")
        measured = {k: v for k, v in self.metadata.items() if k not in later}
        return json.dumps([measured, self.data["space"]], sort_keys=True)

    def save(self, path):
        """Writes the table; the file is complete or is not there."""
        write_json(path, self.data)


def make_table(manifest, results, description, settings, clocks=None):
    """Makes a table of what was measured.

    Args:
        manifest: The `Manifest` of the blocks.
        results: What `measure` returned for them.
        description: What the engine said about itself and the device.
        settings: What else to note, such as the number of rounds.
        clocks: Clocks of the device, where readable.

    Returns:
        A `LatencyTable`. Options whose block failed have no cost (null), which
        `CostTable.load` refuses and names.
    """
    of_folder = ("file", "sha256")
    entries = {
        key: {
            **{k: v for k, v in manifest.files[key].items() if k not in of_folder},
            **result,
        }
        for key, result in results.items()
    }
    # Folders of earlier versions do not say of which network they are.
    network = manifest.data.get("network")
    metadata = {
        **description,
        **({"network": network} if network else {}),
        "batch": manifest.batch,
        "date": datetime.date.today().isoformat(),
        "clocks": clocks,
        "statistic": settings["statistic"],
        "excluded": list(EXCLUDED),
        "settings": settings,
        "manifest": manifest.digest,
        "source": manifest.data["source"],
        "correction": NO_CORRECTION,
        "layout": manifest.layout,
        "entries": entries,
    }
    return with_correction(metadata, manifest.data["space"], NO_CORRECTION)


def with_correction(metadata, space, correction):
    """A table of the same measurements under another correction."""
    entries = metadata["entries"]
    layout = metadata["layout"]

    def cost(key):
        if key is None:
            return 0.0
        if "error" in entries[key]:
            return None
        scaled = correction["factor"] * entries[key]["latency_ms"]
        return scaled + correction["per_block_ms"]

    fixed = [entries[key].get("latency_ms") for key in layout["base"]]
    base = None
    if None not in fixed:
        base = correction["factor"] * sum(fixed) + correction["offset_ms"]
    return LatencyTable(
        {
            "name": "latency",
            "unit": UNIT,
            "base": base,
            "blocks": [
                {
                    "name": block["name"],
                    "decisions": block["decisions"],
                    "costs": _map(block["options"], cost),
                }
                for block in layout["blocks"]
            ],
            "space": space,
            "metadata": {**metadata, "correction": correction},
        }
    )


def read_table(path, **expected):
    """Reads a table and checks that it is the one that is wanted.

    Args:
        path: The file.
        **expected: What its metadata must say, such as ``batch=32``; None is not
            checked.

    Raises:
        ValueError: The file is truncated, no latency table in ms, or of another batch,
            precision or whatever is expected.
    """
    data = read_json(path)
    kind = "latency table"
    check_keys(path, kind, data, ("base", "blocks", "space", "unit", "metadata"))
    metadata = data["metadata"]
    check_keys(path, kind, metadata, _FACTS, "its metadata")
    check_keys(path, kind, metadata["layout"], ("base", "blocks"), "its layout")
    if data["unit"] != UNIT:
        raise ValueError(
            f"Expected latencies in {UNIT}. Received: {data['unit']!r} in {path}."
        )
    for name, value in expected.items():
        if value is not None and metadata.get(name) != value:
            raise ValueError(
                f"Expected a table of {name}={value!r}. Received: "
                f"{name}={metadata.get(name)!r} in {path}."
            )
    try:
        table = LatencyTable(data)
        _check_parts(table)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a complete {kind}, or was changed: "
            f"{type(error).__name__}: {error}"
        ) from error
    return table


def _check_parts(table):
    """Uses each part of a table once: what is missing or of another kind fails."""
    data, metadata = table.data, table.metadata
    for key, entry in metadata["entries"].items():
        names = () if "error" in entry else ("latency_ms", "spread_ms")
        if not all(isinstance(entry[name], (int, float)) for name in names):
            raise ValueError(f"{key!r} has other figures than numbers.")
        # Python reads NaN and Infinity, which are no JSON.
        if not all(math.isfinite(entry[name]) for name in names):
            raise ValueError(f"{key!r} has figures that are not finite.")
    again = with_correction(metadata, data["space"], metadata["correction"]).data
    if (data["base"] is None) != (again["base"] is None):
        raise ValueError(f"the base is {data['base']}.")
    base = 0.0 if data["base"] is None else data["base"]
    factors = [metadata["correction"][name] for name in list(NO_CORRECTION)[1:]]
    if not all(math.isfinite(number) for number in (base, *factors)):
        raise ValueError("its base or its correction is not finite.")
    for ours, theirs in zip(data["blocks"], again["blocks"], strict=True):
        sizes = tuple(table.sizes[d] for d in theirs["decisions"])
        shapes = {np.array(b["costs"], dtype=float).shape for b in (ours, theirs)}
        if ours["decisions"] != theirs["decisions"] or shapes != {sizes}:
            raise ValueError(
                f"expected costs of block {theirs['name']!r} in shape {sizes} for the "
                f"decisions {theirs['decisions']}. Received: {ours}"[:300]
            )


def _map(nested, function):
    if isinstance(nested, list):
        return [_map(value, function) for value in nested]
    return function(nested)
