"""MixPath's space S1: inverted bottlenecks that mix depthwise kernels, for CIFAR-10.

Section 4.1 of the MixPath paper. Details that the paper leaves open are those of the
authors' released code; but weight decay is on kernels alone, there on batch norms and
the classifier's bias as well.

Example:
    >>> net = mixpath_s1(max_paths=2)
    >>> net.space.size == 20**12
    True
"""

import keras
from keras import layers

from keras_spos.layers import MultiPathBlock, PathGroup, ShadowBatchNormalization
from keras_spos.multi_path_samplers import MultiPathSampler
from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces import mixpath_parts
from keras_spos.spaces.parts import even_padding, norm
from keras_spos.supernet import Supernet

CHANNELS = (48, 48, 96, 96, 96, 192, 192, 192, 256, 256, 320, 320)


@numpy_initializers()
def mixpath_s1(
    input_shape=(32, 32, 3),
    num_classes=10,
    *,
    max_paths=4,
    shadow=True,
    stem_channels=32,
    channels=CHANNELS,
    strides=(1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1),
    head_channels=1280,
    stem_stride=1,
    kernel_sizes=(3, 5, 7, 9),
    expansions=(3, 6),
    l2=0.0,
    sampler=None,
    seed=0,
    name="mixpath_s1",
):
    """Builds the supernet; by default that of the paper with m = 4.

    An expansion owns its convolutions, its depthwise branches and its shadow batch
    norms. The branches taken are added, then projected, then normalized by the batch
    norm for their number:

        y = SBN_k(conv1x1(sum of k of relu6(BN(dw_i(relu6(BN(conv1x1(x))))))))

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        max_paths: The paper's m: how many kernel sizes a block may mix.
        shadow: False replaces each block's shadow batch norms by one batch norm.
        stem_channels: Output channels of the first convolution.
        channels: Output channels of each block.
        strides: Stride of each block.
        head_channels: Output channels of the last convolution.
        stem_stride: Stride of the first convolution.
        kernel_sizes: Kernel sizes to mix.
        expansions: Expansion ratios to choose from.
        l2: Coefficient of the weight decay in the gradient of kernels (MixPath: 1e-4).
        sampler: Draws each training step's path. Defaults to a `MultiPathSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`.
    """
    if len(channels) != len(strides):
        raise ValueError(
            f"Expected one stride per block ({len(channels)}). Received: {strides}"
        )
    if not 1 <= max_paths <= len(kernel_sizes):
        raise ValueError(
            f"max_paths is 1 to the number of kernel sizes ({len(kernel_sizes)}). "
            f"Received: max_paths={max_paths}"
        )
    build = _Layers(l2)
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for layer in build.convolution(stem_channels, 3, stem_stride):
        x = layer(x)
    blocks = []
    for number, (out, stride) in enumerate(zip(channels, strides, strict=True)):
        block = f"block_{number}"
        groups = [
            PathGroup(
                [build.depthwise(kernel_size, stride) for kernel_size in kernel_sizes],
                before=build.convolution(x.shape[-1] * expansion, 1),
                after=build.kernel(out, 1),
                norm=ShadowBatchNormalization(
                    max_paths, shadow, name=f"{block}_e{expansion}_sbn"
                ),
                labels=[f"k{kernel_size}" for kernel_size in kernel_sizes],
                name=f"e{expansion}",
            )
            for expansion in expansions
        ]
        blocks.append(MultiPathBlock(groups, max_paths, name=block))
        y = blocks[-1](x)
        x = layers.Add()([x, y]) if stride == 1 and x.shape[-1] == out else y
    for layer in build.convolution(head_channels, 1):
        x = layer(x)
    x = layers.GlobalAveragePooling2D()(x)
    outputs = mixpath_parts.classifier(num_classes, l2)(x)
    return Supernet(
        inputs,
        outputs,
        name=name,
        sampler=sampler or MultiPathSampler.of(blocks),
        seed=seed,
    )


class _Layers:
    """The layers that S1 is made of."""

    def __init__(self, l2):
        self.l2 = l2

    def kernel(self, channels, kernel_size, stride=1):
        return mixpath_parts.convolution(channels, kernel_size, stride, self.l2)

    def convolution(self, channels, kernel_size, stride=1):
        """Convolution, batch norm, activation."""
        kernel = self.kernel(channels, kernel_size, stride)
        return [*even_padding(kernel_size, stride), kernel, *_norm_and_activation()]

    def depthwise(self, kernel_size, stride):
        """A branch: depthwise convolution, batch norm, activation."""
        kernel = mixpath_parts.depthwise(kernel_size, stride, self.l2)
        return [*even_padding(kernel_size, stride), kernel, *_norm_and_activation()]


def _norm_and_activation():
    return [norm(), layers.ReLU(max_value=6)]
