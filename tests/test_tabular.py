"""Tables find the row of a path or a cell, and read no truth before it is asked for."""

import re

import numpy as np
import pytest
from tables import OPS, nasbench101, nasbench201, nasbench_macro, real

from keras_spos import Decision, SearchSpace, tabular


def space_of(options, decisions):
    return SearchSpace(Decision(f"d{i}", options) for i in range(decisions))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return nasbench101(nasbench_macro(nasbench201(folder)))


@pytest.mark.parametrize(
    "load, options, decisions, flops, truth",
    [
        (tabular.nasbench201, OPS, 6, "cifar10_flops", "cifar10_test_200"),
        (
            tabular.nasbench_macro,
            ("identity", "mbconv_k3_e3", "mbconv_k5_e6"),
            8,
            "flops",
            "mean_acc",
        ),
    ],
)
def test_every_path_has_its_row(folder, load, options, decisions, flops, truth):
    table = load(folder)
    space = space_of(options, decisions)
    rows = table.rows(space, np.array(list(space.enumerate())))
    assert sorted(rows) == list(range(len(table))) == list(range(space.size))
    np.testing.assert_array_equal(table.paths[rows], np.array(list(space.enumerate())))
    assert table.read(flops).shape == (len(table),)
    assert table.accuracy(truth, rows[:5]).tolist() == (
        table.accuracy(truth)[rows[:5]].tolist()
    )


def test_options_are_found_by_label(folder):
    table = tabular.nasbench201(folder)
    reduced = space_of(("nor_conv_3x3", "none", "skip_connect"), 6)
    (row,) = table.rows(reduced, (0, 1, 2, 0, 1, 2))
    assert table.paths[row].tolist() == [3, 0, 1, 3, 0, 1]


def test_labels_of_bytes_or_of_characters(folder, tmp_path):
    with np.load(folder / "nasbench201.npz") as arrays:
        np.savez(
            tmp_path / "nasbench201.npz",
            **{**arrays, "op_names": arrays["op_names"].astype(str)},
        )
    assert tabular.nasbench201(tmp_path).options == OPS
    assert tabular.nasbench201(folder).options == OPS


def test_a_damaged_file_is_named(folder, tmp_path):
    whole = (folder / "nasbench101.npz").read_bytes()
    path = tmp_path / "nasbench101.npz"
    for damaged in (whole[:-30], whole[:200], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="nasbench101.npz is truncated or no .npz"):
            tabular.nasbench101(tmp_path)
    path.write_bytes(whole[:220] + b"???" + whole[223:])
    with pytest.raises(ValueError, match="nasbench101.npz is damaged: Bad CRC-32"):
        tabular.nasbench101(tmp_path)


def test_the_truth_is_read_on_demand_and_noted(folder, monkeypatch):
    loaded = []
    load = tabular.archive.Archive._load

    def watched(archive, name):
        loaded.append(name)
        return load(archive, name)

    monkeypatch.setattr(tabular.archive.Archive, "_load", watched)
    tables = [
        tabular.nasbench201(folder),
        tabular.nasbench_macro(folder),
        tabular.nasbench101(folder),
    ]
    tables[0].rows(space_of(OPS, 6), (0,) * 6)
    tables[1].read("params")
    tables[2].row([[0, 1, 1], [0, 0, 1], [0, 0, 0]], [0, 1, 4])
    assert loaded
    assert not [n for n in loaded if "acc" in n or "test" in n or "valid" in n]
    assert [table.reads for table in tables] == [[], [], []]
    tables[0].accuracy("cifar10_test_200", [3])
    assert tables[0].reads == ["cifar10_test_200"] == loaded[-1:]
    # Nor by the other door.
    for name in ("cifar10_test_200", "cifar10_valid_12"):
        with pytest.raises(ValueError, match=f"Received: '{name}'"):
            tables[0].read(name)


def test_a_cell_is_found_in_any_numbering(folder):
    table = tabular.nasbench101(folder)
    assert table.row([[0, 1, 1], [0, 0, 1], [0, 0, 0]], [0, 1, 4]) == 0
    # Branches swapped: 0 - 1 (conv1x1) - 4, 0 - 2 (pool) - 3 (conv3x3) - 4, and a
    # vertex 5 that leads nowhere.
    adjacency = np.zeros((6, 6), int)
    adjacency[tuple(np.transpose([(0, 1), (1, 5), (0, 2), (2, 3), (3, 5), (0, 4)]))] = 1
    assert table.row(adjacency, [0, 2, 3, 1, 1, 4]) == 1
    # And one that nothing leads to.
    adjacency[0, 4], adjacency[4, 5] = 0, 1
    assert table.row(adjacency, [0, 2, 3, 1, 1, 4]) == 1
    # With an edge from the conv1x1 to the pool it is another, though in a numbering
    # with the pool before the conv1x1 that edge would point back.
    adjacency[1, 2] = 1
    # Of all edges the code is the highest; of eight vertices there is none.
    full = [np.triu(np.ones((n, n), int), 1) for n in (2, 7, 8)]
    for graph in (adjacency, *full):
        with pytest.raises(ValueError, match="does not list"):
            table.row(graph, [0, 2, 3, 1, 1, 1, 1, 1][: len(graph) - 1] + [4])
    assert table.accuracy("test_acc_108").dtype == np.float64
    with pytest.raises(ValueError, match="No way"):
        table.row([[0, 0], [0, 0]], [0, 4])


def test_different_graphs_have_different_codes():
    # Every choice of five edges and of three operations, the others being equal.
    rows = np.indices((2,) * 5 + (6,) * 3).reshape(8, -1).T
    graphs = np.zeros((len(rows), 7, 7), int)
    graphs[:, 0, 1:6] = rows[:, :5]
    operations = np.pad(rows[:, 5:] - 1, ((0, 0), (0, 4)))
    codes = tabular.graphs._encode(graphs, operations)
    assert len(np.unique(codes)) == len(rows)


def test_errors_teach(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_SPOS_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set KERAS_SPOS_DATA"):
        tabular.nasbench201()
    with pytest.raises(FileNotFoundError, match="nasbench_macro.npz is not in"):
        tabular.nasbench_macro(tmp_path)
    np.savez(tmp_path / "nasbench101.npz", params=np.zeros(3))
    with pytest.raises(ValueError, match="Missing: .'adjacency'"):
        tabular.nasbench101(tmp_path)
    table = tabular.nasbench201(folder)
    with pytest.raises(ValueError, match=r"unknown options \['k3'\]"):
        table.rows(space_of(("none", "k3"), 6), (0,) * 6)
    with pytest.raises(ValueError, match="has 6 decisions .*Received: 5 decisions"):
        table.rows(space_of(OPS, 5), (0,) * 5)
    with pytest.raises(ValueError, match="Received: 'cifar100_test_200'"):
        table.accuracy("cifar100_test_200")


def test_rows_that_a_file_lacks(folder, tmp_path):
    with np.load(folder / "nasbench201.npz") as arrays:
        absent = (4,) * 6  # The last of all.
        rest = ~(arrays["ops"] == absent).all(axis=1)
        less = {k: v if k == "op_names" else v[rest] for k, v in arrays.items()}
    np.savez(tmp_path / "nasbench201.npz", **less)
    table = tabular.nasbench201(tmp_path)
    paths = [tuple(less["ops"][0].tolist()), absent]
    assert table.rows(space_of(OPS, 6), paths[:1]).tolist() == [0]
    with pytest.raises(
        ValueError, match=f"does not list the path {re.escape(str(absent))}"
    ):
        table.rows(space_of(OPS, 6), paths)


@pytest.mark.parametrize("matrix", [[[0, 1], [1, 0]], [[1, 1], [0, 0]], [[0, 1]]])
def test_a_graph_is_an_upper_triangular_matrix(matrix):
    with pytest.raises(ValueError, match=r"upper triangular matrix \[2, 2\]"):
        tabular.graphs.prune(matrix, [0, 4])


def test_published_cells_are_found():
    table = tabular.nasbench101(real("nasbench101.npz"))
    graphs, ops = table.read("adjacency"), table.read("ops")
    sizes = table.read("num_vertices")
    rng = np.random.default_rng(0)
    for row in rng.integers(len(table), size=50):
        n = sizes[row]
        order = [0, *(1 + rng.permutation(n - 2)), n - 1]
        graph = graphs[row][np.ix_(order, order)]
        if not np.tril(graph).any():
            assert table.row(graph, ops[row][order]) == row
