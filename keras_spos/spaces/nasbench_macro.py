"""NAS-Bench-Macro's chain of eight choice blocks as a supernet.

X. Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR
2021: every one of its 6,561 single-path networks was trained alone on CIFAR-10, which
makes it the closest tabulated space to SPOS's own. Layers are those of the benchmark's
released code, but weights begin normal with variance 2 / (k^2 input channels), where a
depthwise kernel's are all channels; there they are uniform with 1 / (3 k^2 input
channels), where they are one.

Example:
    >>> net = nasbench_macro()
    >>> net.space.size, net.space.num_decisions
    (6561, 8)
"""

import keras
from keras import layers

from keras_spos.layers import ChoiceBlock
from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces.parts import coupled_l2, norm, padded, padding_of
from keras_spos.supernet import Supernet

OPTIONS = ("identity", "mbconv_k3_e3", "mbconv_k5_e6")
# (kernel size, expansion) of the inverted bottlenecks.
BOTTLENECKS = {"mbconv_k3_e3": (3, 3), "mbconv_k5_e6": (5, 6)}


@numpy_initializers()
def nasbench_macro(
    input_shape=(32, 32, 3),
    num_classes=10,
    *,
    stem_channels=32,
    stage_channels=(64, 128, 256),
    stage_blocks=(2, 3, 3),
    head_channels=1280,
    l2=0.0,
    sampler=None,
    seed=0,
    name="nasbench_macro",
):
    """Builds the supernet of NAS-Bench-Macro; by default in the benchmark's own size.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        stem_channels: Output channels of the first convolution.
        stage_channels: Output channels of each stage.
        stage_blocks: Number of choice blocks in each stage; the first has stride 2.
        head_channels: Output channels of the last convolution.
        l2: Coefficient of weight decay in the gradient of kernels.
        sampler: Draws each training step's path. Defaults to a `UniformSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`. Its batch norms have neither scale nor offset;
        ``extract(path, fresh=True)`` gives both to the network to retrain.
    """
    if len(stage_channels) != len(stage_blocks):
        raise ValueError(
            f"Expected as many stage_channels as stage_blocks ({len(stage_blocks)}). "
            f"Received: {len(stage_channels)}."
        )
    build = _Layers(l2)
    inputs = keras.Input(input_shape, name="image")
    x = layers.ReLU()(build.convolution(inputs, stem_channels, 3))
    index = 0
    for channels, repeat in zip(stage_channels, stage_blocks, strict=True):
        for position in range(repeat):
            stride = 2 if position == 0 else 1
            x = ChoiceBlock(
                [build.option(o, x.shape[1:], channels, stride) for o in OPTIONS],
                labels=OPTIONS,
                name=f"block_{index}",
            )(x)
            index += 1
    x = layers.ReLU()(build.convolution(x, head_channels, 1))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(
        num_classes, kernel_regularizer=coupled_l2(l2), name="classifier"
    )(x)
    named = {f"all_{option}": (i,) * index for i, option in enumerate(OPTIONS)}
    return Supernet(
        inputs, outputs, name=name, sampler=sampler, seed=seed, named_paths=named
    )


class _Layers:
    """Convolutions with batch norm, and the three options of a block."""

    def __init__(self, l2):
        self.l2 = l2

    def convolution(self, x, channels, kernel_size, stride=1):
        x = layers.Conv2D(
            channels,
            kernel_size,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=coupled_l2(self.l2),
        )(x)
        return norm(affine=False)(x)

    def depthwise(self, x, kernel_size, stride):
        x = padded(x, kernel_size, stride)
        x = layers.DepthwiseConv2D(
            kernel_size,
            stride,
            padding=padding_of(stride),
            use_bias=False,
            depthwise_initializer="he_normal",
            depthwise_regularizer=coupled_l2(self.l2),
        )(x)
        return norm(affine=False)(x)

    def option(self, option, shape, channels, stride):
        """One option of a block: a small graph."""
        inputs = x = keras.Input(shape)
        keeps_shape = stride == 1 and shape[-1] == channels
        if option == "identity":
            if keeps_shape:
                x = layers.Identity()(x)
            else:
                x = self.convolution(x, channels, 1, stride)
            return keras.Model(inputs, x, name=option)
        kernel_size, expansion = BOTTLENECKS[option]
        x = layers.ReLU()(self.convolution(x, expansion * shape[-1], 1))
        x = layers.ReLU()(self.depthwise(x, kernel_size, stride))
        x = self.convolution(x, channels, 1)
        if keeps_shape:
            x = layers.Add()([inputs, x])
        return keras.Model(inputs, x, name=option)
