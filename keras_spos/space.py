"""What can be chosen: decisions, their options, and how an architecture is written.

An architecture (a *path*) is a tuple of integers, one per decision. A population is
an integer array ``[n, decisions]``. Nothing here knows about layers or backends.

Example:
    >>> space = SearchSpace([Decision("block_0", ("k3", "k5")),
    ...                      Decision("block_1", ("k3", "k5", "skip"))])
    >>> space.size
    6
    >>> space.describe((1, 2))
    {'block_0': 'k5', 'block_1': 'skip'}
"""

import dataclasses
import decimal
import itertools
import json
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Decision:
    """One integer of an architecture: its name and what each value means.

    Args:
        name: The decision's name, unique in its space.
        options: A readable label for each option, in index order.
    """

    name: str
    options: tuple[str, ...]

    def __post_init__(self):
        object.__setattr__(self, "options", tuple(str(o) for o in self.options))
        if not self.options:
            raise ValueError(f"Decision {self.name!r} needs at least one option.")
        if len(set(self.options)) != len(self.options):
            raise ValueError(
                f"Decision {self.name!r} needs distinct option labels. "
                f"Received: options={self.options}"
            )


class SearchSpace:
    """An ordered list of decisions.

    Args:
        decisions: The `Decision`s, in the order in which a path lists them.
        network: What tells the network from others with the same decisions, a dict
            (`keras_spos.signatures`), or None. Spaces are equal without it, and it is
            not written: `keras_spos.costs.check_space` compares it with a table's.
    """

    def __init__(self, decisions, network=None):
        self.decisions = tuple(decisions)
        self.network = network
        names = [d.name for d in self.decisions]
        if len(set(names)) != len(names):
            raise ValueError(f"Decision names must be distinct. Received: {names}")
        self.sizes = np.array([len(d.options) for d in self.decisions], dtype=np.int64)

    @property
    def num_decisions(self):
        """Length of a path."""
        return len(self.decisions)

    @property
    def size(self):
        """Exact number of paths, as a Python integer of any length."""
        return math.prod(int(s) for s in self.sizes)

    def __repr__(self):
        try:
            size = float(self.size)
        except OverflowError:  # Above 1e308.
            size = decimal.Decimal(self.size)
        return f"SearchSpace({self.num_decisions} decisions, {size:.6g} paths)"

    def __eq__(self, other):
        return isinstance(other, SearchSpace) and self.decisions == other.decisions

    def __hash__(self):
        return hash(self.decisions)

    def sample(self, n, seed=0):
        """Draws `n` paths uniformly, with replacement.

        Args:
            n: Number of paths.
            seed: An integer, a sequence of integers such as ``(seed, step)``, or a
                `numpy.random.Generator`.

        Returns:
            An int64 array ``[n, num_decisions]``.
        """
        rng = np.random.default_rng(seed)
        return rng.integers(0, self.sizes, size=(n, self.num_decisions))

    def enumerate(self):
        """Yields every path as a tuple, the last decision changing fastest."""
        return itertools.product(*(range(int(s)) for s in self.sizes))

    def validate(self, paths):
        """Checks one path or many and returns them as an int64 array ``[n, d]``.

        Raises:
            ValueError: A path has the wrong length, a value is not an integer, or
                an option is out of range.
        """
        try:
            array = np.atleast_2d(np.asarray(paths))
            received = f"shape {array.shape}" if array.ndim > 2 else array.shape[1]
        except ValueError:
            received = "rows of different lengths"
        if received != self.num_decisions:
            raise ValueError(
                f"Expected one choice per decision ({self.num_decisions}). "
                f"Received: {received}."
            )
        if not np.issubdtype(array.dtype, np.integer):
            number = np.issubdtype(array.dtype, np.floating)
            if not number or not np.all(np.isfinite(array) & (array == array.round())):
                raise ValueError(
                    f"Choices must be integers. Received: {array[0].tolist()}"
                )
        array = array.astype(np.int64)
        bad = np.argwhere((array < 0) | (array >= self.sizes))
        if len(bad):
            row, column = bad[0]
            decision = self.decisions[column]
            raise ValueError(
                f"Decision {decision.name!r} (number {column}) has options 0 to "
                f"{len(decision.options) - 1} {decision.options}. "
                f"Received: {array[row, column]}."
            )
        return array

    def path(self, path):
        """Checks a single path and returns it as a tuple of Python integers."""
        if isinstance(path, dict):
            return self.parse(path)
        array = self.validate(path)
        if len(array) != 1:
            raise ValueError(f"Expected a single path. Received: {len(array)} paths.")
        return tuple(int(v) for v in array[0])

    def describe(self, path):
        """Returns the path as a dict from decision name to option label."""
        path = self.path(path)
        return {d.name: d.options[i] for d, i in zip(self.decisions, path, strict=True)}

    def parse(self, description):
        """Inverse of `describe`: a dict of labels (or indices) to a path."""
        names = {d.name for d in self.decisions}
        if set(description) != names:
            raise ValueError(
                "A description names every decision once. "
                f"Missing: {sorted(names - set(description))}. "
                f"Unknown: {sorted(set(description) - names)}."
            )
        path = []
        for decision in self.decisions:
            label = description[decision.name]
            if isinstance(label, str):
                if label not in decision.options:
                    raise ValueError(
                        f"Decision {decision.name!r} has options {decision.options}. "
                        f"Received: {label!r}."
                    )
                label = decision.options.index(label)
            elif str(label) in decision.options:
                if decision.options.index(str(label)) != label:
                    raise ValueError(
                        f"Decision {decision.name!r} has options {decision.options}. "
                        f"Received: {label}, which may be an index or a label. Give "
                        f"labels as text, such as {str(label)!r}."
                    )
            path.append(label)
        return self.path(path)

    def path_to_json(self, path):
        """Returns the path's readable description as a JSON string."""
        return json.dumps(self.describe(path))

    def path_from_json(self, text):
        """Reads what `path_to_json` wrote, or a JSON list of integers."""
        value = json.loads(text)
        return self.parse(value) if isinstance(value, dict) else self.path(value)

    def to_json(self):
        """Returns the whole space as a JSON string."""
        return json.dumps(
            {"decisions": [dataclasses.asdict(d) for d in self.decisions]}
        )

    @classmethod
    def from_json(cls, text):
        """Reads what `to_json` wrote."""
        return cls(
            Decision(d["name"], tuple(d["options"]))
            for d in json.loads(text)["decisions"]
        )
