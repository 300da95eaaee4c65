"""What spaces are built of."""

import functools

import keras
import numpy as np
import pytest
from models import undrawn_weights

from keras_spos import spaces
from keras_spos.graph import nodes
from keras_spos.spaces.parts import coupled_l2, deal


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("size", [4, None], ids=["fixed", "open"])
def test_channels_are_dealt_out_in_turn(size, parts):
    inputs = keras.Input((size, size, 6))
    model = keras.Model(inputs, deal(inputs, parts))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype("float32")
    for i, part in enumerate(model(x)):
        np.testing.assert_array_equal(part, x[..., i::parts])


# Each space at its smallest.
IMAGE = {"input_shape": (16, 16, 3), "num_classes": 2}
SHUFFLE = {"stage_blocks": (2,), "stem_channels": 4, "head_channels": 4}
MOBILE = {"widths": (4, 4, (4, 6), 8), "stage_blocks": (1, 1), "stage_strides": (1, 2)}
FBNET = {"stem_channels": 4, "stages": ((4, 1, 1), (6, 1, 2)), "head_channels": 8}
RESNET = {"stage_blocks": (1, 1), "stage_channels": (4, 8)}
S1 = {"channels": (32, 8), "strides": (1, 2), "expansions": (2,)}
MIXNET = {"skeleton": ((1, 2, 3, 8, 0, 1, 1), (1, 1, 3, 8, 0.5, 2, 2))}
SPACES = {
    "shufflenet_v2": (spaces.shufflenet_v2, {**SHUFFLE, "stage_channels": (8,)}),
    "widths": (
        spaces.shufflenet_v2,
        {**SHUFFLE, "stage_channels": (20,), "widths": True},
    ),
    "proxyless": (spaces.proxyless, MOBILE),
    "fbnet": (spaces.fbnet, FBNET),
    "quantized": (spaces.quantized_resnet, RESNET),
    "mixpath_s1": (spaces.mixpath_s1, S1),
    "mixpath_s2": (spaces.mixpath_s2, MIXNET),
    "mixpath_s3": (spaces.mixpath_s3, MIXNET),
    "nasbench101": (spaces.nasbench101_mixpath, {"stacks": 2, "cells": 1}),
    "nasbench201": (spaces.nasbench201, {"cells": 1}),
    "nasbench_macro": (spaces.nasbench_macro, {}),
}


@functools.cache
def smallest(name):
    build, arguments = SPACES[name]
    with undrawn_weights():
        return build(**IMAGE, **arguments, l2=0.5)


@pytest.mark.parametrize("name", SPACES)
def test_every_kernel_decays_and_nothing_else(name):
    variables = smallest(name).trainable_variables
    # PACT's clipping ranges too have none: theirs is another argument.
    decayed = {v.path for v in variables if v.regularizer}
    assert decayed == {v.path for v in variables if len(v.shape) > 1}
    # The gradient of 0.5 / 2 w^2 is 0.5 w.
    assert coupled_l2(0.5)(np.full((2, 2), 3.0, "float32")) == 0.25 * 4 * 9


def word(layer):
    """A layer's kind, and what tells it from others of that kind."""
    kind = type(layer).__name__
    if kind in ("Conv2D", "DepthwiseConv2D", "QuantizedConv2D"):
        kind = {"C": "conv", "D": "dw", "Q": "quantized"}[kind[0]]
        activation = layer.activation.__name__.replace("linear", "")
        bias = "+bias" * layer.use_bias
        return f"{kind}{layer.kernel_size[0]}/{layer.strides[0]}{activation}{bias}"
    if kind == "BatchNormalization":
        assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
        return "affine" if layer.center and layer.scale else "norm"
    if kind == "ReLU":
        return "relu" if layer.max_value is None else f"relu{layer.max_value:g}"
    return {
        "Activation": lambda: layer.activation.__name__,
        "ZeroPadding2D": lambda: f"pad{layer.padding[0][0]}",
        "Dropout": lambda: f"dropout{layer.rate:g}",
        "Dense": lambda: "dense" + "+bias" * layer.use_bias,
        "GlobalAveragePooling2D": lambda: "pool",
    }.get(kind, kind.lower)()


MADE_OF = {
    # One block of each stride; their branches run side by side.
    "shufflenet_v2": (
        (1, 3),
        """conv3/1 norm relu
        conv1/1 norm relu pad2 pad2 dw5/2 dw5/2 norm norm conv1/1 conv1/1 norm norm
        relu relu concatenate
        reshape unstack dw3/1 norm conv1/1 norm relu dw3/1 norm conv1/1 norm relu
        dw3/1 norm conv1/1 norm relu concatenate
        conv1/1 norm relu pool dropout0.1 dense""",
    ),
    "proxyless": (
        (0, 2),
        """pad1 conv3/2 norm relu6 dw3/1 norm relu6 conv1/1 norm add
        conv1/1 norm relu6 dw3/1 norm relu6 conv1/1 norm add
        conv1/1 norm relu6 pad3 dw7/2 norm relu6 conv1/1 norm
        conv1/1 norm relu6 pool dropout0 dense+bias""",
    ),
    "fbnet": (
        (1, 4),
        """pad1 conv3/2 norm relu6
        conv1/1 norm relu6 reshape unstack concatenate dw3/1 norm relu6 conv1/1 norm add
        conv1/1 norm relu6 pad2 dw5/2 norm relu6 conv1/1 norm
        conv1/1 norm relu6 pool dropout0 dense+bias""",
    ),
    "quantized": (
        (0, 0, 1, 1),
        """conv3/1 affine relu
        quantized3/1 affine relu quantized3/1 affine add relu
        pad1 quantized3/2 affine relu quantized1/2 quantized3/1 affine affine add relu
        pool dense+bias""",
    ),
    "mixpath_s1": (
        (5, 2),  # The first mixes 3x3 and 7x7.
        """conv3/1 affine relu6
        conv1/1 affine relu6 dw7/1 dw3/1 affine affine relu6 relu6 add conv1/1 affine
        add
        conv1/1 affine relu6 pad3 dw7/2 affine relu6 conv1/1 affine
        conv1/1 affine relu6 pool dense+bias""",
    ),
    "mixpath_s2": (
        (1, 0),
        """pad1 conv3/2 affine relu dw3/1 affine relu conv1/1 affine add
        conv1/1 affine relu pad2 dw5/2 affine relu conv1/1 affine
        split conv1/1 conv1/1 concatenate affine silu dw3/1 affine silu
        pool conv1/1silu+bias conv1/1sigmoid+bias multiply
        split conv1/1 conv1/1 concatenate affine add
        conv1/1 affine relu pool dropout0.25 dense+bias""",
    ),
    "nasbench101": (
        (2,),
        """conv3/1 affine relu conv1/1 affine relu maxpooling2d affine
        conv1/1 affine relu maxpooling2d conv1/1 affine relu maxpooling2d affine
        conv1/1 affine relu pool dense+bias""",
    ),
}


@pytest.mark.parametrize("name", MADE_OF)
def test_networks_are_made_of_what_the_papers_say(name):
    path, words = MADE_OF[name]
    model = smallest(name).extract(path)
    assert [word(node.operation) for node in nodes(model)] == words.split()


def test_weights_begin_as_in_the_authors_code():
    """Of SPOS; MixPath's are in test_initial_weights.py."""
    for layer in smallest("shufflenet_v2")._flatten_layers():
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            assert layer.depthwise_initializer.stddev == 1.0
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            ends = layer.name == "classifier" or layer.kernel.shape[2] == 3
            expected = 0.01 if ends else 1 / layer.kernel.shape[2]
            assert layer.kernel_initializer.stddev == expected
