"""SPOS's mixed-precision spaces: ResNet-18 and ResNet-34 with few bits.

Table 6 of the SPOS paper, section 4 "Application: Mixed-Precision Quantization": in
each residual block, the bit widths of weights and activations and the number of
bottleneck channels. The first convolution and the classifier stay in float.

What the paper leaves open, here: a block's bit widths hold for its downsampling
convolution too; every convolution has one clipping range (alpha) for each bit width of
its input; the sum that ends a block is in float, and so is what skips a block.

Example:
    >>> net = resnet18_quantized()
    >>> net.space.size == 18**8
    True
    >>> bitops = ks.bitops_table(net)                              # doctest: +SKIP
    >>> bitops(net.named_paths["2W2A"])                            # doctest: +SKIP
    array([6.31640625])
"""

import keras
from keras import layers

from keras_spos.layers import ElasticBlock, ElasticQuantizedConv2D
from keras_spos.layers.quantized import ALPHA, check_pairs
from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces.parts import coupled_l2, is_small, norm, padding_of
from keras_spos.supernet import Supernet

# (bit width of the weights, bit width of the activations), and bottleneck widths.
BIT_PAIRS = ((1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4))
BOTTLENECK_WIDTHS = (0.5, 1.0, 1.5)
STAGE_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


def resnet18_quantized(input_shape=(224, 224, 3), num_classes=1000, **options):
    """The supernet on ResNet-18: 18 choices in each of 8 blocks.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        **options: Other arguments of `quantized_resnet`.

    Returns:
        A `Supernet`; its decisions are a width and a bit pair for each block.
    """
    options = {"name": "resnet18_quantized", **options}
    blocks = STAGE_BLOCKS["resnet18"]
    return quantized_resnet(input_shape, num_classes, blocks, **options)


def resnet34_quantized(input_shape=(224, 224, 3), num_classes=1000, **options):
    """The supernet on ResNet-34: 18 choices in each of 16 blocks.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        **options: Other arguments of `quantized_resnet`.

    Returns:
        A `Supernet`; its decisions are a width and a bit pair for each block.
    """
    options = {"name": "resnet34_quantized", **options}
    blocks = STAGE_BLOCKS["resnet34"]
    return quantized_resnet(input_shape, num_classes, blocks, **options)


@numpy_initializers()
def quantized_resnet(
    input_shape,
    num_classes,
    stage_blocks,
    *,
    stage_channels=(64, 128, 256, 512),
    bits=BIT_PAIRS,
    widths=BOTTLENECK_WIDTHS,
    stem=None,
    stem_stride=None,
    alpha=ALPHA,
    alpha_l2=0.0,
    l2=0.0,
    sampler=None,
    seed=0,
    name="quantized_resnet",
):
    """A mixed-precision supernet on any ResNet of basic blocks.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        stage_blocks: Number of blocks in each stage; the first has stride 2, except in
            the first stage.
        stage_channels: Output channels of each stage.
        bits: Pairs (weight bits, activation bits) to offer, 1 to 8, or 32 for float.
        widths: Scales of the bottleneck channels to offer, in increasing order.
        stem: "imagenet" (7x7, stride 2, max pooling) or "cifar" (3x3). Defaults to
            "cifar" for images of less than 64 pixels.
        stem_stride: Stride of its convolution. Defaults to 2, or 1 for "cifar".
        alpha: Where the clipping ranges of the activations start.
        alpha_l2: Their own weight decay, added to the gradient.
        l2: Weight decay of the kernels, added to the gradient.
        sampler: Draws each training step's path. Defaults to a `UniformSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`. Its named paths are "kWkA" for the bit widths that weights and
        activations can both have, at width 1.
    """
    bits = check_pairs(bits)
    widths = tuple(widths)
    if not widths or any(b <= a for a, b in zip(widths, widths[1:], strict=False)):
        raise ValueError(
            f"Expected at least one width, in increasing order. Received: {widths}"
        )
    if len(stage_blocks) != len(stage_channels):
        raise ValueError(
            f"Expected as many stage_channels as stage_blocks ({len(stage_blocks)}). "
            f"Received: {len(stage_channels)}"
        )
    if stem is None:
        stem = "cifar" if is_small(input_shape, "stem") else "imagenet"
    if stem not in ("cifar", "imagenet"):
        raise ValueError(f"A stem is 'cifar' or 'imagenet'. Received: stem={stem!r}")
    build = _Layers(bits, widths, l2, alpha, alpha_l2)

    inputs = keras.Input(input_shape, name="image")
    x = build.stem(inputs, stage_channels[0], stem, stem_stride)
    index = 0
    for stage, (channels, repeat) in enumerate(
        zip(stage_channels, stage_blocks, strict=True)
    ):
        for position in range(repeat):
            stride = 2 if stage > 0 and position == 0 else 1
            x = ElasticBlock(
                [build.block(x.shape[1:], index, channels, stride)],
                widths=[f"{width:g}x" for width in widths],
                bits=[f"{w}W{a}A" for w, a in bits],
                name=f"block_{index}",
            )(x)
            index += 1
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(
        num_classes, kernel_regularizer=coupled_l2(l2), name="classifier"
    )(x)

    named = {
        f"{w}W{a}A": (widths.index(1.0), number) * index
        for number, (w, a) in enumerate(bits)
        if w == a and 1.0 in widths
    }
    return Supernet(
        inputs, outputs, name=name, sampler=sampler, seed=seed, named_paths=named
    )


@numpy_initializers()
def quantized_network(depth, bits, input_shape=(224, 224, 3), num_classes=1000, **more):
    """A network with the same bit widths everywhere: the kWkA baselines of Table 6.

    Args:
        depth: 18 or 34, or the number of blocks in each stage.
        bits: The pair (weight bits, activation bits); (32, 32) is the float network.
        input_shape: Image shape.
        num_classes: Number of classes.
        **more: Other arguments of `quantized_resnet`, except `bits` and `widths`.

    Returns:
        A `keras.Model`, untrained. Its layers have the names of those of any network
        that `extract` gives of the same ResNet.
    """
    blocks = STAGE_BLOCKS[f"resnet{depth}"] if isinstance(depth, int) else depth
    net = quantized_resnet(
        input_shape, num_classes, blocks, bits=(bits,), widths=(1.0,), **more
    )
    return net.extract(fresh=True)


class _Layers:
    """The layers of the blocks, with their initializers and decays."""

    def __init__(self, bits, widths, l2, alpha, alpha_l2):
        self.bits = bits
        self.widths = widths
        self.l2 = l2
        self.alpha = alpha
        self.alpha_l2 = alpha_l2

    def stem(self, x, channels, kind, stride):
        size, default = (7, 2) if kind == "imagenet" else (3, 1)
        stride = stride or default
        if stride > 1:
            x = layers.ZeroPadding2D(size // 2, name="stem_pad")(x)
        x = layers.Conv2D(
            channels,
            size,
            stride,
            padding=padding_of(stride),
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=coupled_l2(self.l2),
            name="stem_conv",
        )(x)
        x = layers.ReLU(name="stem_relu")(norm(name="stem_norm")(x))
        if kind == "imagenet":
            # Padding with zeros: after a ReLU nothing is below.
            x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
            x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
        return x

    def convolution(self, x, widths, kernel_size, stride, name):
        if stride > 1 and kernel_size > 1:
            # With stride 2, "same" would pad one side more than the other.
            x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        return ElasticQuantizedConv2D(
            widths,
            kernel_size,
            bits=self.bits,
            strides=stride,
            alpha=self.alpha,
            alpha_regularizer=coupled_l2(self.alpha_l2),
            padding=padding_of(stride),
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=coupled_l2(self.l2),
            name=name,
        )(x)

    def block(self, shape, index, channels, stride):
        """A basic block at its largest width: two convolutions and a shortcut."""
        bottlenecks = [int(channels * width) for width in self.widths]
        if bottlenecks[0] < 1:
            raise ValueError(
                f"Block {index} would have no bottleneck channels: {channels} times "
                f"{self.widths[0]}."
            )
        outputs = [channels] * len(bottlenecks)
        inputs = keras.Input(shape)
        x = self.convolution(inputs, bottlenecks, 3, stride, "conv1")
        # In float, the ReLU; else PACT clips at 0 anyway.
        x = layers.ReLU(name="relu1")(norm(name="norm1")(x))
        x = norm(name="norm2")(self.convolution(x, outputs, 3, 1, "conv2"))
        shortcut = inputs
        if stride > 1 or shape[-1] != channels:
            shortcut = self.convolution(inputs, outputs, 1, stride, "downsample")
            shortcut = norm(name="downsample_norm")(shortcut)
        x = layers.ReLU(name="relu2")(layers.Add(name="add")([x, shortcut]))
        return keras.Model(inputs, x, name=f"basic_{index}")
