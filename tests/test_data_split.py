import numpy as np
import pytest

from keras_spos import data
from keras_spos.data.sets import ArrayData, FileData


def numbered(labels):
    """Image i is filled with i, so that it is known after any shuffling."""
    images = np.zeros([len(labels), 2, 2, 3], np.uint8)
    images += np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return ArrayData(images, labels)


def numbers(arrays):
    return arrays.images[:, 0, 0, 0].tolist()


LABELS = np.array([2, 0, 1, 0, 2, 1, 0, 2, 1, 0] * 5)  # 20, 15 and 15 images


@pytest.mark.parametrize("per_class", [1, 3, 14])
def test_hold_out_is_exact_disjoint_and_balanced(per_class):
    everything = numbered(LABELS)
    rest, held = data.hold_out(everything, per_class, seed=3)
    assert np.bincount(held.labels).tolist() == [per_class] * 3
    assert sorted(numbers(rest) + numbers(held)) == list(range(50))
    assert numbers(rest) == sorted(numbers(rest))
    for part in (rest, held):
        np.testing.assert_array_equal(part.labels, LABELS[numbers(part)])


def test_the_only_possible_hold_out():
    # Three images of one class, two held out: the rest is one of the three.
    rest, held = data.hold_out(numbered([7, 7, 7]), 2)
    assert len(rest) == 1
    assert set(numbers(held)) == {0, 1, 2} - set(numbers(rest))


def test_hold_out_depends_on_the_seed_alone():
    everything = numbered(LABELS)
    once, again, other = (
        numbers(data.hold_out(everything, 5, seed=seed)[1]) for seed in (0, 0, 1)
    )
    assert once == again
    assert set(once) != set(other)


def test_hold_out_of_nothing():
    rest, held = data.hold_out(numbered(LABELS), 0)
    assert (len(rest), len(held)) == (50, 0)


def test_hold_out_draws_every_image_equally_often():
    everything = numbered([0] * 10)
    times = np.zeros(10)
    for seed in range(400):
        times[numbers(data.hold_out(everything, 5, seed)[1])] += 1
    # Binomial(400, 1/2): standard deviation 10.
    assert np.abs(times - 200).max() < 45


def test_subset_per_class_and_by_size():
    everything = numbered(LABELS)
    subset = data.balanced_subset(everything, per_class=4, seed=1)
    assert np.bincount(subset.labels).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(subset.labels, LABELS[numbers(subset)])
    assert len(set(numbers(subset))) == 12
    assert numbers(subset) != sorted(numbers(subset))
    assert numbers(data.balanced_subset(everything, n=12, seed=1)) == numbers(subset)
    counts = np.bincount(data.balanced_subset(everything, n=14, seed=1).labels)
    assert sorted(counts) == [4, 5, 5]
    # Classes are mixed, and one image more is of any of them.
    assert (np.diff(subset.labels) < 0).any()
    more = [data.balanced_subset(everything, n=1, seed=s).labels[0] for s in range(9)]
    assert set(more) == {0, 1, 2}
    assert len(data.balanced_subset(everything, per_class=15)) == 45


def test_subset_and_hold_out_of_one_seed_differ():
    everything = numbered([0] * 100)
    held = data.hold_out(everything, 50, seed=0)[1]
    subset = data.balanced_subset(everything, per_class=50, seed=0)
    assert set(numbers(held)) != set(numbers(subset))


def test_files_are_split_like_arrays():
    files = FileData([str(i) for i in range(50)], LABELS)
    held = data.hold_out(files, 5)[1]
    expected = data.hold_out(numbered(LABELS), 5)[1]
    assert [int(path) for path in held.paths] == numbers(expected)


def test_errors():
    everything = numbered([0, 0, 0, 1])
    with pytest.raises(ValueError, match="class 1 and keep one: it has 1"):
        data.hold_out(everything, 1)
    with pytest.raises(ValueError, match="per_class >= 0"):
        data.hold_out(everything, -1)
    with pytest.raises(ValueError, match="draw 2 images of class 1: it has 1"):
        data.balanced_subset(everything, per_class=2)
    with pytest.raises(ValueError, match="either per_class or n"):
        data.balanced_subset(everything)
    with pytest.raises(ValueError, match="either per_class or n"):
        data.balanced_subset(everything, per_class=1, n=2)
    with pytest.raises(ValueError, match="a non-empty set. Received: n=1"):
        data.balanced_subset(numbered([]), n=1)
    with pytest.raises(ValueError, match="type uint8. Received: shape"):
        ArrayData(np.zeros([2, 4, 4, 3]), [0, 1])
    with pytest.raises(ValueError, match="one integer label per image"):
        ArrayData(np.zeros([2, 4, 4, 3], np.uint8), [0, 1, 2])
    with pytest.raises(ValueError, match="one integer label per image"):
        ArrayData(np.zeros([2, 4, 4, 3], np.uint8), [0.0, 1.0])
