"""NAS-Bench-201's cell as a supernet: the space of SPOS's Table 8.

X. Dong and Y. Yang, "NAS-Bench-201", ICLR 2020. Three stages of equal cells, with a
residual block of stride 2 between stages. A cell is a graph of four nodes; each edge
applies one of five operations, the same in every cell of the network:

    node_j = sum over i < j of operation_ij(node_i),    the cell's output is node_3.

Example:
    >>> net = nasbench201()
    >>> net.space.size, net.space.num_decisions
    (15625, 6)
"""

import keras
import numpy as np
from keras import layers

from keras_spos.layers import ChoiceBlock
from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces.parts import coupled_l2, norm, padded, plain_convolution
from keras_spos.supernet import Supernet

OPTIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# As the benchmark lists them: "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|".
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
# What SPOS's Table 8 leaves out of its reduced spaces.
REDUCTIONS = {
    0: (),
    1: ("nor_conv_1x1",),
    2: ("avg_pool_3x3",),
    3: ("nor_conv_1x1", "avg_pool_3x3"),
}
# The benchmark's ResNet.
RESNET = (
    "nor_conv_3x3",
    "none",
    "nor_conv_3x3",
    "skip_connect",
    "none",
    "skip_connect",
)


@numpy_initializers()
def nasbench201(
    input_shape=(32, 32, 3),
    num_classes=10,
    *,
    channels=16,
    cells=5,
    reduction=0,
    l2=0.0,
    sampler=None,
    seed=0,
    name="nasbench201",
):
    """Builds the supernet of NAS-Bench-201; by default in the benchmark's own size.

    With ``reduction=0`` a path is a row of the benchmark's operations, in its order of
    edges. `flops_table` counts the whole cell, whether or not a signal reaches an edge,
    as the benchmark does; the benchmark adds the classifier's bias, so its FLOPs are
    higher by `num_classes`. Parameters are equal.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        channels: Channels of the first stage (the benchmark's C); the second and third
            have two and four times as many.
        cells: Number of cells in each stage (the benchmark's N).
        reduction: 0 for all five operations; 1, 2 or 3 for SPOS's reduced spaces:
            without 1x1 convolution, without average pooling, without both.
        l2: Coefficient of weight decay in the gradient of kernels (5e-4 in the
            benchmark's trainings).
        sampler: Draws each training step's path. Defaults to a `UniformSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`. Its batch norms have neither scale nor offset;
        ``extract(path, fresh=True)`` gives both to the network to retrain.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction is one of {sorted(REDUCTIONS)}. Received: {reduction!r}"
        )
    options = tuple(o for o in OPTIONS if o not in REDUCTIONS[reduction])
    build = _Layers(l2)
    inputs = keras.Input(input_shape, name="image")
    x = norm(affine=False)(build.convolution(inputs, channels, 3))
    for stage in range(3):
        if stage:
            x = build.residual(x, channels * 2**stage)
        for cell in range(cells):
            x = _cell(x, options, build, f"stage_{stage}_cell_{cell}")
    x = layers.ReLU()(norm(affine=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(
        num_classes,
        kernel_initializer=_initializer(),
        kernel_regularizer=coupled_l2(l2),
        name="classifier",
    )(x)
    resnet = tuple(options.index(option) for option in RESNET)
    return Supernet(
        inputs,
        outputs,
        name=name,
        sampler=sampler,
        seed=seed,
        named_paths={"resnet": resnet},
    )


def live_edges(space, paths):
    """Makes edges without a signal "none": paths that compute the same become equal.

    An edge is live if a signal from the cell's input reaches it and it reaches the
    cell's output. What leaves a silent node is zero through any operation, as long as
    batch norms have no offset and are recalibrated (the mean of zeros is zero); so do
    not merge paths that are scored with moving averages.

    Args:
        space: The `SearchSpace` of a `nasbench201`.
        paths: Integer array ``[n, 6]``.

    Returns:
        An int64 array ``[n, 6]``.
    """
    paths = space.validate(paths)
    none = space.decisions[0].options.index("none")
    applied = {edge: paths[:, i] != none for i, edge in enumerate(EDGES)}
    never, always = np.zeros(len(paths), bool), np.ones(len(paths), bool)
    reached, reaches = {0: always}, {3: always}
    for node in (1, 2, 3):
        reached[node] = never.copy()
        for source in range(node):
            reached[node] |= reached[source] & applied[source, node]
    for node in (2, 1, 0):
        reaches[node] = never.copy()
        for target in range(node + 1, 4):
            reaches[node] |= reaches[target] & applied[node, target]
    live = [reached[source] & reaches[target] for source, target in EDGES]
    return np.where(np.stack(live, axis=1), paths, none)


def _cell(x, options, build, name):
    """One cell; its edges share their decisions with those of all other cells."""
    channels = x.shape[-1]
    nodes = [x]
    for target in range(1, 4):
        arriving = [
            ChoiceBlock(
                [build.option(option, channels) for option in options],
                labels=options,
                decision=f"edge_{source}_{target}",
                name=f"{name}_edge_{source}_{target}",
            )(nodes[source])
            for source in range(target)
        ]
        nodes.append(arriving[0] if target == 1 else layers.Add()(arriving))
    return nodes[-1]


class _Layers:
    """The benchmark's building blocks, with its framework's initializer."""

    def __init__(self, l2):
        self.l2 = l2

    def convolution_layer(self, channels, kernel_size, stride=1):
        return plain_convolution(channels, kernel_size, stride, self.l2, _initializer())

    def convolution(self, x, channels, kernel_size, stride=1):
        x = padded(x, kernel_size, stride)
        return self.convolution_layer(channels, kernel_size, stride)(x)

    def option(self, option, channels):
        """One operation of an edge: a layer, or a list of layers."""
        if option == "none":
            return layers.Rescaling(0.0)
        if option == "skip_connect":
            return layers.Identity()
        if option == "avg_pool_3x3":
            # Keras averages over what is inside the image, as the benchmark does.
            return layers.AveragePooling2D(3, 1, padding="same")
        kernel_size = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[option]
        return [
            layers.ReLU(),
            self.convolution_layer(channels, kernel_size),
            norm(affine=False),
        ]

    def residual(self, x, channels):
        """The block between stages, of stride 2."""
        shortcut = layers.AveragePooling2D(2, 2)(x)
        shortcut = self.convolution(shortcut, channels, 1)
        for stride in (2, 1):
            x = layers.ReLU()(x)
            x = norm(affine=False)(self.convolution(x, channels, 3, stride))
        return layers.Add()([shortcut, x])


def _initializer():
    # Uniform within 1 / sqrt(fan in).
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
