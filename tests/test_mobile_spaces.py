"""The ProxylessNAS and FBNet spaces: published sizes, and where a skip is legal."""

import functools
import importlib
import math
import unittest.mock

import keras
import numpy as np
import pytest
from models import cross_entropy, randomize, undrawn_weights

from keras_spos import count_flops, count_params, spaces

# In `keras_spos.spaces` these names are the functions.
proxyless_space = importlib.import_module("keras_spos.spaces.proxyless")
fbnet_space = importlib.import_module("keras_spos.spaces.fbnet")
SMALL = {
    "proxyless": {
        "widths": (4, 4, (4, 6), 8),
        "stage_blocks": (2, 1),
        "stage_strides": (1, 2),
    },
    "fbnet": {
        "stem_channels": 4,
        "stages": ((4, 1, 1), (6, 2, 2)),
        "head_channels": 8,
    },
}


@functools.cache
def small(name):
    with undrawn_weights():
        net = getattr(spaces, name)((8, 8, 3), 4, stem_stride=1, **SMALL[name])
    return randomize(net)


@pytest.mark.parametrize(
    "name, flops, params",
    [
        # What the authors' released networks have; SPOS prints 320M and 4.0M.
        ("proxyless_mobile", 320_427_584, 4_080_512),
        # The authors' released FBNet-C has 5,572,200 parameters.
        ("fbnet_c", 384_960_160, 5_572_200),
    ],
)
def test_published_networks(name, flops, params):
    network = getattr(spaces, f"{name.split('_')[0]}_network")
    # Only the named options: the whole space takes several times as long to build.
    module = fbnet_space if name.startswith("fbnet") else proxyless_space
    used = {k: v for k, v in module.OPTIONS.items() if k in module.NAMED[name]}
    with undrawn_weights(), unittest.mock.patch.object(module, "OPTIONS", used):
        model = network(name)
    assert (count_flops(model), count_params(model)) == (flops, params)


def test_a_skip_is_offered_only_where_nothing_changes():
    """In full: 6^6 7^15 and 8^6 9^16 paths, by the blocks' channels and strides."""
    sizes = {}
    for name, first, stages, kinds in (
        (
            "proxyless",
            16,
            zip(
                proxyless_space.WIDTHS["mobile"][2],
                proxyless_space.BLOCKS,
                proxyless_space.STRIDES,
                strict=True,
            ),
            len(proxyless_space.OPTIONS),
        ),
        ("fbnet", 16, fbnet_space.STAGES, len(fbnet_space.OPTIONS)),
    ):
        before, options = first, []
        for channels, repeat, stride in stages:
            for i in range(repeat):
                same = before == channels and (stride == 1 or i > 0)
                options.append(kinds + same)
                before = channels
        sizes[name] = math.prod(options)
    assert sizes == {"proxyless": 6**6 * 7**15, "fbnet": 8**6 * 9**16}
    assert small("fbnet").space.sizes.tolist() == [9, 8, 9]


@pytest.mark.parametrize("name", SMALL)
def test_every_block_trains_and_is_extracted(name):
    net = small(name)
    net.compile("sgd", cross_entropy())
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    for option in (1, 5):  # Number 1 has groups in FBNet.
        path = [min(option, size - 1) for size in net.space.sizes]
        net.set_path(path)
        expected = keras.ops.convert_to_numpy(net.extract(path)(x))
        np.testing.assert_allclose(net(x), expected, 1e-4, 1e-4)
    assert np.isfinite(net.train_on_batch(x, np.array([0, 1])))


def test_a_skip_passes_its_input_through():
    net = small("proxyless")
    assert net.space.sizes.tolist() == [7, 7, 6]
    kinds = [type(layer).__name__ for layer in net.extract((6, 6, 0)).layers]
    assert kinds.count("Identity") == 2


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="widths is one of .*Received: widths='big'"):
        spaces.proxyless(widths="big")
    with pytest.raises(ValueError, match="as many stage widths as .*6, 2 and 6"):
        spaces.proxyless(stage_blocks=(1, 2))
    with pytest.raises(ValueError, match="Networks are .*Received: 'fbnet_x'"):
        spaces.fbnet_network("fbnet_x")
