"""The FBNet space: 22 blocks, eight kinds and a skip (SPOS, Table 5).

Kernel size 3 or 5; expansion 1, 1 with pointwise convolutions in two groups, 3 or 6.
The skip is offered only where a block keeps stride and channels, so there are
8^6 * 9^16 paths rather than FBNet's 9^22.

Multiply-adds and parameters at 224 px and 1000 classes, here and in SPOS's Table 5:

| network | head | here | published |
| --- | --- | --- | --- |
| fbnet_a | 1504 | 249,921,848, 4,321,464 | 249M, 4.3M |
| fbnet_b | 1984 | 306,210,888, 4,863,288 | 295M, 4.5M |
| fbnet_c | 1984 | 384,960,160, 5,572,200 | 375M, 5.5M |

The networks are those of the authors' released definitions (their second release, where
FBNet-B's block 11 is k5_e6), heads included. With a head of 1504, as FBNet's paper
prints it, B and C have 297,451,848 and 376,201,120 multiply-adds, the published numbers
within 1 %, but 4.2M and 4.9M parameters: no one definition has both.

Example:
    >>> net = fbnet(input_shape=(224, 224, 3))
    >>> subnet = fbnet_network("fbnet_c")
"""

from keras import layers

from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces.inverted_residual import (
    MobileLayers,
    is_skippable,
    labels_of,
    mobile_supernet,
)

STEM = 16
# Channels, blocks, stride of the first.
STAGES = (
    (16, 1, 1),
    (24, 4, 2),
    (32, 4, 2),
    (64, 4, 2),
    (112, 4, 1),
    (184, 4, 2),
    (352, 1, 1),
)
OPTIONS = {
    f"k{k}_{label}": (k, expansion, groups)
    for k in (3, 5)
    for label, expansion, groups in (
        ("e1", 1, 1),
        ("e1_g2", 1, 2),
        ("e3", 3, 1),
        ("e6", 6, 1),
    )
}

NAMED = {
    "fbnet_a": labels_of(
        "-  k3_e3 k3_e1 - -  k5_e6 k3_e3 k5_e1 k3_e3  k5_e6 k5_e3 k5_e1_g2 k5_e6 "
        "k3_e6 k5_e1_g2 k5_e3 k3_e1_g2  k5_e6 k5_e6 k5_e3 k5_e6  k5_e6"
    ),
    "fbnet_b": labels_of(
        "k3_e1  k3_e6 k5_e1 k3_e1 k3_e1  k5_e6 k5_e3 k3_e6 k5_e6  k5_e6 k5_e6 - k5_e3 "
        "k5_e6 k3_e1 k5_e1 k5_e3  k5_e6 k5_e1 k5_e6 k5_e6  k3_e6"
    ),
    "fbnet_c": labels_of(
        "k3_e1  k3_e6 - k3_e1 k3_e1  k5_e6 k5_e3 k5_e6 k3_e6  k5_e6 k5_e3 k5_e6 k5_e6 "
        "k5_e6 k5_e6 k5_e6 k5_e3  k5_e6 k5_e6 k5_e6 k5_e6  k3_e6"
    ),
}
# Output channels of the last convolution.
HEADS = {"fbnet_a": 1504, "fbnet_b": 1984, "fbnet_c": 1984}


@numpy_initializers()
def fbnet(
    input_shape=(224, 224, 3),
    num_classes=1000,
    *,
    stem_channels=STEM,
    stages=STAGES,
    head_channels=1984,
    stem_stride=2,
    dropout=0.0,
    l2=0.0,
    sampler=None,
    seed=0,
    name="fbnet",
):
    """Builds the supernet; by default the 22-block space.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        stem_channels: Output channels of the first convolution.
        stages: For each stage (channels, blocks, stride of the first block).
        head_channels: Output channels of the last convolution.
        stem_stride: Stride of the first convolution.
        dropout: Dropout rate before the classifier.
        l2: Coefficient of weight decay, added to the gradient of kernels.
        sampler: Draws each training step's path. Defaults to a `UniformSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`, with FBNet-A, -B and -C among its `named_paths`; `fbnet_network`
        has them with their own heads.
    """
    build = MobileLayers(l2)

    def stem(x):
        return build.relu6(build.convolution(x, stem_channels, 3, stem_stride))

    def options(shape, channels, stride):
        offer = {}
        for label, (kernel_size, expansion, groups) in OPTIONS.items():
            offer[label] = build.inverted_residual(
                shape,
                channels,
                kernel_size,
                expansion,
                stride,
                groups,
                always_expand=True,
                name=label,
            )
        if is_skippable(shape, channels, stride):
            offer["skip"] = layers.Identity(name="skip")
        return offer

    return mobile_supernet(
        options,
        stem,
        input_shape,
        num_classes,
        stages,
        head_channels,
        build,
        dropout,
        NAMED,
        sampler,
        seed,
        name,
    )


@numpy_initializers()
def fbnet_network(
    which="fbnet_b", input_shape=(224, 224, 3), num_classes=1000, **options
):
    """A released network, untrained, ready to train.

    Args:
        which: "fbnet_a", "fbnet_b" or "fbnet_c".
        input_shape: Image shape.
        num_classes: Number of classes.
        **options: Other arguments of `fbnet`.

    Returns:
        A `keras.Model` of stock layers, batch norms with scale and offset.
    """
    if which not in NAMED:
        raise ValueError(f"Networks are {list(NAMED)}. Received: {which!r}")
    options.setdefault("head_channels", HEADS[which])
    return fbnet(input_shape, num_classes, **options).extract(which, fresh=True)
