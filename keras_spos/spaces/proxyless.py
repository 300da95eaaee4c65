"""The ProxylessNAS space: 21 inverted residuals, six kinds and a skip (SPOS, Table 5).

Kernel size 3, 5 or 7 times expansion 3 or 6; the skip is offered only where a block
keeps stride and channels, so the space has 6^6 * 7^15 paths rather than the 7^21 that
SPOS's section 4 names: a first block that skipped would have the wrong shape.

Multiply-adds and parameters at 224 px and 1000 classes, here and as published:

| network | here | published |
| --- | --- | --- |
| proxyless_mobile | 320,427,584, 4,080,512 | 320M, 4.0M (SPOS's Table 5) |
| proxyless_gpu | 465,260,160, 7,119,848 | 465M, 5.3M |

Of the GPU network, SPOS's multiply-adds are met but not its 5.3M parameters: the
network that ProxylessNAS's authors released has 7,119,848, as here.

Example:
    >>> net = proxyless(input_shape=(224, 224, 3), widths="gpu")
    >>> subnet = proxyless_network("proxyless_gpu")
"""

from keras import layers

from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces.inverted_residual import (
    MobileLayers,
    is_skippable,
    labels_of,
    mobile_supernet,
)

# Stem, first block, stages, head.
WIDTHS = {
    "mobile": (32, 16, (32, 40, 80, 96, 192, 320), 1280),
    "gpu": (40, 24, (32, 56, 112, 128, 256, 432), 1728),
}
BLOCKS = (4, 4, 4, 4, 4, 1)
STRIDES = (2, 2, 2, 1, 2, 1)
OPTIONS = {f"k{k}_e{e}": (k, e) for e in (3, 6) for k in (3, 5, 7)}

# The networks that the authors of ProxylessNAS released, as choices.
NAMED = {
    "proxyless_mobile": labels_of(
        "k5_e3 k3_e3 - -  k7_e3 k3_e3 k5_e3 k5_e3  k7_e6 k5_e3 k5_e3 k5_e3 "
        "k5_e6 k5_e3 k5_e3 k5_e3  k7_e6 k7_e6 k7_e3 k7_e3  k7_e6"
    ),
    "proxyless_gpu": labels_of(
        "k5_e3 - - -  k7_e3 - - k3_e3  k7_e6 k5_e3 - -  k5_e6 - k3_e3 k5_e3 "
        "k7_e6 k7_e6 k7_e6 k5_e6  k7_e6"
    ),
}


@numpy_initializers()
def proxyless(
    input_shape=(224, 224, 3),
    num_classes=1000,
    *,
    widths="mobile",
    stage_blocks=BLOCKS,
    stage_strides=STRIDES,
    stem_stride=2,
    dropout=0.0,
    l2=0.0,
    sampler=None,
    seed=0,
    name="proxyless",
):
    """Builds the supernet; by default the 21-block space at the mobile widths.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        widths: "mobile", "gpu", or (stem, first block, (stage, ...), head) channels.
        stage_blocks: Number of choice blocks in each stage.
        stage_strides: Stride of the first block of each stage.
        stem_stride: Stride of the first convolution.
        dropout: Dropout rate before the classifier.
        l2: Coefficient of weight decay, added to the gradient of kernels.
        sampler: Draws each training step's path. Defaults to a `UniformSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`. `named_paths` has the choices of both networks, whatever the
        widths; `proxyless_network` has the networks.
    """
    if isinstance(widths, str) and widths not in WIDTHS:
        raise ValueError(
            f"widths is one of {list(WIDTHS)}, or (stem, first block, stages, head). "
            f"Received: widths={widths!r}"
        )
    stem_channels, first, stages, head = WIDTHS.get(widths, widths)
    if not len(stages) == len(stage_blocks) == len(stage_strides):
        raise ValueError(
            "Expected as many stage widths as stage_blocks and stage_strides. "
            f"Received: {len(stages)}, {len(stage_blocks)} and {len(stage_strides)}."
        )
    build = MobileLayers(l2)

    def stem(x):
        x = build.relu6(build.convolution(x, stem_channels, 3, stem_stride))
        return build.inverted_residual(x.shape[1:], first, 3, 1, name="first_block")(x)

    def options(shape, channels, stride):
        offer = {
            label: build.inverted_residual(shape, channels, *which, stride, name=label)
            for label, which in OPTIONS.items()
        }
        if is_skippable(shape, channels, stride):
            offer["skip"] = layers.Identity(name="skip")
        return offer

    return mobile_supernet(
        options,
        stem,
        input_shape,
        num_classes,
        list(zip(stages, stage_blocks, stage_strides, strict=True)),
        head,
        build,
        dropout,
        NAMED,
        sampler,
        seed,
        name,
    )


@numpy_initializers()
def proxyless_network(
    which="proxyless_mobile", input_shape=(224, 224, 3), num_classes=1000, **options
):
    """A released network, untrained, at its own widths, ready to train.

    Args:
        which: "proxyless_mobile" (SPOS's "Proxyless-R (mobile)") or "proxyless_gpu".
        input_shape: Image shape.
        num_classes: Number of classes.
        **options: Other arguments of `proxyless`.

    Returns:
        A `keras.Model` of stock layers, batch norms with scale and offset.
    """
    if which not in NAMED:
        raise ValueError(f"Networks are {list(NAMED)}. Received: {which!r}")
    options.setdefault("widths", which.removeprefix("proxyless_"))
    return proxyless(input_shape, num_classes, **options).extract(which, fresh=True)
