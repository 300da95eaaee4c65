"""A cost is a base plus a share of each block; a comparison makes a limit."""

import json
import operator

import numpy as np
import pytest

from keras_spos import CostTable, Decision, InfeasibleLimitError, SearchSpace
from keras_spos.costs import Block, check_space

SPACE = SearchSpace([Decision("a", "01"), Decision("b", "012")])


def table():
    """Cost 100 + (1, 2) for a + (10, 20, 30) for b + a product for both."""
    return CostTable(
        SPACE,
        100,
        [
            Block("first", (0,), np.array([1, 2])),
            Block("second", (1,), np.array([10, 20, 30])),
            Block("joint", (0, 1), np.array([[0, 0, 0], [0, 1000, 2000]])),
            Block("reversed", (1, 0), np.array([[0, 0], [0, 0], [0.5, 0]])),
        ],
        name="latency",
        unit="ms",
        metadata={"device": "a board", "batch": 32},
    )


def test_costs_by_hand():
    assert table()((0, 0)).tolist() == [111]
    assert table()([(0, 2), (1, 0), (1, 2)]).tolist() == [131.5, 112, 2132]
    assert table()(np.zeros((0, 2))).shape == (0,)


def test_a_bad_path_is_an_error():
    with pytest.raises(ValueError, match="'b' .* options 0 to 2.*Received: 3"):
        table()((0, 3))


def test_limits():
    limit = table() <= 131.5
    paths = list(SPACE.enumerate())
    assert limit.satisfied(paths).tolist() == [
        p != (1, 1) and p != (1, 2) for p in paths
    ]
    limit.check_feasible()


@pytest.mark.parametrize("compare", [operator.lt, operator.gt, operator.ge])
def test_a_limit_is_written_in_one_way(compare):
    with pytest.raises(TypeError, match="written `table <= value`. .*'latency'"):
        compare(table(), 120)
    # The same limit from the right.
    assert (120 >= table()).value == 120


def test_infeasible_limit_says_what_can_be_reached():
    (table() <= 111).check_feasible()
    with pytest.raises(
        InfeasibleLimitError, match=r"latency <= 110. .*reaches 111 to 2132.5 ms"
    ):
        (table() <= 110).check_feasible()
    with pytest.raises(InfeasibleLimitError):
        (table() <= float("nan")).check_feasible()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_lowest_cost_can_be_reached(sign):
    """Though the sums differ in the last digit: 0.3 + (0.2 + 0.1) is above 0.6."""
    blocks = [Block("x", (0,), [sign * 0.2] * 2), Block("y", (1,), [sign * 0.1] * 3)]
    limit = CostTable(SPACE, sign * 0.3, blocks) <= sign * 0.6
    assert limit.satisfied([(0, 0)])
    limit.check_feasible()


def test_the_lowest_cost_can_be_reached_where_costs_cancel():
    """As in a table of differences from the cheapest path: the sum is not exactly 0."""
    blocks = [Block("x", (0,), [0.1, 0.5]), Block("y", (1,), [0.2] * 3)]
    table = CostTable(SPACE, -0.1 - 0.2, blocks)
    limit = table <= table([(0, 0)])[0]
    assert table.reachable_range()[0] > limit.value
    limit.check_feasible()


def test_reachable_range_is_exact_where_blocks_share_a_decision():
    blocks = [Block(str(i), (0,), np.array(c)) for i, c in enumerate([[1, 5], [5, 1]])]
    assert CostTable(SPACE, 0, blocks).reachable_range() == (6, 6)


def test_save_and_load(tmp_path):
    path = tmp_path / "table.json"
    table().save(path)
    loaded = CostTable.load(path)
    assert loaded.to_dict() == table().to_dict()
    assert loaded.space == SPACE
    assert (loaded.name, loaded.unit, loaded.metadata["batch"]) == ("latency", "ms", 32)
    paths = list(SPACE.enumerate())
    np.testing.assert_array_equal(loaded(paths), table()(paths))
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize("cut", [0, 1, 100, -2])
def test_truncated_file(tmp_path, cut):
    path = tmp_path / "table.json"
    table().save(path)
    path.write_text(path.read_text()[:cut])
    with pytest.raises(ValueError, match="table.json is not a complete cost table"):
        CostTable.load(path)


@pytest.mark.parametrize("key", ["base", "blocks", "space", "metadata"])
def test_file_that_lacks_something(tmp_path, key):
    path = tmp_path / "table.json"
    data = table().to_dict()
    del data[key]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"not a complete cost table.*{key}"):
        CostTable.load(path)


def test_not_a_table(tmp_path):
    path = tmp_path / "table.json"
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="not a complete cost table"):
        CostTable.load(path)


def test_a_table_of_something_else_is_refused(tmp_path):
    path = tmp_path / "table.json"
    table().save(path)
    CostTable.load(path, unit="ms", metadata={"batch": 32})
    with pytest.raises(ValueError, match="unit='s'. Received: unit='ms'"):
        CostTable.load(path, unit="s")
    with pytest.raises(ValueError, match="batch=1. Received: batch=32 in .*table.json"):
        CostTable.load(path, metadata={"batch": 1})
    with pytest.raises(ValueError, match="precision='fp16'. Received: precision=None"):
        CostTable.load(path, metadata={"precision": "fp16"})


@pytest.mark.parametrize("metadata", [None, {"network": "my own"}, {"network": None}])
def test_metadata_of_ones_own_say_nothing_of_the_network(metadata):
    """Only what `hardware` measured does: a dict from decisions to texts."""
    space = SearchSpace([Decision("a", "xy")], network={"a": "1", "": "2"})
    table = CostTable(space, 0.0, [Block("a", (0,), [1, 2])], "time", "ms")
    table.metadata = metadata
    check_space(table, space)
    table.metadata = {"network": {"a": "1", "": "2", "b": "3"}}
    with pytest.raises(ValueError, match=r"Different are 1 of its parts: \['b'\]"):
        check_space(table, space)
    table.metadata = {"network": {"a": "1"}}
    with pytest.raises(ValueError, match=r"1 of its parts: \['what is not searched'\]"):
        check_space(table, space)
    check_space(table, SearchSpace(space.decisions))  # Of an open image size.


def test_wrong_number_of_costs():
    with pytest.raises(ValueError, match=r"'x' of table .*shape \(3,\).*shape \(2,\)"):
        CostTable(SPACE, 0, [Block("x", (1,), np.zeros(2))])


def test_missing_costs():
    costs = np.array([[1, 2, 3], [4, np.nan, np.inf]])
    with pytest.raises(ValueError, match=r"misses block 'x', options \[\(1, 1\), \(1"):
        CostTable(SPACE, 0, [Block("x", (0, 1), costs)])


@pytest.mark.parametrize("decisions", [(-1,), (2,), (0.0,), ("a",), (0, 0), (0, -1)])
def test_blocks_of_decisions_that_are_not_there(decisions):
    costs = np.zeros((2, 2) if len(decisions) > 1 else 3)
    with pytest.raises(ValueError, match="Expected block 'x' .*0 to 1. Received: dec"):
        CostTable(SPACE, 0, [Block("x", decisions, costs)])


def damaged(tmp_path, base=100, **changed):
    """What is said about a file whose first block, or base, was changed."""
    data = table().to_dict()
    data["base"] = base
    data["blocks"][0].update(changed)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError) as caught:
        CostTable.load(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def test_damaged_tables_name_their_file(tmp_path):
    for decisions in ([-1], [7]):
        assert "Received: decisions=" in damaged(tmp_path, decisions=decisions)
    for costs in (None, [], [1], [[1], [2]]):
        assert "needs a cost per option" in damaged(tmp_path, costs=costs)
    for costs in (["dear", "cheap"], ["1", "2"], "text", [1, [2]], {"a": 1}):
        message = "Expected numbers as costs of block 'first'. Received"
        assert message in damaged(tmp_path, costs=costs)
    for cost in (None, float("nan"), float("inf")):
        assert "misses block 'first'" in damaged(tmp_path, costs=[1, cost])
    for base in (None, float("nan")):
        assert "needs a finite base" in damaged(tmp_path, base)
    for base in ("text", "1.5"):
        assert "the base of table 'latency'" in damaged(tmp_path, base)


def test_negative_costs_are_costs():
    assert CostTable(SPACE, 0, [Block("x", (0,), [-1, 2])])((0, 0)).tolist() == [-1]


def test_metadata_does_not_stand_for_the_unit(tmp_path):
    path = tmp_path / "table.json"
    CostTable(SPACE, 0, [], unit="s", metadata={"unit": "ms"}).save(path)
    with pytest.raises(ValueError, match="unit='ms'. Received: unit='s'"):
        CostTable.load(path, unit="ms")
    CostTable.load(path, unit="s", metadata={"unit": "ms"})
