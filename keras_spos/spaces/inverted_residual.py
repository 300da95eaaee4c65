"""What the ProxylessNAS and FBNet spaces are made of: inverted residuals.

    pw 1x1 to expansion * channels - BN - ReLU6 - dw k (stride) - BN - ReLU6
        - pw 1x1 to the output channels - BN, plus the input where shapes allow

Weights are N(0, 2 / (k^2 output channels)), of which a depthwise convolution counts
one; ProxylessNAS's released code counts all. SPOS's for these spaces is not released.

Example:
    >>> build = MobileLayers(l2=4e-5)
    >>> block = build.inverted_residual((28, 28, 32), 32, kernel_size=5, expansion=3)
"""

import keras
from keras import layers

from keras_spos.layers import ChoiceBlock
from keras_spos.spaces.parts import (
    coupled_l2,
    deal,
    norm,
    padded,
    padding_of,
    plain_convolution,
)
from keras_spos.supernet import Supernet


class MobileLayers:
    """Layers of the mobile networks, with batch norms as SPOS's supernets have them.

    Args:
        l2: Coefficient of weight decay, added to the gradient of kernels.
    """

    def __init__(self, l2=0.0):
        self.l2 = l2

    def convolution(self, x, channels, kernel_size, stride=1, groups=1):
        """Convolution and batch norm."""
        x = plain_convolution(
            channels, kernel_size, stride, self.l2, _initializer(), groups
        )(padded(x, kernel_size, stride))
        return norm(affine=False)(x)

    def depthwise(self, x, kernel_size, stride=1):
        """Depthwise convolution and batch norm."""
        x = layers.DepthwiseConv2D(
            kernel_size,
            stride,
            use_bias=False,
            depthwise_initializer=_initializer(),
            depthwise_regularizer=coupled_l2(self.l2),
            padding=padding_of(stride),
        )(padded(x, kernel_size, stride))
        return norm(affine=False)(x)

    def relu6(self, x):
        """The mobile networks' activation."""
        return layers.ReLU(6.0)(x)

    def inverted_residual(
        self,
        shape,
        channels,
        kernel_size,
        expansion,
        stride=1,
        groups=1,
        always_expand=False,
        name=None,
    ):
        """One block, as a small model.

        Args:
            shape: Input shape (height, width, channels).
            channels: Output channels.
            kernel_size: Of the depthwise convolution.
            expansion: Channels inside, over input channels.
            stride: Of the depthwise convolution.
            groups: Groups of both pointwise convolutions; with more than one, channels
                are shuffled after the first (FBNet, Figure 3).
            always_expand: Whether a block of expansion 1 has the first pointwise
                convolution too: FBNet's have, MobileNet's have not.
            name: The model's name.
        """
        x = inputs = keras.Input(shape)
        if expansion != 1 or always_expand:
            mid = expansion * shape[-1]
            x = self.relu6(self.convolution(x, mid, 1, groups=groups))
            if groups > 1:
                x = layers.Concatenate()(deal(x, groups))
        x = self.relu6(self.depthwise(x, kernel_size, stride))
        x = self.convolution(x, channels, 1, groups=groups)
        if is_skippable(shape, channels, stride):
            x = layers.Add()([inputs, x])
        return keras.Model(inputs, x, name=name)


def labels_of(text):
    """The labels of a network's blocks, written one after another; "-" is a skip."""
    return tuple("skip" if word == "-" else word for word in text.split())


def is_skippable(shape, channels, stride):
    """Whether a block's output has its input's shape, so that it can be left out."""
    return stride == 1 and shape[-1] == channels


def mobile_supernet(
    options,
    stem,
    input_shape,
    num_classes,
    stages,
    head_channels,
    build,
    dropout,
    named_paths,
    sampler,
    seed,
    name,
):
    """Builds a supernet: stem, a chain of choice blocks, head.

    Args:
        options: ``options(shape, channels, stride) -> dict`` from label to the layer
            that a choice block of that shape offers.
        stem: ``stem(images) -> tensor``, everything before the first choice block.
        input_shape: Image shape.
        num_classes: Number of classes.
        stages: Triples (channels, blocks, stride of the first block).
        head_channels: Output channels of the last convolution.
        build: `MobileLayers`.
        dropout: Dropout rate before the classifier.
        named_paths: A dict from name to labels, one a block; those of another length
            or with labels that a block does not offer are left out.
        sampler: See `Supernet`.
        seed: See `Supernet`.
        name: See `Supernet`.

    Returns:
        A `Supernet`.
    """
    inputs = keras.Input(input_shape, name="image")
    x = stem(inputs)
    offered = []
    for channels, repeat, first_stride in stages:
        for position in range(repeat):
            stride = first_stride if position == 0 else 1
            offer = options(x.shape[1:], channels, stride)
            x = ChoiceBlock(
                list(offer.values()), labels=offer, name=f"block_{len(offered)}"
            )(x)
            offered.append(tuple(offer))
    x = build.relu6(build.convolution(x, head_channels, 1))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.RandomNormal(0.0, 0.01),
        kernel_regularizer=coupled_l2(build.l2),
        name="classifier",
    )(x)
    known = {
        name: [offer.index(label) for offer, label in zip(offered, path, strict=True)]
        for name, path in named_paths.items()
        if len(path) == len(offered)
        and all(label in offer for offer, label in zip(offered, path, strict=True))
    }
    return Supernet(
        inputs, outputs, name=name, sampler=sampler, seed=seed, named_paths=known
    )


def _initializer():
    # One a layer: Keras' initializers give equal weights to layers of equal shape.
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
