"""MixPath's spaces and the quantized ResNets compute what the papers describe.

The networks below are written in numpy, and take nothing but weights from the library.
"""

import keras
import numpy as np
import pytest
from arithmetic import array, classify, convolution, norm, relu, windows
from models import data, randomize

from keras_spos import spaces

# An odd size stays odd after the stem: of 7 pixels, a stride of 2 makes 4.
SHAPE = (13, 13, 3)


def relu6(x):
    return np.clip(x, 0, 6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def with_weights(model):
    return [layer for layer in model.layers if layer.weights]


def outside(net):
    """The layers with weights that are not searched, in their order."""
    return [x for x in with_weights(net) if x not in net.searchable_layers]


def groups(net, path):
    for block, choice in zip(net.searchable_layers, path, strict=True):
        number, subset = block.options[choice]
        group = block.groups[number]
        paths = [with_weights(group.paths[i]) for i in subset]
        yield group, paths, group.norm.norms[len(subset) - 1]


def add(x, y):
    return x + y if x.shape == y.shape else y


def mixpath_s1(x, net, path):
    stem, stem_norm, last, last_norm, _ = outside(net)
    x = relu6(norm(convolution(x, stem), stem_norm))
    for group, paths, shadow in groups(net, path):
        expand, expand_norm = with_weights(group.before)
        y = relu6(norm(convolution(x, expand), expand_norm))
        y = sum(relu6(norm(convolution(y, kernel), n)) for kernel, n in paths)
        x = add(x, norm(convolution(y, group.after), shadow))
    return classify(relu6(norm(convolution(x, last), last_norm)), net)


def pointwise(x, layer):
    """A 1x1 convolution, or one for each part of the channels."""
    if isinstance(layer, keras.Sequential):
        (layer,) = layer.layers
    kernels = [layer]
    if not isinstance(layer, keras.layers.Conv2D):
        joined = layer.layers[-1].input
        kernels = [x._keras_history.operation for x in joined]
    parts = np.split(x, len(kernels), axis=-1)
    pairs = zip(parts, kernels, strict=True)
    return np.concatenate([convolution(*pair) for pair in pairs], axis=-1)


def squeeze_and_excite(x, model):
    first, second = with_weights(model)
    y = x.mean((1, 2), keepdims=True)
    y = silu(convolution(y, first) + array(first.bias))
    return x * sigmoid(convolution(y, second) + array(second.bias))


def mixpath_s2(x, net, path):
    stem, stem_norm, first, first_norm, second, second_norm, *rest = outside(net)
    x = relu(norm(convolution(x, stem), stem_norm))
    y = relu(norm(convolution(x, first), first_norm))
    x = x + norm(convolution(y, second), second_norm)
    for index, (group, paths, shadow) in enumerate(groups(net, path)):
        # The skeleton's first layer has no squeeze-and-excitation.
        act = silu if index else relu
        expand, expand_norm = with_weights(group.before)
        y = act(norm(pointwise(x, expand), expand_norm))
        y = sum(act(norm(convolution(y, kernel), n)) for kernel, n in paths)
        project = with_weights(group.after) if index else [group.after]
        if index:
            y = squeeze_and_excite(y, project[0])
        x = add(x, norm(pointwise(y, project[-1]), shadow))
    last, last_norm, _ = rest
    return classify(relu(norm(convolution(x, last), last_norm)), net)


class Leading:
    """A layer's kernel and norm cut to a width, the kernel rounded to some bits."""

    def __init__(self, layer, inputs=None, outputs=None, bits=32):
        self.strides = getattr(layer, "strides", None)
        self.scale = self.center = True
        if isinstance(layer, keras.layers.BatchNormalization):
            names = ("moving_mean", "moving_variance", "gamma", "beta")
            for name in names:
                cut = keras.Variable(array(getattr(layer, name))[:outputs])
                setattr(self, name, cut)
            return
        kernel = array(layer.kernel)[:, :, :inputs, :outputs]
        if bits < 32:
            levels = 2**bits - 1
            unit = np.tanh(kernel) / (2 * np.abs(np.tanh(kernel)).max()) + 0.5
            kernel = 2 * np.round(unit * levels) / levels - 1
        self.kernel = keras.Variable(kernel)


def quantized(x, layer, inputs, outputs, bits):
    """A convolution of an input that is clipped and rounded."""
    weight_bits, input_bits = bits
    if input_bits < 32:
        alpha, levels = float(array(layer.alphas[str(input_bits)])), 2**input_bits - 1
        x = np.round(np.clip(x, 0, alpha) / alpha * levels) / levels * alpha
    return convolution(x, Leading(layer, inputs, outputs, weight_bits))


def quantized_resnet_network(x, net, path):
    stem, stem_norm, _ = outside(net)
    x = relu(norm(convolution(x, stem), stem_norm))
    # Of zeros around what a ReLU gave, none is the largest.
    x = windows(x, 3, 2).max((3, 4))
    path = iter(path)
    for block in net.searchable_layers:
        (option,) = block.options
        channels = option.output_shape[-1]
        width, bits = int(channels * WIDTHS[next(path)]), BITS[next(path)]
        y = quantized(x, option.get_layer("conv1"), None, width, bits)
        y = relu(norm(y, Leading(option.get_layer("norm1"), outputs=width)))
        y = quantized(y, option.get_layer("conv2"), width, None, bits)
        y = norm(y, option.get_layer("norm2"))
        if "downsample" in [layer.name for layer in option.layers]:
            x = quantized(x, option.get_layer("downsample"), None, None, bits)
            x = norm(x, option.get_layer("downsample_norm"))
        x = relu(x + y)
    return classify(x, net)


WIDTHS, BITS = (0.5, 1.0, 1.5), ((32, 32), (2, 3))


S1 = {
    "max_paths": 2,
    "stem_channels": 4,
    "channels": (4, 4, 6, 5),
    "strides": (1, 1, 2, 1),
    "head_channels": 7,
    "stem_stride": 2,
    "kernel_sizes": (3, 5),
    "expansions": (2, 3),
}
S2 = {
    "skeleton": ((1, 2, 2, 4, 0, 2, 2), (2, 1, 2, 6, 0.5, 1, 2)),
    "stem_channels": 4,
    "head_channels": 7,
    "kernel_sizes": (3, 5),
}
RESNET = {
    "stage_blocks": (1, 2),
    "stage_channels": (4, 6),
    "widths": WIDTHS,
    "bits": BITS,
    "stem": "imagenet",
}
NETWORKS = {
    # One path, two of the other expansion, two with a stride, and the other kernel.
    "mixpath_s1": (spaces.mixpath_s1, S1, mixpath_s1, (1, 5, 2, 0)),
    "mixpath_s2": (spaces.mixpath_s2, S2, mixpath_s2, (2, 0, 2)),
    # Every width; in float, then in few bits.
    "quantized_resnet": (
        spaces.quantized_resnet,
        RESNET,
        quantized_resnet_network,
        (0, 0, 2, 1, 1, 1),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_their_description(name):
    build, arguments, reference, path = NETWORKS[name]
    net = build(SHAPE, 10, **arguments)
    x, _ = data(2, SHAPE)
    randomize(net).set_path(path)
    for variable in net.variables:
        if "alpha" in variable.name:
            variable.assign(1.5)
    expected = reference(x, net, path)
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(net.predict(x, verbose=0), expected, 1e-3, 1e-4)


def test_mixpath_s2_of_open_image_sizes():
    nets = [spaces.mixpath_s2(shape, 10, **S2) for shape in (SHAPE, (None, None, 3))]
    for net in nets:
        randomize(net).set_path((2, 0, 2))
    x, _ = data(2, SHAPE)
    y = [net.predict(x, verbose=0) for net in (*nets, nets[1].extract())]
    np.testing.assert_allclose(y[1:], [y[0], y[0]], 1e-4, 1e-5)


@pytest.mark.parametrize(
    "build, argument",
    [(spaces.resnet18_quantized, "stem"), (spaces.shufflenet_v2, "stem_stride")],
)
def test_open_image_sizes_have_no_default_stem(build, argument):
    with pytest.raises(ValueError, match=f"Expected a {argument} for images of open"):
        build((None, None, 3))


@pytest.mark.parametrize(
    "build, arguments", [(spaces.mixpath_s1, S1), (spaces.mixpath_s2, S2)]
)
def test_one_batch_norm_for_all_numbers_of_paths(build, arguments):
    net = build(SHAPE, 10, **arguments, shadow=False)
    for block in net.searchable_layers:
        assert all(len(group.norm.norms) == 1 for group in block.groups)
