"""Architectures are tuples of integers, written and read in both directions."""

import json

import numpy as np
import pytest

from keras_spos import Decision, SearchSpace


@pytest.fixture
def space():
    return SearchSpace(
        [
            Decision("block_0", ("k3", "k5")),
            Decision("block_1", ("k3", "k5", "skip")),
            Decision("width", (0.5, 1.0, 1.5, 2.0)),
        ]
    )


def test_sizes(space):
    assert space.num_decisions == 3
    assert space.sizes.tolist() == [2, 3, 4]
    assert space.size == 24 == len(set(space.enumerate()))
    assert list(space.enumerate())[:5] == [
        (0, 0, 0),
        (0, 0, 1),
        (0, 0, 2),
        (0, 0, 3),
        (0, 1, 0),
    ]


def test_size_is_exact_beyond_float_and_int64():
    space = SearchSpace(Decision(f"b{i}", "0123456") for i in range(40))
    assert space.size == 7**40
    assert "6.36681e+33 paths" in repr(space)
    space = SearchSpace(Decision(f"b{i}", "0123") for i in range(600))
    assert space.size == 4**600
    assert repr(space) == "SearchSpace(600 decisions, 1.72185e+361 paths)"


def test_sample_depends_on_the_seed_alone(space):
    paths = space.sample(2000, seed=5)
    assert paths.shape == (2000, 3) and paths.dtype == np.int64
    np.testing.assert_array_equal(paths, space.sample(2000, seed=5))
    np.testing.assert_array_equal(paths[:7], space.sample(7, seed=5))
    assert np.any(paths != space.sample(2000, seed=6))
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(paths, space.sample(2000, seed=rng))
    assert np.any(paths != space.sample(2000, seed=rng))
    assert {tuple(p) for p in paths.tolist()} == set(space.enumerate())
    assert space.sample(0).shape == (0, 3)


def test_describe_and_parse(space):
    description = {"block_0": "k5", "block_1": "skip", "width": "1.5"}
    assert space.describe((1, 2, 2)) == description
    for path in space.enumerate():
        assert space.parse(space.describe(path)) == path
        assert space.path_from_json(space.path_to_json(path)) == path
        assert space.path_from_json(json.dumps(path)) == path
    assert space.parse({"block_0": 1, "block_1": "k3", "width": 3}) == (1, 0, 3)
    assert space.path(description) == (1, 2, 2)


def test_json_of_the_space(space):
    assert SearchSpace.from_json(space.to_json()) == space
    assert hash(SearchSpace.from_json(space.to_json())) == hash(space)
    assert space != SearchSpace(space.decisions[:2])


def test_paths_come_in_many_forms(space):
    for path in (
        [1, 2, 3],
        np.array([1, 2, 3], np.int8),
        [1.0, 2.0, 3.0],
        [[1, 2, 3]],
        (np.int64(1), np.int32(2), 3),
    ):
        assert space.path(path) == (1, 2, 3)
        assert all(type(i) is int for i in space.path(path))
    assert space.validate([[1, 2, 3], [0, 0, 0]]).tolist() == [[1, 2, 3], [0, 0, 0]]


@pytest.mark.parametrize(
    "path, message",
    [
        ((0, 0), r"one choice per decision \(3\). Received: 2"),
        ([[0, 0, 0, 0]], r"one choice per decision \(3\). Received: 4"),
        (np.zeros((1, 1, 3), int), r"one choice .*shape \(1, 1, 3\)"),
        ([[0, 0], [0, 0, 0]], "one choice .*rows of different lengths"),
        ((0, 3, 0), r"'block_1' \(number 1\) has options 0 to 2 .*skip.*Received: 3"),
        ((0, 0, -1), r"'width' \(number 2\).*Received: -1"),
        ((0, 0.5, 0), r"Choices must be integers. Received: \[0.0, 0.5, 0.0\]"),
        ((0, float("nan"), 0), "Choices must be integers"),
        ((0, float("inf"), 0), "Choices must be integers"),
        (("k3", "k5", "1.0"), "Choices must be integers.*k3"),
        ((0, None, 0), "Choices must be integers.*None"),
    ],
)
def test_bad_paths(space, path, message):
    with pytest.raises(ValueError, match=message):
        space.path(path)


def test_several_paths_where_one_is_expected(space):
    for paths in ([[0, 0, 0], [1, 1, 1]], np.zeros((0, 3), int)):
        with pytest.raises(ValueError, match=f"single path. Received: {len(paths)}"):
            space.path(paths)


def test_bad_descriptions(space):
    with pytest.raises(ValueError, match=r"Missing: \['width'\]. Unknown: \['x'\]"):
        space.parse({"block_0": "k3", "block_1": "k3", "x": 0})
    with pytest.raises(ValueError, match="'block_0' has options .*Received: 'k7'"):
        space.parse({"block_0": "k7", "block_1": "k3", "width": 0})


def test_bad_decisions():
    with pytest.raises(ValueError, match="'a' needs at least one option"):
        Decision("a", ())
    with pytest.raises(ValueError, match="distinct option labels.*'x', 'x'"):
        Decision("a", ("x", "x"))
    with pytest.raises(ValueError, match="names must be distinct"):
        SearchSpace([Decision("a", "01"), Decision("a", "01")])
