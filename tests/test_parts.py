"""What spaces are built of."""

import keras
import numpy as np
import pytest
from models import undrawn_weights

from keras_spos import spaces
from keras_spos.spaces.parts import deal


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("size", [4, None], ids=["fixed", "open"])
def test_channels_are_dealt_out_in_turn(size, parts):
    inputs = keras.Input((size, size, 6))
    model = keras.Model(inputs, deal(inputs, parts))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype("float32")
    for i, part in enumerate(model(x)):
        np.testing.assert_array_equal(part, x[..., i::parts])


def every_space():
    """Each space at its smallest."""
    image = {"input_shape": (16, 16, 3), "num_classes": 2}
    shuffle = {
        **image,
        "stage_channels": (8,),
        "stage_blocks": (2,),
        "stem_channels": 4,
        "head_channels": 4,
    }
    mixnet = {**image, "skeleton": ((1, 2, 3, 8, 0, 1, 1), (1, 2, 3, 8, 0.5, 2, 2))}
    return {
        "shufflenet_v2": lambda l2: spaces.shufflenet_v2(**shuffle, l2=l2),
        "widths": lambda l2: spaces.shufflenet_v2(
            **{**shuffle, "stage_channels": (20,)}, widths=True, l2=l2
        ),
        "proxyless": lambda l2: spaces.proxyless(**image, l2=l2),
        "fbnet": lambda l2: spaces.fbnet(**image, l2=l2),
        "quantized": lambda l2: spaces.quantized_resnet(
            **image, stage_blocks=(1, 1), stage_channels=(4, 8), l2=l2
        ),
        "mixpath_s1": lambda l2: spaces.mixpath_s1(
            **image, channels=(4, 8), strides=(1, 2), expansions=(2,), l2=l2
        ),
        "mixpath_s2": lambda l2: spaces.mixpath_s2(**mixnet, l2=l2),
        "mixpath_s3": lambda l2: spaces.mixpath_s3(**mixnet, l2=l2),
        "nasbench101": lambda l2: spaces.nasbench101_mixpath(**image, l2=l2),
        "nasbench201": lambda l2: spaces.nasbench201(**image, l2=l2),
        "nasbench_macro": lambda l2: spaces.nasbench_macro(**image, l2=l2),
    }


@pytest.mark.parametrize("name, build", every_space().items(), ids=every_space())
def test_every_kernel_decays_and_nothing_else(name, build):
    with undrawn_weights():
        variables = build(0.5).trainable_variables
    # PACT's clipping ranges have a decay of their own.
    decayed = {v.path for v in variables if v.regularizer and "alpha" not in v.path}
    assert decayed == {v.path for v in variables if len(v.shape) > 1}
