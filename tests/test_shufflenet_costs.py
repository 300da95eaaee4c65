"""The full space of SPOS's Table 2 costs what the paper says, path by path.

The closed form below is written from the paper and uses nothing of the library.
"""

import numpy as np
import pytest
from models import undrawn_weights

from keras_spos import CostTable, count_flops, count_params, flops_table, params_table
from keras_spos.spaces import spos_network
from keras_spos.spaces.shufflenet_v2 import BASELINE_SCALES, OPTIONS

STAGES = ((64, 4), (160, 4), (320, 8), (640, 4))
BLOCK_SEARCH = (0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2)
SCALES = (6, 5, 3, 5, 2, 6, 3, 4, 2, 5, 7, 5, 4, 6, 7, 4, 4, 5, 4, 3)


def closed_form(path, scales=(1.0,) * 20, size=224, classes=1000):
    """Multiply-adds and parameters of a path (FLOPs as in SPOS, Table 3)."""
    flops = parameters = 0

    def convolution(kernel, c_in, c_out, groups=1):
        """A convolution at the current size, and its batch norm."""
        nonlocal flops, parameters
        weights = kernel * kernel * c_in * c_out // groups
        flops += weights * size * size
        parameters += weights + 2 * c_out

    size //= 2
    convolution(3, 3, 16)
    channels, number = 16, 0
    for out, blocks in STAGES:
        for block in range(blocks):
            choice, mid = path[number], int(out // 2 * scales[number])
            number += 1
            kernel = (3, 5, 7, 3)[choice]
            before = size
            if block == 0:
                size = after = size // 2
                shortcut = main = channels
                convolution(kernel, channels, channels, groups=channels)
                convolution(1, channels, channels)
            else:
                after = size
                shortcut = main = channels // 2
            if choice == 3:
                steps = ((main, mid), (mid, mid), (mid, out - shortcut))
                for c_in, c_out in steps:
                    convolution(3, c_in, c_in, groups=c_in)
                    convolution(1, c_in, c_out)
            else:
                size = before
                convolution(1, main, mid)
                size = after
                convolution(kernel, mid, mid, groups=mid)
                convolution(1, mid, out - shortcut)
            channels = out
    convolution(1, channels, 1024)
    return flops + 1024 * classes, parameters + 1024 * classes


@pytest.fixture(scope="module")
def tables(imagenet_net):
    return flops_table(imagenet_net), params_table(imagenet_net)


def both(tables, path):
    return tuple(int(table(path)[0]) for table in tables)


@pytest.mark.parametrize(
    "choice, flops, parameters_m",
    [
        (0, 295_842_496, 3.155),
        (1, 313_654_976, 3.212),
        (2, 340_373_696, 3.298),
        (3, 358_825_920, 3.871),
    ],
)
def test_one_choice_everywhere(tables, choice, flops, parameters_m):
    counted = both(tables, (choice,) * 20)
    assert counted[0] == flops
    assert round(counted[1] / 1e6, 3) == parameters_m
    assert counted == closed_form((choice,) * 20)


def test_five_hundred_paths(imagenet_net, tables):
    paths = imagenet_net.space.sample(500, seed=1)
    expected = np.array([closed_form(path) for path in paths.tolist()])
    np.testing.assert_array_equal(tables[0](paths), expected[:, 0])
    np.testing.assert_array_equal(tables[1](paths), expected[:, 1])


def test_distribution_of_uniform_paths(imagenet_net, tables):
    flops = tables[0](imagenet_net.space.sample(20_000, seed=0)) / 1e6
    assert flops.mean() == pytest.approx(327.1, abs=0.3)
    assert flops.std() == pytest.approx(11.8, abs=0.2)
    assert np.mean(flops <= 330) == pytest.approx(0.589, abs=0.012)
    assert np.mean(flops <= 300) == pytest.approx(0.011, abs=0.003)


def test_cheapest_and_dearest(tables):
    # Blocks do not depend on one another: each may be changed alone.
    alone = np.zeros((20, 4))
    for block, choice in np.ndindex(20, 4):
        path = [0] * 20
        path[block] = choice
        alone[block, choice] = closed_form(path)[0]
    for path, cost in zip(
        (alone.argmin(axis=1), alone.argmax(axis=1)),
        tables[0].reachable_range(),
        strict=True,
    ):
        assert closed_form(path)[0] == cost == tables[0](path)[0]


def test_space(imagenet_net):
    assert imagenet_net.space.size == 4**20
    assert imagenet_net.named_paths["spos_block_search"] == BLOCK_SEARCH
    assert imagenet_net.named_paths["all_choice_x"] == (3,) * 20


def test_published_block_search(imagenet_net, tables):
    counted = both(tables, BLOCK_SEARCH)
    assert counted[0] == 318_729_024
    assert round(counted[1] / 1e6, 3) == 3.345
    with undrawn_weights():
        subnet = imagenet_net.extract("spos_block_search", fresh=True)
    assert (count_flops(subnet), count_params(subnet)) == counted
    # Keras' own count: trainable parameters of the network that is retrained.
    trainable = sum(int(np.prod(w.shape)) for w in subnet.trainable_weights)
    assert trainable == counted[1]


def test_released_search(imagenet_net, tables):
    flops, params = both(tables, imagenet_net.named_paths["spos_released"])
    assert round(flops / 1e6) == 323
    assert int(params / 1e5) == 35


def test_published_block_and_channel_search():
    with undrawn_weights():
        network = spos_network("spos_block_channel_search")
    scales = [0.2 * (i + 1) for i in SCALES]
    counted = count_flops(network), count_params(network)
    assert counted[0] == 327_857_920
    assert round(counted[1] / 1e6, 3) == 3.433
    assert counted == closed_form(BLOCK_SEARCH, [round(s, 1) for s in scales])


@pytest.mark.parametrize(
    "choice, scale, millions",
    [(0, 1.12, 323.4), (1, 1.03, 319.3), (2, 0.96, 326.9), (3, 0.92, 326.5)],
    ids=OPTIONS,
)
def test_baselines_adjusted_by_this_project(choice, scale, millions):
    assert BASELINE_SCALES[OPTIONS[choice]] == scale
    flops, _ = closed_form((choice,) * 20, (scale,) * 20)
    assert round(flops / 1e6, 1) == millions


def test_saved_table(tables, tmp_path):
    tables[0].save(tmp_path / "flops.json")
    loaded = CostTable.load(tmp_path / "flops.json")
    assert both((loaded,), BLOCK_SEARCH) == (318_729_024,)
