"""An objective that is no table: any callable, such as a measurement on a device.

Example:
    >>> energy = Objective(net.space, measure, "energy", worst=50)  # doctest: +SKIP
    >>> search.nsga2(net.space, score, minimize=[flops, energy])    # doctest: +SKIP
"""

import math

import numpy as np

from keras_spos.search.loop import checked_numbers


class Objective:
    """A callable in the place of a `CostTable` that `nsga2` minimizes or reports.

    No path is handed to it twice. A search that goes on from a checkpoint, where only
    scores are kept, calls it again for the paths that are there.

    Args:
        space: The `SearchSpace`.
        function: A callable from an int64 array ``[n, decisions]`` to `n` finite
            numbers, lower is better.
        name: What it measures.
        worst: A value for the reference point of the hypervolume. Without it, `nsga2`
            needs its `reference`.
    """

    def __init__(self, space, function, name, worst=math.inf):
        self.space = space
        self.function = function
        self.name = name
        self.worst = float(worst)
        self._known = {}

    def __call__(self, paths):
        """The objective of one path or many, as a float array ``[n]``."""
        keys = list(map(tuple, self.space.validate(paths).tolist()))
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            values = checked_numbers(self.function, np.array(new), self.name)
            self._known.update(zip(new, values.tolist(), strict=True))
        return np.array([self._known[key] for key in keys])

    def __le__(self, value):
        """Refused: legal paths are found by what each option adds to a cost."""
        raise TypeError(
            "An Objective can be minimized, not limited. Pass it to nsga2(minimize=), "
            "take a CostTable, or let the score fall where it is exceeded. "
            f"Received: {self.name} <= {value}"
        )

    def reachable_range(self):
        """Lowest and highest value, as far as known."""
        return -math.inf, self.worst

    def to_dict(self):
        """What tells this objective from others in a checkpoint."""
        return {"name": self.name, "kind": "callable"}
