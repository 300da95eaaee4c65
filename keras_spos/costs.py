"""What an architecture costs: FLOPs, parameters, or any additive measure.

"FLOPs" means multiply-adds (MACs) of convolutions and fully connected layers only,
as in the SPOS paper: no batch norm, no activation, no bias.

Every cost has one form, ``base + sum over blocks of table[block][joint option]``, so a
population's cost is a gather. A comparison makes a limit:

    >>> flops = flops_table(net)                       # doctest: +SKIP
    >>> limit = flops <= 330e6                         # doctest: +SKIP
    >>> result = search.evolve(net.space, score, limits=[limit])  # doctest: +SKIP
"""

import dataclasses
import json

import numpy as np

from keras_spos.space import SearchSpace
from keras_spos.whole_file import whole_file


class InfeasibleLimitError(ValueError):
    """No architecture of the space can meet a limit."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One searchable block's share of a cost.

    Args:
        name: The block's name.
        decisions: Indices of the decisions that the block depends on.
        costs: Cost of each joint option, shape ``[size of each decision in turn]``.
    """

    name: str
    decisions: tuple[int, ...]
    costs: np.ndarray


class CostTable:
    """An additive cost over a search space.

    Combinations that are not allowed are one, too: blocks of the decisions concerned,
    with 1 where a combination is bad and 0 elsewhere, make the limit ``table <= 0``.

    Args:
        space: The `SearchSpace`.
        base: Cost of everything that is not searched.
        blocks: The `keras_spos.costs.Block`s.
        name: What is counted, such as ``"flops"``.
        unit: Unit of the figures, such as ``"MAC"`` or ``"ms"``.
        metadata: Any JSON-able facts about where the figures come from.
    """

    def __init__(self, space, base, blocks, name="cost", unit="", metadata=None):
        self.space = space
        self.metadata = dict(metadata or {})
        self.base = float(_numbers(base, f"the base of table {name!r}"))
        if not np.isfinite(self.base):
            raise ValueError(
                f"Table {name!r} needs a finite base. Received: base={base}"
                f"{_failures(self.metadata)}"
            )
        self.name = name
        self.unit = unit
        self.blocks = []
        for block in blocks:
            _check_decisions(block, space)
            costs = _numbers(block.costs, f"costs of block {block.name!r}")
            expected = tuple(int(space.sizes[d]) for d in block.decisions)
            if costs.shape != expected:
                raise ValueError(
                    f"Block {block.name!r} of table {name!r} needs a cost per option, "
                    f"shape {expected}. Received: shape {costs.shape}."
                )
            if not np.all(np.isfinite(costs)):
                missing = [
                    tuple(int(i) for i in m) for m in np.argwhere(~np.isfinite(costs))
                ]
                raise ValueError(
                    f"Table {name!r} misses block {block.name!r}, options {missing}"
                    f"{_failures(self.metadata)}."
                )
            self.blocks.append(Block(block.name, tuple(block.decisions), costs))

    def __call__(self, paths):
        """Costs of one path or many, as a float array ``[n]``."""
        paths = self.space.validate(paths)
        total = np.full(len(paths), self.base)
        for block in self.blocks:
            total += block.costs[tuple(paths[:, d] for d in block.decisions)]
        return total

    def __le__(self, value):
        return Limit(self, float(value))

    def __lt__(self, value):
        raise TypeError(
            "Limits are written `table <= value`. Received: another comparison of "
            f"{self.name!r}."
        )

    __gt__ = __ge__ = __lt__

    def __repr__(self):
        low, high = self.reachable_range()
        return f"CostTable({self.name!r}, {low:g} to {high:g} {self.unit})"

    def grouped(self):
        """Blocks with the same decisions added up: dict from decisions to costs."""
        groups = {}
        for block in self.blocks:
            costs = groups.get(block.decisions)
            groups[block.decisions] = (
                block.costs if costs is None else costs + block.costs
            )
        return groups

    def reachable_range(self):
        """Lowest and highest cost in the space (bounds, if groups share decisions)."""
        groups = self.grouped().values()
        return (
            self.base + sum(float(g.min()) for g in groups),
            self.base + sum(float(g.max()) for g in groups),
        )

    def to_dict(self):
        """Returns the table as JSON-able data."""
        return {
            "name": self.name,
            "unit": self.unit,
            "base": self.base,
            "blocks": [
                {
                    "name": b.name,
                    "decisions": list(b.decisions),
                    "costs": b.costs.tolist(),
                }
                for b in self.blocks
            ],
            "space": json.loads(self.space.to_json()),
            "metadata": self.metadata,
        }

    @classmethod
    def from_dict(cls, data):
        """Inverse of `to_dict`."""
        blocks = [
            Block(b["name"], tuple(b["decisions"]), b["costs"]) for b in data["blocks"]
        ]
        space = SearchSpace.from_json(json.dumps(data["space"]))
        return cls(
            space, data["base"], blocks, data["name"], data["unit"], data["metadata"]
        )

    def save(self, path):
        """Writes the table as JSON; the file is complete or is not there."""
        with whole_file(path) as temporary, open(temporary, "w") as file:
            json.dump(self.to_dict(), file, indent=1)

    @classmethod
    def load(cls, path, unit=None, metadata=None):
        """Reads a table that `save` (or the hardware profiler) wrote.

        Args:
            path: The file.
            unit: The unit that it must be in, such as "ms".
            metadata: Facts that its metadata must state, such as ``{"batch": 32}``.
        """
        try:
            with open(path, encoding="utf-8") as file:
                table = cls.from_dict(json.load(file))
        except (json.JSONDecodeError, UnicodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a complete cost table: {type(error).__name__}: {error}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        facts = [(k, v, table.metadata.get(k)) for k, v in (metadata or {}).items()]
        if unit:
            facts.insert(0, ("unit", unit, table.unit))
        for name, expected, received in facts:
            if received != expected:
                raise ValueError(
                    f"Expected a table of {name}={expected!r}. Received: "
                    f"{name}={received!r} in {path}."
                )
        return table


def check_space(table, space):
    """Raises ValueError if a table, or an objective, is of another space or network.

    The network is known of what `hardware` measured: two may name options alike.
    """
    if table.space != space:
        raise ValueError(
            f"Table {table.name!r} belongs to another search space. "
            f"Expected: {space}. Received: {table.space}."
        )
    measured = (getattr(table, "metadata", None) or {}).get("network")
    # Metadata are free: a text of the user's own says nothing here.
    if not isinstance(measured, dict) or not space.network:
        return
    names = [
        name or "what is not searched"
        for name in {**space.network, **measured}
        if measured.get(name) != space.network.get(name)
    ]
    if names:
        raise ValueError(
            f"Table {table.name!r} was measured on another network, whose options have "
            f"the same names. Different are {len(names)} of its parts: {names[:3]}. "
            "Measure this one; or, if the other is meant (such as that of another "
            'image size), del table.metadata["network"].'
        )


def _check_decisions(block, space):
    """Several blocks may depend on a decision; one block, on each but once."""
    known = range(space.num_decisions)
    integers = all(isinstance(d, (int, np.integer)) for d in block.decisions)
    if (
        not integers
        or not all(d in known for d in block.decisions)
        or len(set(block.decisions)) < len(block.decisions)
    ):
        raise ValueError(
            f"Expected block {block.name!r} to depend on different decisions, 0 to "
            f"{space.num_decisions - 1}. Received: decisions={block.decisions}"
        )


def _failures(metadata):
    """What `hardware` noted of blocks that it could not measure, to end an error."""
    entries = metadata.get("entries")
    entries = entries.items() if isinstance(entries, dict) else ()  # It is free.
    errors = [
        f"{key}: {e['error']}"
        for key, e in entries
        if isinstance(e, dict) and "error" in e
    ]
    return f", as measuring failed for {'; '.join(errors[:3])}" if errors else ""


def _numbers(values, what):
    """Values as a float array; what is missing (None) is not a number."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "SU":  # NumPy would read "1.5" as a number.
            raise ValueError("text")
        return array.astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            f"Expected numbers as {what}. Received: {str(values)[:80]}"
        ) from error


@dataclasses.dataclass(frozen=True)
class Limit:
    """``table(path) <= value``, which is how it is written.

    Args:
        table: A `CostTable`.
        value: The highest cost, in the table's unit.
    """

    table: CostTable
    value: float

    def satisfied(self, paths):
        """Which paths meet the limit, as a bool array ``[n]``."""
        return self.table(paths) <= self.value

    def rounding(self):
        """More than sums of the table's costs in different orders may differ by."""
        groups = self.table.grouped().values()
        largest = sum(float(abs(costs).max()) for costs in groups)
        return 1e-9 * (abs(self.table.base) + largest)

    def check_feasible(self):
        """Raises `InfeasibleLimitError` if no path of the space can meet the limit."""
        low, high = self.table.reachable_range()
        # The cheapest path's own sum may differ from `low` in the last digits.
        if not self.value >= low - self.rounding():
            raise InfeasibleLimitError(
                f"No architecture has {self.table.name} <= {self.value:g}. This space "
                f"reaches {low:g} to {high:g} {self.table.unit}."
            )
