"""Whole spaces are scored as one path alone would be, once, and resumably."""

import functools
import io

import keras
import numpy as np
import pytest
from models import CLASSES, cross_entropy, data, dense_net, randomize

from keras_spos import Evaluator, score_all, spaces
from keras_spos.callbacks import SampledTau
from keras_spos.ranking import kendall_tau
from keras_spos.spaces.nasbench201 import EDGES, live_edges

SHAPE = (8, 8, 3)


class Killed(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def cell():
    """A NAS-Bench-201 supernet of one cell a stage, and images."""
    net = randomize(spaces.nasbench201(SHAPE, CLASSES, channels=2, cells=1))
    net.compile(keras.optimizers.SGD(0.1), cross_entropy())
    return net, data(6, SHAPE, seed=1)[0], data(9, SHAPE, seed=2)


def carries(path, edge):
    """Whether a signal crosses an edge, by following every way through the cell."""
    ways = [(3,), (1, 3), (2, 3), (1, 2, 3)]
    for way in ways:
        edges = list(zip((0, *way[:-1]), way, strict=True))
        if edge in edges and all(path[EDGES.index(e)] for e in edges):
            return True
    return False


def test_live_edges_are_those_on_a_way_through_the_cell(cell):
    space = cell[0].space
    paths = space.sample(300, seed=0)
    paths[paths == 4] = 0  # More silent edges.
    expected = [
        [o if carries(path, edge) else 0 for o, edge in zip(path, EDGES, strict=True)]
        for path in paths.tolist()
    ]
    assert live_edges(space, paths).tolist() == expected
    everything = live_edges(space, np.array(list(space.enumerate())))
    assert len(np.unique(everything, axis=0)) == 9445


def test_merged_paths_compute_the_same(cell):
    net, images, validation = cell
    score = Evaluator(net, images, validation)
    # A silent node that a convolution leaves; a node that nothing leaves; nothing.
    for path in ([0, 3, 3, 1, 3, 2], [3, 3, 2, 1, 4, 0], [0, 0, 3, 0, 2, 3]):
        merged = live_edges(net.space, [path])[0]
        assert not np.array_equal(merged, path)
        np.testing.assert_allclose(
            score.predict(path), score.predict(merged), rtol=1e-5, atol=1e-6
        )


def test_scores_are_those_of_paths_alone_and_each_is_computed_once(cell):
    net, images, validation = cell
    score = Evaluator(net, images, validation, metric="loss")
    paths = np.array([[0, 3, 3, 1, 3, 2], [1] * 6, [0, 3, 2, 1, 1, 2], [1] * 6])
    asked = []

    def watched(paths):
        asked.extend(map(tuple, paths.tolist()))
        return score(paths)

    merge = functools.partial(live_edges, net.space)
    together = score_all(watched, paths, chunk=1, merge=merge, verbose=False)
    assert len(asked) == len(set(asked)) == 2
    alone = [Evaluator(net, images, validation, metric="loss")(p)[0] for p in paths]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_killed_and_resumed_is_as_never_killed(tmp_path):
    net = randomize(dense_net())
    net.compile(keras.optimizers.SGD(0.1), cross_entropy())
    score = Evaluator(net, None, data(9, (3,)), metric="loss", recalibrate=False)
    paths = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    expected = score_all(score, paths, verbose=False)
    np.testing.assert_array_equal(expected, score(paths))
    both = Evaluator(
        net, None, data(9, (3,)), metric=("accuracy", "loss"), recalibrate=False
    )
    together = score_all(both, paths, chunk=3, verbose=False)
    np.testing.assert_array_equal(together[:, 1], expected)
    both.metric = "accuracy"
    both.cache.clear()
    np.testing.assert_array_equal(together[:, 0], both(paths))
    calls = []

    class Kills:
        identity = score.identity

        def __call__(self, paths):
            calls.append(paths.tolist())
            if len(calls) == 3:
                raise Killed
            return score(paths)

    file = tmp_path / "new folder" / "s.npz"
    options = {"checkpoint": file, "chunk": 1, "verbose": False}
    with pytest.raises(Killed):
        score_all(Kills(), paths, **options)
    np.testing.assert_array_equal(score_all(Kills(), paths, **options), expected)
    assert calls == [[[0, 0]], [[0, 1]], [[1, 0]], [[1, 0]], [[1, 1]]]
    for others in (paths[:2], paths + 1):
        with pytest.raises(ValueError, match="other paths"):
            score_all(score, others, **options)
    net.get_layer("classifier").bias.assign(np.ones(CLASSES))
    with pytest.raises(ValueError, match="was written for weights"):
        score_all(score, paths, **options)


@pytest.mark.parametrize(
    "score, message",
    [
        (lambda paths: np.zeros(len(paths) + 1), r"each of 2 paths.*shape \(3,\)"),
        (lambda paths: np.zeros(len(paths) - 1), r"each of 2 paths.*shape \(1,\)"),
        (lambda paths: 0.5, r"each of 2 paths.*shape \(\)"),
        (lambda paths: paths[:, 0] / 0.0, r"nan for path \(0, 0\)"),
        (lambda paths: 1 / paths[:, 0], r"inf for path \(0, 0\)"),
    ],
)
def test_scores_that_cannot_be_kept(score, message, tmp_path):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        score_all(score, [(1, 0), (0, 0), (1, 1)], chunk=2, verbose=False)


def test_two_processes_do_not_write_scores_to_one_file(tmp_path):
    paths = np.arange(6)[:, None]
    options = {"checkpoint": tmp_path / "scores.npz", "chunk": 2, "verbose": False}
    begun = []

    def score(paths):
        # Another process has begun meanwhile, and is ahead.
        if not begun:
            begun.append(paths)
            score_all(lambda paths: paths[:, 0] * 2, np.arange(6)[:, None], **options)
        return paths[:, 0] * 3

    with pytest.raises(ValueError, match="scores.npz was changed while"):
        score_all(score, paths, **options)
    assert score_all(score, paths, **options).tolist() == [0, 2, 4, 6, 8, 10]


def of_the_future():
    """An archive of a version that is not known, as one wrong byte makes it."""
    file = io.BytesIO()
    np.savez(file, paths=[(0, 0)], identity="", scores=[1.0])
    content = bytearray(file.getvalue())
    content[content.index(b"PK\1\2") + 6] = 81
    return bytes(content)


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4 truncated", b"{}", of_the_future()], ids=range(4)
)
def test_a_damaged_file_of_scores_is_refused_and_kept(content, tmp_path):
    file = tmp_path / "scores.npz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="scores.npz is not a complete file"):
        score_all(len, [(0, 0)], checkpoint=file)
    with pytest.raises(OSError, match="can be written to"):  # Before any is scored.
        score_all(None, [(0, 0)], checkpoint=file / "other.npz")
    assert file.read_bytes() == content


@pytest.mark.parametrize("given", [True, False])
def test_tau_is_tracked_while_training(given):
    net = randomize(dense_net())
    net.compile(keras.optimizers.SGD(0.5), cross_entropy())
    score = Evaluator(net, None, data(40, (3,)), metric="loss", recalibrate=False)
    paths, truth = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), [3.0, 1.0, 4.0, 2.0]
    tracker = SampledTau(score, paths, truth if given else None, every=2)
    history = net.fit(
        *data(16, (3,)), batch_size=8, epochs=4, verbose=0, callbacks=[tracker]
    ).history
    expected = [kendall_tau(scores, truth) for scores in tracker.scores]
    assert len(expected) == 2 and tracker.epochs == [1, 3]
    assert tracker.taus(truth) == expected
    np.testing.assert_array_equal(tracker.scores[-1], score(paths))
    assert history.get("sampled_tau", []) == (expected if given else [])
    with pytest.raises(ValueError, match="Received: 3"):
        SampledTau(score, paths, truth[:3])
    drawn = SampledTau(score, 9, seed=1).paths
    np.testing.assert_array_equal(drawn, net.space.sample(9, seed=1))
    assert np.any(drawn != net.space.sample(9, seed=0))
