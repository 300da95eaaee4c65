"""MixPath's spaces are as large and as costly as the paper says.

The closed forms below are written from the paper and use nothing of the library.
"""

import itertools

import numpy as np
import pytest
from models import undrawn_weights

from keras_spos import count_flops, count_params, flops_table, params_table, spaces
from keras_spos.spaces.nasbench101_mixpath import cell_of, graph_of

KERNELS = (3, 5, 7, 9)
S1 = ((48, 2), (96, 3), (192, 3), (256, 2), (320, 2))  # channels, blocks
S1_STRIDE_2 = (2, 5)


def s1_closed_form(blocks):
    """Multiply-adds and deployed parameters of [(expansion, kernel sizes), ...]."""
    flops = parameters = 0

    def convolution(size, weights, channels, norm=True):
        nonlocal flops, parameters
        flops += weights * size * size
        parameters += weights + 2 * channels * norm

    size, channels, number = 32, 3, 0
    convolution(size, 27 * 32, 32)
    channels = 32
    for out, repeat in S1:
        for _ in range(repeat):
            expansion, kernels = blocks[number]
            mid = channels * expansion
            convolution(size, channels * mid, mid)
            size //= 2 if number in S1_STRIDE_2 else 1
            for kernel in kernels:
                convolution(size, kernel * kernel * mid, mid)
            convolution(size, mid * out, out)
            channels = out
            number += 1
    convolution(size, 320 * 1280, 1280)
    return flops + 12800, parameters + 12810


def s1_options(m):
    subsets = [s for k in range(1, m + 1) for s in itertools.combinations(KERNELS, k)]
    return [(expansion, subset) for expansion in (3, 6) for subset in subsets]


@pytest.fixture(scope="module")
def s1():
    with undrawn_weights():
        return spaces.mixpath_s1(max_paths=4)


def test_s1_has_the_papers_size_and_parameters(s1):
    assert s1.space.size == 30**12
    trainable = sum(int(np.prod(v.shape)) for v in s1.trainable_variables)
    assert trainable == 10_474_602
    norms = [b.groups[e].norm for b in s1.searchable_layers for e in (0, 1)]
    shadows = sum(2 * v.shape[0] for n in norms for v in [n.norm(1).gamma]) * 3
    assert trainable - shadows == 10_449_258


@pytest.mark.parametrize("m", (1, 2, 3))
def test_s1_options_for_fewer_paths(s1, m):
    block = s1.searchable_layers[0]
    count = sum(len(group.offered(m)) for group in block.groups)
    assert count == {1: 8, 2: 20, 3: 28}[m] == len(s1_options(m))


def test_s1_costs_what_the_closed_form_says(s1):
    paths = s1.space.sample(300, seed=0)
    options = s1_options(4)
    expected = [s1_closed_form([options[i] for i in path]) for path in paths]
    flops, parameters = zip(*expected, strict=True)
    np.testing.assert_array_equal(flops_table(s1)(paths), flops)
    np.testing.assert_array_equal(params_table(s1)(paths), parameters)
    with undrawn_weights():
        subnet = s1.extract(paths[0], fresh=True)
    assert (count_flops(subnet), count_params(subnet)) == expected[0]


def test_nasbench101_cells():
    for m, options, cells in ((3, 63, 19), (4, 255, 34)):
        net = spaces.nasbench101_mixpath(
            (8, 8, 3), max_paths=m, channels=1, stacks=1, cells=1
        )
        assert net.space.size == options
        assert len({cell_of(net, (i,)) for i in range(options)}) == cells
    cells = spaces.nasbench101_mixpath(
        (8, 8, 3), max_paths=2, channels=1, stacks=2, cells=2
    )
    assert len(cells.searchable_layers) == 4 and cells.space.num_decisions == 1


def test_nasbench101_parameters_are_the_tables():
    # The benchmark's own counts, at 128 channels and 3 x 3 cells.
    known = {
        ("conv3x3",): 11_215_242,
        ("maxpool3x3",): 1_920_138,
        ("conv1x1", "maxpool3x3"): 3_831_434,
        ("conv3x3", "conv3x3"): 21_384_074,
    }
    with undrawn_weights():
        net = spaces.nasbench101_mixpath(max_paths=2)
    counted = params_table(net)([(i,) for i in range(net.space.size)])
    counted -= 2 * 3 * (128 + 256 + 512)  # the shadow batch norms
    cells = [cell_of(net, (i,)) for i in range(net.space.size)]
    found = dict(zip(cells, counted.tolist(), strict=True))
    assert {cell: found[cell] for cell in known} == known


def test_nasbench101_graphs():
    adjacency, operations = graph_of(("conv1x1", "maxpool3x3"))
    edges = {(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)}
    assert set(map(tuple, np.argwhere(adjacency).tolist())) == edges
    assert operations == [0, 2, 3, 2, 4]
