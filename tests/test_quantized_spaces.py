"""SPOS's mixed-precision spaces (Table 6) cost what the paper says, path by path.

The closed form below is written from the paper and uses nothing of the library.
"""

import keras
import numpy as np
import pytest
from models import randomize, values

from keras_spos import (
    InfeasibleLimitError,
    bitops_table,
    count_bitops,
    count_flops,
    flops_table,
    params_table,
    search,
    spaces,
)

STAGES = {18: (2, 2, 2, 2)}
# Some of the paper's, and (3, 3), which is a baseline and not in the paper's space.
PAIRS = ((1, 2), (2, 2), (3, 3), (4, 4))
WIDTHS = (0.5, 1.0, 1.5)
SMALL = {"input_shape": (8, 8, 3), "num_classes": 4, "stage_channels": (4, 8)}


def closed_form(depth, choices, size=224):
    """Multiply-adds of residual blocks, and BitOps in G, of (width, bits) pairs."""
    size //= 4
    channels, number, flops, bitops = 64, 0, 0, 0
    for stage, blocks in enumerate(STAGES[depth]):
        out = 64 * 2**stage
        for block in range(blocks):
            width, (w, a) = choices[number]
            number += 1
            if stage and not block:
                size //= 2
            middle = int(out * width)
            weights = 9 * channels * middle + 9 * middle * out
            if channels != out:
                weights += channels * out
            flops += weights * size * size
            bitops += weights * size * size * w * a
            channels = out
    return flops, bitops / 2**30


def test_the_papers_bitops_of_resnet_18():
    net = spaces.resnet18_quantized(bits=PAIRS)
    table, macs = bitops_table(net), flops_table(net)
    assert uniform_bitops(net, table) == (6.32, 14.21, 25.27)
    one, fixed = [(1.0, (1, 1))] * 8, 118_525_952
    assert closed_form(18, one)[0] == 1_695_547_392
    paths = net.space.sample(300, seed=18)
    for path, g, n in zip(paths.tolist(), table(paths), macs(paths), strict=True):
        choices = [(WIDTHS[w], PAIRS[b]) for w, b in _by_two(path)]
        flops, bitops = closed_form(18, choices)
        assert g == pytest.approx(bitops, rel=1e-12)
        # Besides the blocks: the first convolution and the classifier.
        assert n == flops + fixed


def test_the_papers_bitops_of_resnet_34():
    net = spaces.resnet34_quantized(bits=PAIRS[1:], widths=(1.0,))
    assert uniform_bitops(net, bitops_table(net)) == (13.21, 29.72, 52.83)


def uniform_bitops(net, table):
    """BitOps of 2W2A, 3W3A and 4W4A, as the paper prints them."""
    return tuple(
        round(float(table(net.named_paths[f"{k}W{k}A"])[0]), 2) for k in (2, 3, 4)
    )


def _by_two(path):
    return zip(path[::2], path[1::2], strict=True)


def test_the_papers_space():
    small = {**SMALL, "stage_channels": (4, 4, 4, 4)}
    assert spaces.resnet18_quantized(**small).space.size == 18**8
    assert spaces.resnet34_quantized(**small).space.size == 18**16
    net = spaces.resnet18_quantized(**small)
    assert sorted(net.named_paths) == ["2W2A", "4W4A"]
    labels = set(net.space.describe(net.named_paths["2W2A"]).values())
    assert labels == {"1x", "2W2A"}


def test_tables_count_what_is_extracted():
    net = spaces.quantized_resnet(stage_blocks=(1, 1), **SMALL)
    tables = bitops_table(net), flops_table(net), params_table(net)
    for path in [(0, 0, 2, 5), (2, 3, 1, 2)]:
        subnet = net.extract(path)
        assert count_bitops(subnet) == pytest.approx(tables[0](path)[0])
        assert count_flops(subnet) == tables[1](path)[0]
        trainable = sum(int(np.prod(w.shape)) for w in subnet.trainable_weights)
        assert trainable == tables[2](path)[0]
    # Stem and classifier are in float.
    kinds = [type(layer).__name__ for layer in subnet.layers if layer.weights]
    assert (kinds[0], kinds[-1]) == ("Conv2D", "Dense")
    assert kinds.count("QuantizedConv2D") == 5


def test_a_supernet_starts_from_float_weights_by_name():
    arguments = {"stage_blocks": (1, 1), **SMALL}
    blocks = arguments.pop("stage_blocks")
    donor = randomize(spaces.quantized_network(blocks, (32, 32), **arguments))
    net = randomize(spaces.quantized_resnet(stage_blocks=blocks, **arguments), seed=1)
    kernel = net.get_layer("block_0").options[0].get_layer("conv1").kernel
    (before,) = values([kernel])
    new = net.inherit(donor, "4W4A")
    assert new == sorted(
        f"block_{i}_{name}/alpha"
        for i, name in [(0, "conv1"), (0, "conv2"), (1, "conv1"), (1, "conv2")]
        + [(1, "downsample")]
    )
    # The donor's weights are on every path of width 1, whatever its bits.
    for path in (net.named_paths["4W4A"], (1, 0, 1, 2)):
        subnet = net.extract(path)
        for layer in donor.layers:
            for weight in layer.weights:
                (same,) = [
                    w
                    for w in subnet.get_layer(layer.name).weights
                    if w.name == weight.name
                ]
                np.testing.assert_array_equal(*values([weight, same]))
    # Channels beyond width 1 stay.
    (after,) = values([kernel])
    assert np.all((after != before) == (np.arange(6) < 4))
    with pytest.raises(ValueError, match=r"has shape \(3, 3, 4, 2\) on this path"):
        net.inherit(donor, (0, 0, 0, 0))
    with pytest.raises(ValueError, match="No weight of .* has the name"):
        net.inherit(keras.Sequential([keras.layers.Dense(2), keras.Input((3,))][::-1]))


def test_a_budget_below_the_cheapest_net():
    net = spaces.quantized_resnet(stage_blocks=(1, 1), **SMALL)
    table = bitops_table(net)
    low, high = table.reachable_range()
    message = f"bitops <= .*reaches {low:g} to {high:g} G"
    with pytest.raises(InfeasibleLimitError, match=message):
        search.evolve(net.space, lambda paths: [0.0], limits=[table <= low / 2])


def test_a_float_space_has_no_bitops(imagenet_net):
    with pytest.raises(ValueError, match="BitOps count quantized convolutions"):
        bitops_table(imagenet_net)


def test_clipping_ranges_have_a_decay_of_their_own():
    net = spaces.quantized_resnet(stage_blocks=(1, 1), **SMALL, alpha_l2=0.5)
    decayed = {v.path for v in net.trainable_variables if v.regularizer}
    assert decayed == {v.path for v in net.variables if "alpha" in v.path} != set()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bits": [(9, 2)]}, "1 to 8, or 32 for float. Received: 9"),
        ({"bits": [(2, 0)]}, "Received: 0"),
        ({"bits": [2]}, "pairs"),
        ({"widths": (0.1, 1.0)}, "no bottleneck channels: 4 times 0.1"),
        ({"widths": ()}, "at least one width"),
        ({"stem": "vgg"}, "'cifar' or 'imagenet'. Received: stem='vgg'"),
        ({"stage_blocks": (1, 1, 1)}, r"as stage_blocks \(3\). Received: 2"),
        ({"alpha": 0}, "alpha above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {"stage_blocks": (1, 1), **SMALL, **arguments}
    with pytest.raises(ValueError, match=message):
        spaces.quantized_resnet(**arguments)
