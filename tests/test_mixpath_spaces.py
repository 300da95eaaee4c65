"""MixPath's spaces are as large and as costly as the paper says.

The closed forms below are written from the paper and use nothing of the library.
"""

import itertools

import numpy as np
import pytest
from models import undrawn_weights

from keras_spos import count_flops, count_params, flops_table, params_table, spaces
from keras_spos.spaces.mixpath_networks import kernel_shares
from keras_spos.spaces.mixpath_s2 import MIXNET_M
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


def mixnet_closed_form(kernels):
    """Multiply-adds and parameters of MixNet-M's skeleton with these kernel sizes.

    A layer's channels are split evenly among the kernels.
    """
    flops = parameters = 0

    def convolution(size, weights, channels):
        nonlocal flops, parameters
        flops += weights * size * size
        parameters += weights + 2 * channels

    size, channels = 112, 24
    convolution(size, 27 * 24, 24)
    convolution(size, 9 * 24, 24)
    convolution(size, 24 * 24, 24)
    stages = (
        *((2, 6, 32, 0, 2, 2), (1, 3, 32, 0, 2, 2)),
        *((2, 6, 40, 2, 1, 1), *[(1, 6, 40, 2, 2, 2)] * 3),
        *((2, 6, 80, 4, 1, 1), *[(1, 6, 80, 4, 2, 2)] * 3),
        *((1, 6, 120, 2, 1, 1), *[(1, 3, 120, 2, 2, 2)] * 3),
        *((2, 6, 200, 2, 1, 1), *[(1, 6, 200, 2, 1, 2)] * 3),
    )
    for stride, expansion, out, squeeze, expand_parts, project_parts in stages:
        mid = channels * expansion
        convolution(size, channels * mid // expand_parts, mid)
        size //= stride
        convolution(size, sum(k * k for k in kernels) * mid // len(kernels), mid)
        if squeeze:
            narrow = channels // squeeze
            flops += 2 * mid * narrow
            parameters += 2 * mid * narrow + mid + narrow
        convolution(size, mid * out // project_parts, out)
        channels = out
    convolution(size, channels * 1536, 1536)
    return flops + 1536 * 1000, parameters + 1536 * 1000 + 1000


@pytest.fixture(scope="module")
def s2():
    with undrawn_weights():
        return spaces.mixpath_s2(max_paths=2)


def test_s2_costs(s2):
    assert s2.space.size == 10**18
    paths = [(i,) * 18 for i in range(4)]
    expected = [mixnet_closed_form((k,)) for k in KERNELS]
    # All 5x5: about 335M and 4.92M.
    assert expected[1] == (334_982_976, 4_915_822)
    flops, params = flops_table(s2), params_table(s2)
    assert list(zip(flops(paths), params(paths), strict=True)) == expected
    # The first two kernels together: each once more, on all channels.
    first, second = (f for f, _ in expected[:2])
    only_pointwise = (25 * first - 9 * second) / 16
    np.testing.assert_allclose(flops([(4,) * 18])[0], first + second - only_pointwise)


def test_s3_with_one_path_a_group_is_mixnet():
    options = {"max_paths": 1, "skeleton": MIXNET_M[2:3]}
    with undrawn_weights():
        s2 = spaces.mixpath_s2((32, 32, 3), 10, **options)
        s3 = spaces.mixpath_s3((32, 32, 3), 10, **options)
    assert (s2.space.size, s3.space.size) == (4, 4**4)
    for table in (flops_table, params_table):
        costs = table(s2)([(i,) for i in range(4)])
        np.testing.assert_array_equal(table(s3)([(i,) * 4 for i in range(4)]), costs)
        # A quarter of the channels each.
        assert table(s3)((0, 1, 2, 3))[0] == costs.mean()


def test_networks_that_claim_to_be_the_papers(s2):
    with undrawn_weights():
        subnet = s2.extract((1,) * 11 + (2,) * 4 + (0,) * 3, fresh=True)
    shares = kernel_shares(subnet)
    assert shares == {3: 3 / 18, 5: 11 / 18, 7: 4 / 18}
    differences = spaces.mixpath_differences(subnet, "MixPath-B")
    # 22 % of 7x7 is met, 61 % of 5x5 is not.
    assert [text.split(":")[0] for text in differences] == [
        "multiply-adds, M",
        "parameters, M",
        "share of 5x5 kernels, %",
    ]
    assert len(spaces.mixpath_differences(subnet, "MixPath-A")) == 2
    with pytest.raises(ValueError, match="MixPath-A.*Received: 'MixPath-C'"):
        spaces.mixpath_differences(subnet, "MixPath-C")
