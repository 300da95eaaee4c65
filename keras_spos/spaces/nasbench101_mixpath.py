"""The part of NAS-Bench-101 in which MixPath's Table 3 ranks networks.

Section 6 of the MixPath paper. A cell sends its input through up to m parallel nodes,
each a 1x1 convolution, a 3x3 convolution or a max pooling; their sum passes the shadow
batch norm for their number and one more 1x1 convolution:

    cell(x) = conv1x1(SBN_k(sum of k nodes of x))

All cells of a network are equal: the space has one decision.

This is the paper's text on the benchmark's layers, where node 5 has a batch norm and a
ReLU. In the authors' released code it has a ReLU alone, and no shadow batch norm is
called. The first weights are that code's.

Example:
    >>> net = nasbench101_mixpath(max_paths=4)
    >>> net.space.size, len({cell_of(net, (i,)) for i in range(net.space.size)})
    (255, 34)
"""

import itertools

import keras
import numpy as np
from keras import layers

from keras_spos.layers import MultiPathBlock, PathGroup, ShadowBatchNormalization
from keras_spos.multi_path_samplers import MultiPathSampler
from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.spaces import mixpath_parts
from keras_spos.spaces.parts import even_padding, norm
from keras_spos.supernet import Supernet

OPERATIONS = ("conv3x3", "conv1x1", "maxpool3x3")
# The benchmark numbers operations from 1, in this order; 0 is the input.
_NODE_5 = 1 + OPERATIONS.index("conv1x1")
_OUTPUT = 4


@numpy_initializers()
def nasbench101_mixpath(
    input_shape=(32, 32, 3),
    num_classes=10,
    *,
    max_paths=4,
    shadow=True,
    channels=128,
    stacks=3,
    cells=3,
    stem_stride=1,
    l2=0.0,
    sampler=None,
    seed=0,
    name="nasbench101_mixpath",
):
    """Builds the supernet; by default in the benchmark's own size.

    Args:
        input_shape: Image shape (height, width, channels).
        num_classes: Number of classes; the outputs are logits.
        max_paths: The paper's m: the number of nodes, each of which may be left out.
        shadow: False replaces each cell's shadow batch norms by one batch norm.
        channels: Channels of the first stack; each further stack has twice as many.
        stacks: Number of stacks; between them the image is halved.
        cells: Number of cells in each stack.
        stem_stride: Stride of the first convolution (1 in the benchmark).
        l2: Coefficient of the weight decay in the gradient of kernels.
        sampler: Draws each training step's path. Defaults to a `MultiPathSampler`.
        seed: Seed of the paths.
        name: The model's name.

    Returns:
        A `Supernet`. The networks of the benchmark have no norm before node 5, so they
        have two parameters less for each channel of each cell.
    """
    nodes = [(node, o) for node in range(max_paths) for o in OPERATIONS]
    labels = [f"{operation}@{node + 1}" for node, operation in nodes]
    # Some of the nodes, and for each of them one operation.
    subsets = [
        tuple(
            len(OPERATIONS) * node + o for node, o in zip(some, operations, strict=True)
        )
        for count in range(1, max_paths + 1)
        for some in itertools.combinations(range(max_paths), count)
        for operations in itertools.product(range(len(OPERATIONS)), repeat=count)
    ]
    build = _Layers(l2)
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for layer in build.convolution(channels, 3, stem_stride):
        x = layer(x)
    blocks = []
    for stack in range(stacks):
        if stack:
            x = layers.MaxPooling2D(2)(x)
        width = channels * 2**stack
        for cell in range(cells):
            block = f"stack_{stack}_cell_{cell}"
            paths = [
                # A node projects what it takes from the cell's input.
                [*build.convolution(width, 1), *build.operation(operation, width)]
                for _, operation in nodes
            ]
            group = PathGroup(
                paths,
                norm=ShadowBatchNormalization(max_paths, shadow, name=f"{block}_sbn"),
                labels=labels,
                subsets=subsets,
                name=f"{block}_nodes",
            )
            blocks.append(
                MultiPathBlock([group], max_paths, decision="cell", name=block)
            )
            x = blocks[-1](x)
            for layer in build.convolution(width, 1):  # node 5
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


def cell_of(net, path):
    """The operations of a path's nodes, sorted: equal for cells that are equal."""
    label = net.space.decisions[0].options[path[0]]
    return tuple(sorted(node.split("@")[0] for node in label.split("+")))


def graph_of(cell):
    """A cell as the benchmark lists it, for `tabular.nasbench101().row(...)`.

    Args:
        cell: What `cell_of` gives.

    Returns:
        An array ``[n, n]`` of edges, and `n` operations: 0 input, 1 conv3x3,
        2 conv1x1, 3 maxpool3x3, 4 output.
    """
    join, output = len(cell) + 1, len(cell) + 2
    adjacency = np.zeros((output + 1, output + 1), np.int64)
    adjacency[0, 1:join] = adjacency[1:join, join] = adjacency[join, output] = 1
    nodes = [1 + OPERATIONS.index(operation) for operation in cell]
    return adjacency, [0, *nodes, _NODE_5, _OUTPUT]


class _Layers:
    """The benchmark's operations."""

    def __init__(self, l2):
        self.l2 = l2

    def convolution(self, channels, kernel_size, stride=1):
        """Convolution, batch norm, activation."""
        kernel = mixpath_parts.convolution(channels, kernel_size, stride, self.l2)
        return [*even_padding(kernel_size, stride), kernel, norm(), layers.ReLU()]

    def operation(self, operation, channels):
        if operation == "maxpool3x3":
            return [layers.MaxPooling2D(3, 1, padding="same")]
        return self.convolution(channels, int(operation[-1]))
