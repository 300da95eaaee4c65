"""MixPath's ImageNet spaces S2 and S3: mixed depthwise kernels on MixNet-M's skeleton.

Section 4.2 of the MixPath paper; "we fix the expansion rate as MixNet". The skeleton is
that of M. Tan and Q. V. Le, "MixConv", BMVC 2019. The paper leaves open where S3's
batch norms stand; here each channel group's sum passes its own shadow batch norm, so
that one path per group is MixNet's block. First weights are those of the authors'
released code for S1.

Example:
    >>> mixpath_s2(max_paths=2).space.size == 10**18
    True
    >>> mixpath_s3(max_paths=1).space.size == 4**72
    True
"""

import keras
from keras import layers, ops

from keras_spos.layers import MultiPathBlock, PathGroup, ShadowBatchNormalization
from keras_spos.multi_path_samplers import MultiPathSampler
from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces import mixpath_parts
from keras_spos.spaces.parts import coupled_l2, even_padding, norm
from keras_spos.supernet import Supernet

# (layers, stride of the first, expansion, channels, squeeze-and-excitation ratio, parts
# of the expanding and of the projecting 1x1 convolution).
MIXNET_M = (
    (1, 2, 6, 32, 0, 2, 2),
    (1, 1, 3, 32, 0, 2, 2),
    (1, 2, 6, 40, 0.5, 1, 1),
    (3, 1, 6, 40, 0.5, 2, 2),
    (1, 2, 6, 80, 0.25, 1, 1),
    (3, 1, 6, 80, 0.25, 2, 2),
    (1, 1, 6, 120, 0.5, 1, 1),
    (3, 1, 3, 120, 0.5, 2, 2),
    (1, 2, 6, 200, 0.5, 1, 1),
    (3, 1, 6, 200, 0.5, 1, 2),
)


@numpy_initializers()
def mixpath_s2(
    input_shape=(224, 224, 3),
    num_classes=1000,
    *,
    max_paths=2,
    shadow=True,
    channel_groups=1,
    kernel_sizes=(3, 5, 7, 9),
    skeleton=MIXNET_M,
    stem_channels=24,
    head_channels=1536,
    dropout=0.25,
    l2=0.0,
    sampler=None,
    seed=0,
    name="mixpath_s2",
):
    """S2: every layer sums up to m kernels on all of its channels.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        max_paths: The paper's m: how many kernel sizes may be mixed (1 or 2 there).
        shadow: False replaces shadow batch norms by single ones.
        channel_groups: 1 for S2. More split a layer's channels evenly, and each part
            makes a decision of its own (S3: 4).
        kernel_sizes: Kernel sizes to mix.
        skeleton: The layers, as `MIXNET_M` lists them.
        stem_channels: Output channels of the first convolution.
        head_channels: Output channels of the last convolution.
        dropout: Dropout rate before the classifier.
        l2: Coefficient of the weight decay in the gradient of kernels (MixPath: 1e-5).
        sampler: Draws each training step's path. Defaults to a `MultiPathSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`.
    """
    if not 1 <= max_paths <= len(kernel_sizes):
        raise ValueError(
            f"max_paths is 1 to the number of kernel sizes ({len(kernel_sizes)}). "
            f"Received: max_paths={max_paths}"
        )
    build = _Layers(l2, kernel_sizes, max_paths, shadow)
    inputs = keras.Input(input_shape, name="image")
    x = layers.ZeroPadding2D(1)(inputs)
    x = build.kernel(stem_channels, 3, 2)(x)
    x = y = layers.ReLU()(norm()(x))
    # The first block is the same in all networks: depthwise separable, 3x3.
    y = layers.ReLU()(norm()(build.depthwise(3)(y)))
    x = layers.Add()([x, norm()(build.kernel(stem_channels, 1)(y))])
    blocks, number = [], 0
    for repeat, first_stride, expansion, channels, se, *parts in skeleton:
        for position in range(repeat):
            stride = first_stride if position == 0 else 1
            activation = "silu" if se else "relu"
            mid = x.shape[-1] * expansion
            expand = [
                build.pointwise(x.shape[1:], mid, parts[0]),
                norm(),
                layers.Activation(activation),
            ]
            squeezed = int(x.shape[-1] * se)
            sizes = [s and -(-s // stride) for s in x.shape[1:3]]  # None if open.
            shape = (*sizes, mid)
            project = [build.pointwise(shape, channels, parts[1])]
            if squeezed:
                project.insert(0, build.squeeze(shape, squeezed))
            parts_of_layer = build, x, expand, project, stride, activation
            if channel_groups == 1:
                y, new = _mixed(*parts_of_layer, f"layer_{number}")
            else:
                y, new = _grouped(*parts_of_layer, f"layer_{number}", channel_groups)
            blocks += new
            number += 1
            same = stride == 1 and x.shape[-1] == channels
            x = layers.Add()([x, y]) if same else y
    x = layers.ReLU()(norm()(build.kernel(head_channels, 1)(x)))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    outputs = mixpath_parts.classifier(num_classes, l2)(x)
    return Supernet(
        inputs,
        outputs,
        name=name,
        sampler=sampler or MultiPathSampler.of(blocks),
        seed=seed,
    )


@numpy_initializers()
def mixpath_s3(
    input_shape=(224, 224, 3), num_classes=1000, *, name="mixpath_s3", **options
):
    """S3: each of four channel groups of a layer sums up to m kernels of its own.

    Args:
        input_shape: Image shape.
        num_classes: Number of classes.
        name: The model's name.
        **options: Other arguments of `mixpath_s2`.

    Returns:
        A `Supernet`.
    """
    options = {"channel_groups": 4, **options}
    return mixpath_s2(input_shape, num_classes, name=name, **options)


def _mixed(build, x, expand, project, stride, activation, name):
    """SBN_k(project(sum of k of act(BN(dw_i(expand(x))))))  (Algorithm 1)."""
    paths = [
        [*build.path(size, stride), norm(), layers.Activation(activation)]
        for size in build.kernel_sizes
    ]
    group = PathGroup(
        paths,
        before=expand,
        after=project,
        norm=build.shadow_norm(name),
        labels=build.labels,
        name=f"{name}_kernels",
    )
    block = MultiPathBlock([group], build.max_paths, name=name)
    return block(x), [block]


def _grouped(build, x, expand, project, stride, activation, name, channel_groups):
    """BN(project(act(concatenation of SBN_k(sum of k of dw_i(part of expand(x))))))."""
    for layer in expand:
        x = layer(x)
    blocks, mixed = [], []
    for number, channels in enumerate(ops.split(x, channel_groups, axis=-1)):
        part = f"{name}_group_{number}"
        group = PathGroup(
            [build.path(size, stride) for size in build.kernel_sizes],
            norm=build.shadow_norm(part),
            labels=build.labels,
            name=f"{part}_kernels",
        )
        blocks.append(MultiPathBlock([group], build.max_paths, name=part))
        mixed.append(blocks[-1](channels))
    x = layers.Activation(activation)(layers.Concatenate()(mixed))
    for layer in project:
        x = layer(x)
    return norm()(x), blocks


class _Layers:
    """The layers that S2 and S3 are made of."""

    def __init__(self, l2, kernel_sizes, max_paths, shadow):
        self.l2 = l2
        self.kernel_sizes = kernel_sizes
        self.max_paths = max_paths
        self.shadow = shadow
        self.labels = [f"k{size}" for size in kernel_sizes]

    def shadow_norm(self, name):
        return ShadowBatchNormalization(self.max_paths, self.shadow, name=f"{name}_sbn")

    def kernel(self, channels, kernel_size, stride=1):
        return mixpath_parts.convolution(channels, kernel_size, stride, self.l2)

    def depthwise(self, kernel_size, stride=1):
        return mixpath_parts.depthwise(kernel_size, stride, self.l2)

    def path(self, kernel_size, stride):
        pad = even_padding(kernel_size, stride)
        return [*pad, self.depthwise(kernel_size, stride)]

    def pointwise(self, shape, channels, parts):
        """A 1x1 convolution, or one for each of some parts of the channels."""
        if parts == 1:
            return self.kernel(channels, 1)
        inputs = keras.Input(shape)
        outputs = [
            self.kernel(channels // parts, 1)(part)
            for part in ops.split(inputs, parts, axis=-1)
        ]
        return keras.Model(inputs, layers.Concatenate()(outputs))

    def squeeze(self, shape, channels):
        """Squeeze-and-excitation."""
        inputs = keras.Input(shape)
        x = layers.GlobalAveragePooling2D(keepdims=True)(inputs)
        for units, activation in ((channels, "silu"), (shape[-1], "sigmoid")):
            x = layers.Conv2D(
                units,
                1,
                activation=activation,
                kernel_initializer=mixpath_parts.normal(),
                kernel_regularizer=coupled_l2(self.l2),
            )(x)
        return keras.Model(inputs, layers.Multiply()([inputs, x]))
