"""The tabulated spaces cost what the benchmarks say, architecture by architecture.

The closed forms below are written from the benchmarks' papers and use nothing of the
library; with the published files at hand, their own figures are compared too.
"""

import numpy as np
import pytest
from models import undrawn_weights
from tables import OPS, real

from keras_spos import flops_table, params_table, spaces, tabular

EDGES = ["edge_0_1", "edge_0_2", "edge_1_2", "edge_0_3", "edge_1_3", "edge_2_3"]


def nasbench201_costs(ops):
    """Multiply-adds with the classifier's bias, and parameters; C = 16, N = 5."""
    flops = parameters = 0

    def convolution(kernel, c_in, c_out, size, norm=True):
        nonlocal flops, parameters
        flops += kernel**2 * c_in * c_out * size**2
        parameters += kernel**2 * c_in * c_out + 2 * c_out * norm

    convolution(3, 3, 16, 32)
    for channels, size in ((16, 32), (32, 16), (64, 8)):
        if channels > 16:
            convolution(3, channels // 2, channels, size)
            convolution(3, channels, channels, size)
            convolution(1, channels // 2, channels, size, norm=False)
        for op in ops:
            for _ in range(5):
                if op in (2, 3):
                    convolution((1, 3)[op - 2], channels, channels, size)
    return flops + 64 * 10 + 10, parameters + 2 * 64 + 64 * 10 + 10


def nasbench_macro_costs(arch):
    """Multiply-adds without bias, and parameters."""
    flops, parameters, channels, size = 3 * 32 * 9 * 32**2, 3 * 32 * 9 + 64, 32, 32
    widths = (64, 64, 128, 128, 128, 256, 256, 256)
    for block, (choice, out) in enumerate(zip(arch, widths, strict=True)):
        before, size = size, size // 2 if block in (0, 2, 5) else size
        if choice == 0:
            weights = channels * out if block in (0, 2, 5) else 0
            flops += weights * size**2
            parameters += weights + 2 * out * (weights > 0)
        else:
            kernel, expansion = ((3, 3), (5, 6))[choice - 1]
            mid = channels * expansion
            flops += channels * mid * before**2 + kernel**2 * mid * size**2
            flops += mid * out * size**2
            parameters += channels * mid + kernel**2 * mid + mid * out + 4 * mid
            parameters += 2 * out
        channels = out
    flops += 256 * 1280 * size**2 + 1280 * 10
    return flops, parameters + 256 * 1280 + 2 * 1280 + 1280 * 10 + 10


def tables_of(build, **arguments):
    with undrawn_weights():
        net = build(**arguments)
    return net, flops_table(net), params_table(net)


@pytest.fixture(scope="module")
def cells():
    return tables_of(spaces.nasbench201)


@pytest.fixture(scope="module")
def chain():
    return tables_of(spaces.nasbench_macro)


def check(net_and_tables, closed_form, bias):
    net, flops, params = net_and_tables
    paths = np.array(list(net.space.enumerate()))
    expected = np.array([closed_form(path) for path in paths.tolist()])
    np.testing.assert_array_equal(flops(paths) + bias, expected[:, 0])
    np.testing.assert_array_equal(params(paths), expected[:, 1])


def test_nasbench201_by_its_closed_form(cells):
    # The library counts no bias; the benchmark counts the classifier's.
    check(cells, nasbench201_costs, bias=10)


def test_nasbench_macro_by_its_closed_form(chain):
    check(chain, nasbench_macro_costs, bias=0)


def test_nasbench201_by_its_table(cells):
    net, flops, params = cells
    table = tabular.nasbench201(real("nasbench201.npz"))
    # A path is a row of the benchmark's operations.
    np.testing.assert_array_equal(
        table.rows(net.space, table.paths), np.arange(len(table))
    )
    np.testing.assert_array_equal(flops(table.paths) + 10, table.read("cifar10_flops"))
    np.testing.assert_array_equal(params(table.paths), table.read("cifar10_params"))


def test_nasbench_macro_by_its_table(chain):
    net, flops, params = chain
    table = tabular.nasbench_macro(real("nasbench_macro.npz"))
    rows = table.rows(net.space, table.paths)
    np.testing.assert_array_equal(rows, np.arange(len(table)))
    np.testing.assert_array_equal(flops(table.paths), table.read("flops"))
    np.testing.assert_array_equal(params(table.paths), table.read("params"))


def test_decisions_are_the_benchmarks(cells, chain):
    assert [d.name for d in cells[0].space.decisions] == EDGES
    assert all(d.options == OPS for d in cells[0].space.decisions)
    assert len(cells[0].searchable_layers) == 15 * 6
    assert chain[0].space.size == 3**8


@pytest.mark.parametrize(
    "reduction, options, size",
    [
        (1, (0, 1, 3, 4), 4096),
        (2, (0, 1, 2, 3), 4096),
        (3, (0, 1, 3), 729),
    ],
)
def test_reduced_spaces(reduction, options, size):
    net, flops, params = tables_of(spaces.nasbench201, reduction=reduction, cells=1)
    assert net.space.size == size
    assert net.space.decisions[0].options == tuple(OPS[i] for i in options)
    assert net.space.describe(net.named_paths["resnet"])["edge_0_3"] == "skip_connect"


def test_unknown_reduction():
    with pytest.raises(ValueError, match="Received: 4"):
        spaces.nasbench201(reduction=4)
