"""SPOS's spaces on ShuffleNet v2: four kinds of block, eight widths, or both.

Tables 2 to 4 of the SPOS paper, section 4 "Search Space: Building Blocks" and "Search
Space: Channels". Details that the paper leaves open are those of the authors' released
code.

Example:
    >>> net = shufflenet_v2(input_shape=(224, 224, 3), num_classes=1000)
    >>> net.space.size == 4**20
    True
    >>> net = shufflenet_v2(blocks="spos_block_search", widths=True)
    >>> net.space.size == 8**20
    True
"""

import keras
from keras import layers

from keras_spos.layers import ChoiceBlock, ElasticBlock, SliceableConv2D
from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces.parts import (
    coupled_l2,
    deal,
    is_small,
    norm,
    padded,
    padding_of,
    plain_convolution,
)
from keras_spos.supernet import Supernet

OPTIONS = ("choice_3", "choice_5", "choice_7", "choice_x")
# The architecture that the authors found (their released code; Table 3, 319M FLOPs).
SPOS_BLOCK_SEARCH = (0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2)
# What they found with that code (its README, 323M FLOPs, top-1 error 25.6 %).
SPOS_RELEASED = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)
# Table 4's mid-channel scales, and those of the authors' block + channel search (328M).
WIDTHS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
SPOS_CHANNEL_SEARCH = (6, 5, 3, 5, 2, 6, 3, 4, 2, 5, 7, 5, 4, 6, 7, 4, 4, 5, 4, 3)
SPOS_CHANNEL_SCALES = tuple(WIDTHS[i] for i in SPOS_CHANNEL_SEARCH)
# Table 3 compares at about 325M FLOPs "by adjusting channels", to widths that were
# never published. These mid-channel scales are this project's, and give 323.4, 319.3,
# 326.9 and 326.5M.
BASELINE_SCALES = {
    "choice_3": 1.12,
    "choice_5": 1.03,
    "choice_7": 0.96,
    "choice_x": 0.92,
}


@numpy_initializers()
def shufflenet_v2(
    input_shape=(224, 224, 3),
    num_classes=1000,
    *,
    stem_channels=16,
    stage_channels=(64, 160, 320, 640),
    stage_blocks=(4, 4, 8, 4),
    head_channels=1024,
    stem_stride=None,
    mid_scale=1.0,
    options=OPTIONS,
    blocks=None,
    widths=None,
    dropout=0.1,
    l2=0.0,
    sampler=None,
    seed=0,
    name="shufflenet_v2",
):
    """Builds the supernet of SPOS's Table 2; by default the full 20 x 4 space.

    With `widths`, a block's mid-channels are searched as well, which share one weight
    (Table 4): (option, width) are two integers of the path for each block, or the width
    alone where `blocks` fixes the options.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        stem_channels: Output channels of the first convolution.
        stage_channels: Output channels of each stage.
        stage_blocks: Number of choice blocks in each stage; the first has stride 2.
        head_channels: Output channels of the last convolution.
        stem_stride: Stride of the first convolution. Defaults to 2, or 1 for images of
            less than 64 pixels (CIFAR).
        mid_scale: Mid-channels of a block over half its output channels: one number, or
            one for each block.
        options: Which of "choice_3", "choice_5", "choice_7", "choice_x" to offer.
        blocks: The option of each block, as indices into `options` or by a name such as
            "all_choice_3" or "spos_block_search", to search widths alone. None searches
            the options.
        widths: Scales of the mid-channels to offer in each block, in increasing order;
            True is the paper's 0.2 to 1.6. None searches no widths.
        dropout: Dropout rate before the classifier.
        l2: Coefficient of the papers' weight decay, added to the gradient of kernels
            (SPOS: 4e-5). Unlike an optimizer's `weight_decay`, it is scaled by momentum
            and learning rate as the gradient is.
        sampler: Draws each training step's path. Defaults to a `UniformSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`. Its batch norms have neither scale nor offset, as in the authors'
        supernet; ``extract(path, fresh=True)`` gives both to the network to retrain
        (offsets start at 0, in the authors' code at 0.0001).
    """
    num_blocks = sum(stage_blocks)
    scales = (
        [mid_scale] * num_blocks if isinstance(mid_scale, (int, float)) else mid_scale
    )
    _check(options, scales, stem_channels, stage_channels, stage_blocks)
    if stem_stride is None:
        stem_stride = 1 if is_small(input_shape, "stem_stride") else 2
    named = _named_options(options, num_blocks)
    fixed = _fixed_options(blocks, named, options, num_blocks)
    widths = tuple(WIDTHS if widths is True else widths or ())
    if fixed and not widths:
        raise ValueError(
            "With blocks fixed there is nothing to search but widths: pass widths=True "
            f"or scales. Received: blocks={blocks!r}, widths=None"
        )
    if any(b <= a for a, b in zip(widths, widths[1:], strict=False)):
        raise ValueError(f"Widths increase. Received: widths={widths}")
    labels = tuple(f"{width:g}x" for width in widths)
    build = _Layers(l2)

    inputs = keras.Input(input_shape, name="image")
    x = build.convolution(inputs, stem_channels, 3, stem_stride, stddev=0.01)
    x = layers.ReLU()(build.norm(x))
    index = 0
    for channels, repeat in zip(stage_channels, stage_blocks, strict=True):
        for position in range(repeat):
            stride = 2 if position == 0 else 1
            mids = [
                _mid_channels(index, channels, scales[index] * width)
                for width in widths or (1.0,)
            ]
            offered = [options[fixed[index]]] if fixed else options
            candidates = [
                build.block(x.shape[1:], option, channels, mids, stride)
                for option in offered
            ]
            arguments = {"labels": offered, "name": f"block_{index}"}
            if widths:
                x = ElasticBlock(candidates, widths=labels, **arguments)(x)
            else:
                x = ChoiceBlock(candidates, **arguments)(x)
            index += 1
    x = build.convolution(x, head_channels, 1)
    x = layers.ReLU()(build.norm(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(
        num_classes,
        use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(0.0, 0.01),
        kernel_regularizer=coupled_l2(l2),
        name="classifier",
    )(x)

    return Supernet(
        inputs,
        outputs,
        name=name,
        sampler=sampler,
        seed=seed,
        named_paths=_named_paths(named, fixed, widths, labels) if widths else named,
    )


def _check(options, scales, stem_channels, stage_channels, stage_blocks):
    """Refuses what no network can be made of."""
    unknown = [o for o in options if o not in OPTIONS]
    if unknown or not options:
        raise ValueError(f"Options are among {OPTIONS}. Received: options={options}")
    if len(scales) != sum(stage_blocks) or len(stage_channels) != len(stage_blocks):
        raise ValueError(
            f"Expected one mid_scale per block ({sum(stage_blocks)}) and as many "
            f"stage_channels as stage_blocks ({len(stage_blocks)}). "
            f"Received: {len(scales)} and {len(stage_channels)}."
        )
    before = (stem_channels, *stage_channels)
    if any(c % 2 or c <= p for p, c in zip(before, stage_channels, strict=False)):
        raise ValueError(
            "Each stage has an even number of channels, more than the one before "
            f"(the stem's {stem_channels} first): its first block adds channels to "
            f"those it projects. Received: stage_channels={tuple(stage_channels)}."
        )


def _named_options(options, num_blocks):
    """Published and baseline choices of options, by name."""
    named = {f"all_{o}": (i,) * num_blocks for i, o in enumerate(options)}
    if num_blocks == len(SPOS_BLOCK_SEARCH) and tuple(options) == OPTIONS:
        named["spos_block_search"] = SPOS_BLOCK_SEARCH
        named["spos_released"] = SPOS_RELEASED
    return named


def _fixed_options(blocks, named, options, num_blocks):
    """The index of each block's only option, or None if options are searched."""
    if isinstance(blocks, str) and blocks not in named:
        raise ValueError(f"Known blocks are {sorted(named)}. Received: {blocks!r}")
    fixed = named[blocks] if isinstance(blocks, str) else blocks
    if fixed is not None and (
        len(fixed) != num_blocks or not set(fixed) <= set(range(len(options)))
    ):
        raise ValueError(
            f"Expected one index into options {tuple(options)} per block "
            f"({num_blocks}). Received: blocks={tuple(fixed)}"
        )
    return fixed


def _named_paths(named, fixed, widths, labels):
    """Paths of (option, width) pairs, or of widths where the options are fixed."""
    blocks = len(next(iter(named.values())))
    known = {f"all_{label}": (number,) * blocks for number, label in enumerate(labels)}
    published = named.get("spos_block_search") if widths == WIDTHS else None
    if fixed:
        if fixed == published:
            known["spos_block_channel_search"] = SPOS_CHANNEL_SEARCH
        return known
    paths = {}
    if published:
        paths["spos_block_channel_search"] = _interleaved(
            published, SPOS_CHANNEL_SEARCH
        )
    if 1.0 in widths:
        one = (widths.index(1.0),) * blocks
        paths |= {name: _interleaved(path, one) for name, path in named.items()}
    return paths


def _interleaved(path, widths):
    return tuple(i for pair in zip(path, widths, strict=True) for i in pair)


def _mid_channels(block, channels, scale):
    mid = int(channels // 2 * scale)
    if mid < 1:
        raise ValueError(
            f"Block {block} would have no mid-channels: {channels // 2} times {scale}."
        )
    return mid


@numpy_initializers()
def spos_network(
    which="spos_block_search", input_shape=(224, 224, 3), num_classes=1000, **options
):
    """A named network of Tables 3 and 4, untrained, ready to train.

    Args:
        which: "spos_block_search" (319M FLOPs), "spos_block_channel_search" (328M) or
            "spos_released" (323M), as the authors released them; or "all_choice_3",
            "all_choice_5", "all_choice_7", "all_choice_x", widened to about 325M FLOPs
            by `BASELINE_SCALES`.
        input_shape: Image shape.
        num_classes: Number of classes.
        **options: Other arguments of `shufflenet_v2`.

    Returns:
        A `keras.Model` of stock layers, batch norms with scale and offset.
    """
    path, scale = which, 1.0
    if which == "spos_block_channel_search":
        path, scale = "spos_block_search", SPOS_CHANNEL_SCALES
    elif which.startswith("all_"):
        scale = BASELINE_SCALES.get(which.removeprefix("all_"), 1.0)
    # One option a block, of one width: the others would be built for nothing.
    only = {"mid_scale": scale, "blocks": path, "widths": (1.0,)}
    net = shufflenet_v2(input_shape, num_classes, **only, **options)
    return net.extract(fresh=True)


class _Layers:
    """The layers that the authors' code is made of, with its initializers."""

    def __init__(self, l2):
        self.l2 = l2

    def norm(self, x):
        return norm(affine=False)(x)

    def convolution(self, x, channels, kernel_size, stride=1, stddev=None):
        # N(0, 1 / weight.shape[1]) in the authors' order: the input channels.
        stddev = stddev or 1.0 / x.shape[-1]
        initializer = keras.initializers.RandomNormal(0.0, stddev)
        return plain_convolution(channels, kernel_size, stride, self.l2, initializer)(
            padded(x, kernel_size, stride)
        )

    def pointwise(self, x, inputs, outputs):
        """A 1x1 convolution; one number of channels for each width, if searched."""
        if len(inputs) == 1:
            return self.convolution(x, outputs[0], 1)
        return SliceableConv2D(
            outputs,
            1,
            use_bias=False,
            kernel_initializer=[
                keras.initializers.RandomNormal(0.0, 1.0 / channels)
                for channels in inputs
            ],
            kernel_regularizer=coupled_l2(self.l2),
        )(x)

    def depthwise(self, x, kernel_size, stride=1):
        # A depthwise weight's shape[1] is 1.
        return layers.DepthwiseConv2D(
            kernel_size,
            stride,
            use_bias=False,
            depthwise_initializer=keras.initializers.RandomNormal(0.0, 1.0),
            depthwise_regularizer=coupled_l2(self.l2),
            padding=padding_of(stride),
        )(padded(x, kernel_size, stride))

    def block(self, shape, option, channels, mids, stride):
        """One option of a choice block (the paper's Figure 3 (a), Table 2).

        With several `mids` it is at its largest width.
        """
        inputs = keras.Input(shape)
        kernel_size = {"choice_3": 3, "choice_5": 5, "choice_7": 7, "choice_x": 3}[
            option
        ]
        if stride == 1:
            # Channel shuffle: even channels pass through, odd ones are worked on.
            shortcut, x = deal(inputs, 2)
        else:
            x = inputs
            shortcut = self.norm(self.depthwise(x, kernel_size, stride))
            shortcut = self.convolution(shortcut, shape[-1], 1)
            shortcut = layers.ReLU()(self.norm(shortcut))
        main = [x.shape[-1]] * len(mids)
        out = [channels - shortcut.shape[-1]] * len(mids)
        if option == "choice_x":
            steps = ((main, mids, stride), (mids, mids, 1), (mids, out, 1))
            for before, after, step in steps:
                x = self.norm(self.depthwise(x, 3, step))
                x = layers.ReLU()(self.norm(self.pointwise(x, before, after)))
        else:
            x = layers.ReLU()(self.norm(self.pointwise(x, main, mids)))
            x = self.norm(self.depthwise(x, kernel_size, stride))
            x = layers.ReLU()(self.norm(self.pointwise(x, mids, out)))
        x = layers.Concatenate()([shortcut, x])
        return keras.Model(inputs, x, name=option)
