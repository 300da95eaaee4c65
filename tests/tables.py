"""Tiny benchmark files in the format of `keras_spos.tabular`, with made-up truths."""

import itertools
import os
import pathlib

import numpy as np
import pytest

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def real(file):
    """The folder with a published file, or a skipped test."""
    folder = os.environ.get("KERAS_SPOS_DATA")
    if not folder or not (pathlib.Path(folder) / file).is_file():
        pytest.skip(f"KERAS_SPOS_DATA has no {file}")
    return folder


def nasbench201(folder, seed=0):
    """All 15,625 rows in an order of their own; accuracies are random."""
    rng = np.random.default_rng(seed)
    ops = rng.permutation(np.array(list(itertools.product(range(5), repeat=6))))
    flops = (ops == 3).sum(1) * 35_389_440 + (ops == 2).sum(1) * 3_932_160
    params = (ops == 3).sum(1) * 243_040 + (ops == 2).sum(1) * 28_000
    np.savez(
        folder / "nasbench201.npz",
        ops=ops.astype(np.uint8),
        op_names=np.array(OPS, dtype="S12"),
        cifar10_flops=flops + 7_783_050,
        cifar10_params=params + 73_306,
        cifar10_test_200=rng.uniform(10, 95, len(ops)),
        cifar10_valid_12=rng.uniform(10, 90, len(ops)),
    )
    return folder


def nasbench_macro(folder, seed=0):
    """All 6,561 rows in an order of their own; accuracies are random."""
    rng = np.random.default_rng(seed)
    arch = rng.permutation(np.array(list(itertools.product(range(3), repeat=8))))
    runs = rng.uniform(45, 94, (len(arch), 3))
    np.savez(
        folder / "nasbench_macro.npz",
        arch=arch.astype(np.uint8),
        flops=(arch + 1).sum(1) * 10_000_000,
        params=(arch + 1).sum(1) * 100_000,
        mean_acc=runs.mean(1),
        test_acc=runs,
    )
    return folder


def nasbench101(folder):
    """Input - conv3x3 - output with a skip, two branches, and a chain of conv1x1."""
    adjacency = np.zeros((3, 7, 7), np.uint8)
    ops = np.full((3, 7), -1, np.int8)
    for row, (edges, kinds) in enumerate(
        [
            (((0, 1), (1, 2), (0, 2)), (0, 1, 4)),
            (((0, 1), (0, 2), (1, 3), (2, 4), (3, 4)), (0, 3, 2, 1, 4)),
            (((0, 1), (1, 2)), (0, 2, 4)),
        ]
    ):
        adjacency[row][tuple(np.transpose(edges))] = 1
        ops[row, : len(kinds)] = kinds
    np.savez(
        folder / "nasbench101.npz",
        adjacency=adjacency,
        ops=ops,
        num_vertices=np.array([3, 5, 3], np.uint8),
        params=np.array([100, 200, 50], np.int32),
        test_acc_108=np.array([0.9, 0.8, 0.7], np.float32),
    )
    return folder
