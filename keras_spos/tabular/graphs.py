"""Which row of NAS-Bench-101 is a cell, where rows list graphs?

Two graphs are the same cell if renumbering the inner vertices, and dropping those that
are on no way from input to output, makes them equal. A benchmark lists each cell once,
in a numbering of its own; so a cell is looked up in every numbering that keeps edges
pointing from lower to higher numbers.

Example:
    >>> table = nasbench101("tables/")                             # doctest: +SKIP
    >>> row = table.row(adjacency, [0, 1, 3, 4])                   # doctest: +SKIP
    >>> table.accuracy("test_acc_108", [row])                      # doctest: +SKIP
"""

import itertools

import numpy as np

from keras_spos.tabular.archive import Archive

OPERATIONS = {
    "input": 0,
    "conv3x3-bn-relu": 1,
    "conv1x1-bn-relu": 2,
    "maxpool3x3": 3,
    "output": 4,
}
_VERTICES = 7
_UPPER = np.triu_indices(_VERTICES, 1)


class GraphTable(Archive):
    """A benchmark that lists cells as graphs.

    Args:
        folder: See `Archive`.
    """

    def __init__(self, folder=None):
        super().__init__(
            "nasbench101.npz",
            folder,
            required=("adjacency", "ops", "num_vertices", "params", "test_acc_108"),
            is_accuracy=lambda name: name.startswith("test_acc"),
        )
        codes = _encode(self.read("adjacency"), self.read("ops"))
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    def __len__(self):
        return len(self._codes)

    def row(self, adjacency, operations):
        """Row number of a cell.

        Args:
            adjacency: 0 or 1, ``[n, n]``, upper triangular. Vertex 0 is the input, the
                last one the output.
            operations: `n` numbers of `OPERATIONS`.

        Raises:
            ValueError: The benchmark does not list the cell.
        """
        adjacency, operations = prune(adjacency, operations)
        n = len(operations)
        if n <= _VERTICES:
            for inner in itertools.permutations(range(1, n - 1)):
                order = [0, *inner, n - 1]
                graph = adjacency[np.ix_(order, order)]
                if np.tril(graph).any():
                    continue
                code = _encode(*_padded(graph, operations[order]))[0]
                found = np.searchsorted(self._codes, code)
                if found < len(self) and self._codes[found] == code:
                    return int(self._order[found])
        raise ValueError(
            f"{self.path} does not list the cell with operations "
            f"{operations.tolist()} and edges {np.argwhere(adjacency).tolist()}."
        )


def nasbench101(folder=None):
    """NAS-Bench-101 (C. Ying et al., ICML 2019): 423,624 cells.

    Args:
        folder: The folder with nasbench101.npz. Default: `KERAS_SPOS_DATA`.

    Returns:
        A `GraphTable`. Cost: ``read("params")``; truth: ``accuracy("test_acc_108")``.
    """
    return GraphTable(folder)


def prune(adjacency, operations):
    """Drops the vertices that are on no way from input to output.

    Args:
        adjacency: 0 or 1, ``[n, n]``, upper triangular.
        operations: `n` numbers.

    Returns:
        Both, with ``m <= n`` vertices.
    """
    adjacency = np.asarray(adjacency).astype(np.int64)
    operations = np.asarray(operations)
    n = len(operations)
    if adjacency.shape != (n, n) or np.tril(adjacency).any():
        raise ValueError(
            f"Expected an upper triangular matrix [{n}, {n}]. "
            f"Received: shape {adjacency.shape}."
        )
    # Numbers of ways between any two vertices: the sum of all powers.
    ways = np.linalg.inv(np.eye(n) - adjacency) > 0.5
    kept = np.flatnonzero(ways[0] & ways[:, -1])
    if not ways[0, -1]:
        raise ValueError("No way leads from the cell's input to its output.")
    return adjacency[np.ix_(kept, kept)], operations[kept]


def _padded(adjacency, operations):
    n = len(operations)
    graph = np.zeros((_VERTICES, _VERTICES), np.int64)
    graph[:n, :n] = adjacency
    return graph, np.concatenate([operations, np.full(_VERTICES - n, -1)])


def _encode(adjacency, operations):
    """One integer for each labelled graph: 21 possible edges, 7 operations."""
    edges = adjacency.reshape(-1, _VERTICES, _VERTICES)[:, *_UPPER].astype(np.int64)
    digits = np.atleast_2d(operations).astype(np.int64) + 1
    code = edges @ (1 << np.arange(edges.shape[1]))
    return code * 6**_VERTICES + digits @ 6 ** np.arange(_VERTICES)
