"""Which images go where? Class-balanced subsets, exact and repeatable.

The paper's validation set is 50,000 *training* images, 50 of each class; ImageNet's
official validation set serves as the test set (SPOS, section 4). A balanced fixed
subset also serves to recompute batch-normalisation statistics.

Example:
    >>> train, validation = hold_out(everything, per_class=50, seed=0)
    >>> calibration = balanced_subset(train, n=20000, seed=0)
"""

import numpy as np

# Both functions shuffle each class; without a word of their own in the seed they
# would pick the same images of equal sets.
_HOLD_OUT, _SUBSET = 0, 1


def hold_out(data, per_class, seed=0):
    """Moves `per_class` images of each class into a set of their own.

    Args:
        data: A set of images (`ArrayData`, `FileData`, ...).
        per_class: How many of each class that occurs; 0 holds out nothing.
        seed: Non-negative integer. Equal labels and seeds give equal splits.

    Returns:
        (rest, held): `rest` in the given order, `held` shuffled. They are disjoint
        and together they are `data`.

    Raises:
        ValueError: If a class would keep no image.
    """
    counts = _class_counts(data.labels)
    if per_class < 0:
        raise ValueError(f"Expected per_class >= 0. Received: {per_class}")
    for label, count in counts.items():
        if per_class and count <= per_class:
            raise ValueError(
                f"Cannot hold out {per_class} images of class {label} and keep one: "
                f"it has {count}. Received: per_class={per_class}"
            )
    held = _pick(data.labels, dict.fromkeys(counts, per_class), (_HOLD_OUT, seed))
    rest = np.setdiff1d(np.arange(len(data)), held)
    return data.subset(rest), data.subset(held)


def balanced_subset(data, per_class=None, *, n=None, seed=0):
    """Draws a fixed subset with as many images of each class as of any other.

    Args:
        data: A set of images.
        per_class: How many of each class that occurs. Give this or `n`.
        n: How many in all; if the number of classes does not divide it, the classes
            that get one image more are drawn by seed.
        seed: Non-negative integer. Equal labels and seeds give equal subsets.

    Returns:
        The subset, shuffled, so that slices of it are mixed as well.

    Raises:
        ValueError: If both or none of `per_class` and `n` are given, or a class has
            too few images.
    """
    if (per_class is None) == (n is None):
        raise ValueError(
            f"Give either per_class or n. Received: per_class={per_class}, n={n}"
        )
    counts = _class_counts(data.labels)
    classes = list(counts)
    if n is not None:
        if n < 0 or not classes:
            raise ValueError(f"Expected n >= 0 and a non-empty set. Received: n={n}")
        each, extra = divmod(n, len(classes))
        wanted = dict.fromkeys(classes, each)
        for i in _generator(_SUBSET, seed, 1).permutation(len(classes))[:extra]:
            wanted[classes[i]] += 1
    else:
        if per_class < 0:
            raise ValueError(f"Expected per_class >= 0. Received: {per_class}")
        wanted = dict.fromkeys(classes, per_class)
    for label, count in counts.items():
        if count < wanted[label]:
            raise ValueError(
                f"Cannot draw {wanted[label]} images of class {label}: it has "
                f"{count}. Received: per_class={per_class}, n={n}"
            )
    return data.subset(_pick(data.labels, wanted, (_SUBSET, seed)))


def _class_counts(labels):
    classes, counts = np.unique(labels, return_counts=True)
    return dict(zip(classes.tolist(), counts.tolist(), strict=True))


def _pick(labels, wanted, entropy):
    """Indices of `wanted[label]` images of each class, shuffled; int64 ``[m]``."""
    generator = _generator(*entropy, 0)
    # A stable sort by class lists the members of each class in index order.
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], list(wanted))
    stops = np.searchsorted(labels[by_class], list(wanted), side="right")
    chosen = [np.zeros(0, np.int64)]
    for count, start, stop in zip(wanted.values(), starts, stops, strict=True):
        chosen.append(generator.permutation(by_class[start:stop])[:count])
    return generator.permutation(np.concatenate(chosen))


def _generator(purpose, seed, use):
    return np.random.default_rng([purpose, use, seed])
