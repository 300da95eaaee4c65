"""Merges what an ONNX convolution can do by itself into it: padding and batch norm.

Convolution, then batch norm, per output channel:

    gamma (w * x + b - mean) / sqrt(variance + epsilon) + beta
        = (s w) * x + s (b - mean) + beta,    s = gamma / sqrt(variance + epsilon)

computed here in float64, once, instead of in float32 at every run.
"""

import collections

import numpy as np


def fold(graph, outputs):
    """Folds zero padding and batch norms into convolutions, in place.

    Args:
        graph: An `onnx_writer.Graph`.
        outputs: Names of the graph's outputs, which stay.
    """
    _fold_padding(graph, _readers(graph, outputs))
    _fold_norms(graph, _readers(graph, outputs))


def _fold_padding(graph, readers):
    """Pad, then Conv: the convolution pads."""
    for pad in [n for n in graph.nodes if n.op_type == "Pad"]:
        convolutions = readers[pad.output[0]]
        amounts = graph.constants[pad.input[1]].tolist()
        half = len(amounts) // 2
        if any(n is None or n.op_type != "Conv" for n in convolutions):
            continue
        # Never the batch or channels.
        spatial = [*amounts[2:half], *amounts[half + 2 :]]
        for node in convolutions:
            own = _attribute(node, "pads")
            own.ints[:] = [a + b for a, b in zip(own.ints, spatial, strict=True)]
            node.input[0] = pad.input[0]
        graph.nodes.remove(pad)


def _fold_norms(graph, readers):
    """Conv, then BatchNormalization: the convolution scales and shifts."""
    producers = {n.output[0]: n for n in graph.nodes}
    removed = set()
    for norm in [n for n in graph.nodes if n.op_type == "BatchNormalization"]:
        node = producers.get(norm.input[0])
        if node is None or node.op_type != "Conv":
            continue
        if len(readers[norm.input[0]]) != 1:
            continue
        kernel = graph.constants.get(node.input[1])
        if kernel is None:
            continue  # A quantized one, whose few levels must stay.
        gamma, beta, mean, variance = (
            graph.constants[name].astype("float64") for name in norm.input[1:]
        )
        scale = gamma / np.sqrt(variance + _attribute(norm, "epsilon").f)
        bias = graph.constants[node.input[2]] if len(node.input) > 2 else 0.0
        graph.constants[node.input[1]] = kernel * scale.reshape(
            -1, *[1] * (kernel.ndim - 1)
        )
        folded = graph.unique(f"{node.name}/folded_bias")
        graph.constants[folded] = (bias - mean) * scale + beta
        inputs = [*node.input[:2], folded]
        del node.input[:]
        node.input.extend(inputs)
        node.output[0] = norm.output[0]
        producers[norm.output[0]] = node
        removed.add(norm.name)
    graph.nodes = [n for n in graph.nodes if n.name not in removed]


def _readers(graph, outputs):
    """The nodes that read a tensor; None for who reads an output of the graph."""
    readers = collections.defaultdict(list, {name: [None] for name in outputs})
    for node in graph.nodes:
        for name in node.input:
            readers[name].append(node)
    return readers


def _attribute(node, name):
    return next(a for a in node.attribute if a.name == name)
