"""SPOS's channel search space (Table 4) costs what the paper says, path by path."""

import numpy as np
import pytest
from models import undrawn_weights
from test_shufflenet_costs import BLOCK_SEARCH, SCALES, closed_form

from keras_spos import count_flops, count_params, flops_table, params_table, spaces

SMALL = {
    "input_shape": (16, 16, 3),
    "num_classes": 4,
    "stem_channels": 4,
    "stage_channels": (8, 16),
    "stage_blocks": (1, 2),
    "head_channels": 8,
}


@pytest.fixture(scope="module")
def published():
    with undrawn_weights():
        return spaces.shufflenet_v2(blocks="spos_block_search", widths=True)


def test_published_block_and_channel_search(published):
    assert published.space.size == 8**20
    path = published.named_paths["spos_block_channel_search"]
    assert path == SCALES
    tables = flops_table(published), params_table(published)
    assert tables[0](path)[0] == 327_857_920
    assert round(tables[1](path)[0] / 1e6, 3) == 3.433
    # Blocks do not depend on one another: the closed form of a hundred random paths.
    paths = published.space.sample(100, seed=0)
    expected = [
        closed_form(BLOCK_SEARCH, [(2 + 2 * i) / 10 for i in path])
        for path in paths.tolist()
    ]
    np.testing.assert_array_equal(
        np.stack([table(paths) for table in tables], axis=1), expected
    )


def test_options_and_widths_are_two_integers_of_a_block():
    net = spaces.shufflenet_v2(**SMALL, widths=(0.4, 1.0))
    assert net.space.sizes.tolist() == [4, 2] * 3
    names = [d.name for d in net.space.decisions]
    assert names[:3] == ["block_0", "block_0_width", "block_1"]
    assert net.named_paths["all_choice_x"] == (3, 1) * 3
    tables = flops_table(net), params_table(net)
    plain = spaces.shufflenet_v2(**SMALL)
    for choice in range(4):
        # At width 1 it is the space without widths.
        expected = flops_table(plain)((choice,) * 3), params_table(plain)((choice,) * 3)
        assert tuple(t((choice, 1) * 3) for t in tables) == expected
    path = (3, 0, 0, 1, 2, 0)
    subnet = net.extract(path, fresh=True)
    assert count_flops(subnet) == tables[0](path)[0]
    assert count_params(subnet) == tables[1](path)[0]


def test_a_narrow_network_is_drawn_as_if_built_alone():
    net = spaces.shufflenet_v2(**SMALL, blocks=(0, 0, 0), widths=(0.5, 32.0))
    subnet = net.extract((0, 0, 0), fresh=True)
    layer = next(x for x in subnet.layers if x.name.startswith("block_2_sliceable"))
    last = [x for x in subnet.layers if x.name.startswith("block_2_sliceable")][-1]
    assert layer.kernel_initializer.stddev == 1 / 8
    assert last.kernel_initializer.stddev == 1 / last.kernel.shape[2] == 1 / 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"widths": (0.1, 1.0)}, "no mid-channels: 4 times 0.1"),
        ({"widths": (1.0, 0.5)}, r"Widths increase. Received: widths=\(1.0, 0.5\)"),
        ({"blocks": "all_choice_3"}, "nothing to search but widths"),
        ({"blocks": "all_choice_9", "widths": True}, "Known blocks are .*all_choice_3"),
        ({"blocks": (0, 1), "widths": True}, r"per block \(3\). Received: blocks=\(0,"),
        ({"blocks": (0, 1, 4), "widths": True}, r"per block \(3\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        spaces.shufflenet_v2(**SMALL, **arguments)
