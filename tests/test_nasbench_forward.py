"""The tabulated spaces compute what the benchmarks' papers describe.

The networks below are written in numpy, and take nothing but weights from the library.
"""

import keras
import numpy as np
import pytest
from arithmetic import classify, convolution, norm, relu, windows
from models import data, randomize, undrawn_weights

from keras_spos import spaces

SHAPE = (8, 8, 3)


def fixed(net, kind):
    return [layer for layer in net.layers if type(layer) is kind]


def norm_after(net, layer):
    norms = fixed(net, keras.layers.BatchNormalization)
    return next(n for n in norms if n.input is layer.output)


def cell(x, net, stage, path):
    """Nodes 1 to 3, each the sum of what its edges bring."""
    nodes, path = [x], iter(path)
    for target in (1, 2, 3):
        total = 0
        for source in range(target):
            block = net.get_layer(f"stage_{stage}_cell_0_edge_{source}_{target}")
            choice, y = next(path), nodes[source]
            if choice == 0:
                y = 0 * y
            elif choice in (2, 3):
                _, conv, bn = block.options[choice].layers
                y = norm(convolution(relu(y), conv), bn)
            elif choice == 4:
                inside = windows(np.ones_like(y), 3, 1).sum((3, 4))
                y = windows(y, 3, 1).sum((3, 4)) / inside
            total = total + y
        nodes.append(total)
    return nodes[3]


def nasbench201(x, net, path):
    convolutions = fixed(net, keras.layers.Conv2D)
    stem = next(c for c in convolutions if c.kernel.shape[2] == 3)
    x = norm(convolution(x, stem), norm_after(net, stem))
    for stage in range(3):
        if stage:
            mine = [c for c in convolutions if c.filters == 2 * 2**stage]
            (shortcut,) = (c for c in mine if c.kernel_size == (1, 1))
            (first,) = (c for c in mine if c.strides == (2, 2))
            (second,) = (c for c in mine if c not in (shortcut, first))
            y = norm(convolution(relu(x), first), norm_after(net, first))
            y = norm(convolution(relu(y), second), norm_after(net, second))
            n, height, width, channels = x.shape
            x = x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
            x = convolution(x, shortcut) + y
        x = cell(x, net, stage, path)
    (last,) = (
        n
        for n in fixed(net, keras.layers.BatchNormalization)
        if not any(n.input is c.output for c in convolutions)
    )
    return classify(relu(norm(x, last)), net)


def nasbench_macro(x, net, path):
    first, last = sorted(
        fixed(net, keras.layers.Conv2D), key=lambda c: c.kernel_size, reverse=True
    )
    x = relu(norm(convolution(x, first), norm_after(net, first)))
    for index, choice in enumerate(path):
        layers = net.get_layer(f"block_{index}").options[choice].layers
        weighted = [layer for layer in layers if layer.weights]
        y = x
        for number in range(0, len(weighted), 2):
            y = norm(convolution(y, weighted[number]), weighted[number + 1])
            # Linear at its end; an identity that has weights is linear, too.
            if choice and number < 4:
                y = relu(y)
        x = y + x if choice and x.shape == y.shape else y
    return classify(relu(norm(convolution(x, last), norm_after(net, last))), net)


@pytest.mark.parametrize(
    # Paths with every option, and in the chain with every option at both strides.
    "build, arguments, reference, path",
    [
        (
            spaces.nasbench201,
            {"channels": 2, "cells": 1},
            nasbench201,
            (3, 2, 4, 1, 0, 3),
        ),
        (
            spaces.nasbench_macro,
            {"stem_channels": 2, "stage_channels": (4, 5, 6), "head_channels": 7},
            nasbench_macro,
            (0, 1, 1, 0, 2, 2, 1, 0),
        ),
    ],
    ids=["nasbench201", "nasbench_macro"],
)
def test_networks_equal_their_description(build, arguments, reference, path):
    with undrawn_weights():
        net = build(SHAPE, 10, **arguments)
    x, _ = data(2, SHAPE)
    randomize(net).set_path(path)
    expected = reference(x, net, path)
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(net.predict(x, verbose=0), expected, 1e-3, 1e-4)
