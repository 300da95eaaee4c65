"""Counts multiply-adds and parameters of stock models, and tabulates supernets.

A supernet's table is read off its options one by one, so ``table(path)`` equals the
count of ``net.extract(path)``.
"""

import collections
import inspect

import keras
import numpy as np
from keras import layers
from keras.src.ops.nn import DotProductAttention

from keras_spos.costs import Block, CostTable
from keras_spos.dependence import check_none_is_left_out
from keras_spos.graph import nodes
from keras_spos.layer_flops import layer_flops
from keras_spos.layers.quantized import QuantizedConv2D
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.signatures import signature


def flops_table(net):
    """Multiply-adds of every path of a supernet for one input.

    Those of convolutions, dense and recurrent layers, attention and products of
    matrices, as SPOS counts FLOPs: no batch norm, no activation, no bias.

    Args:
        net: A `Supernet` with fixed image size.

    Returns:
        A `CostTable` in MAC, whose ``table(path)`` equals
        ``count_flops(net.extract(path))``.

    Raises:
        ValueError: A layer's type has no counter (`register_flops`), an image size is
            not fixed, blocks share weights but no decision, or an option leaves out an
            input of its block, and so layers before it, or a model has outputs that are
            not used.
    """
    return _table(net, _flops, "flops", "MAC")


def params_table(net):
    """Parameters of every path of a supernet.

    Frozen weights count, state such as moving averages does not. Batch norms count with
    scale and offset, whether or not they have them in the supernet: what is deployed is
    the retrained network, which has both.

    Args:
        net: A `Supernet`.

    Returns:
        A `CostTable`.

    Raises:
        ValueError: Blocks share weights but no decision, an option leaves out an input
            of its block, or Keras has quantized a layer.
    """
    return _table(net, _params, "params", "parameters")


def bitops_table(net):
    """BitOps of every path of a quantized supernet, in G.

    A convolution's BitOps are its multiply-adds times the bit widths of its weight and
    of its input. As in SPOS's Table 6, only quantized convolutions count, and a G is
    2^30.

    Args:
        net: A `Supernet` with fixed image size and `ElasticQuantizedConv2D` layers.

    Returns:
        A `CostTable`.

    Raises:
        ValueError: A path has no quantized convolution.
    """
    table = _table(net, _bitops, "bitops", "G")
    if table.reachable_range()[0] <= 0:
        raise ValueError(
            "BitOps count quantized convolutions (ElasticQuantizedConv2D). "
            f"Received: {net.name!r}, with paths that have none."
        )
    return table


def count_bitops(model):
    """BitOps of a quantized model as `bitops_table` counts them, in G.

    Args:
        model: A Functional model, such as ``net.extract(path)``.
    """
    return _count(model, _bitops)


def count_flops(model):
    """Multiply-adds of a stock model for one input as `flops_table` counts them.

    Args:
        model: A Functional or Sequential model with fixed image size.

    Returns:
        An integer.
    """
    return _count(model, _flops)


def count_params(model):
    """Parameters of a stock model as `params_table` counts them, an integer.

    Args:
        model: A Functional model.
    """
    return _count(model, _params)


def _table(net, counter, name, unit):
    index = {d.name: i for i, d in enumerate(net.space.decisions)}
    searchable, others = [], []
    for node in nodes(net):
        chosen = isinstance(node.operation, SearchableLayer)
        (searchable if chosen else others).append(node)
    check_none_is_left_out(net, name, lambda node: _count_node(node, counter, set()))
    fixed = set()
    base = sum(_count_node(node, counter, fixed) for node in others)
    applied = collections.Counter(node.operation for node in searchable)
    blocks, known = [], {}
    # Weights that a choice of some decisions brings, and the block that owns weights.
    brought, owners = {}, {}
    for node in searchable:
        layer = node.operation
        decisions = tuple(index[d.name] for d in layer.decisions)
        sizes = tuple(int(net.space.sizes[d]) for d in decisions)
        # Options of equal blocks that are made of slices cost the same. Making them is
        # slow: 20 blocks of 4 options at 8 widths are 640 models. (A block that is
        # applied twice has its weights once.)
        key = None
        if type(layer).views is not SearchableLayer.views and applied[layer] == 1:
            key = signature([layer], [t.shape for t in node.input_tensors])
        if key in known:
            blocks.append(Block(layer.name, decisions, known[key]))
            continue
        costs = np.zeros(sizes)
        for choices in np.ndindex(sizes):
            seen = brought.setdefault((decisions, choices), set(fixed))
            costs[choices] = _count_layer(
                layer.picked(choices), node.input_tensors, counter, seen
            )
            for weights in seen - fixed:
                owner = owners.setdefault(weights, (layer, decisions))
                if owner[1] != decisions:
                    raise ValueError(
                        f"Blocks {owner[0].name!r} and {layer.name!r} share weights, "
                        f"but no decision: their {name} are no sum over blocks."
                    )
        blocks.append(Block(layer.name, decisions, costs))
        if key is not None:
            known[key] = costs
    return CostTable(net.space, base, blocks, name, unit)


def _count(model, counter):
    seen = set()
    return sum(_count_node(node, counter, seen) for node in nodes(model))


def _count_node(node, counter, seen):
    outputs = node.outputs[0] if len(node.outputs) == 1 else node.outputs
    return _count_layer(node.operation, _computed_on(node), counter, seen, outputs)


def _computed_on(node):
    """The tensors that a layer computes on: not masks and states, which come after."""
    # In the order of the arguments of `call`, not in that of this call.
    call = inspect.signature(node.operation.call)
    # Keras takes `training` for any layer, and does not hand it on to all.
    named = {k: v for k, v in node.arguments.kwargs.items() if k in call.parameters}
    given = call.bind_partial(*node.arguments.args, **named).arguments
    if isinstance(node.operation, (layers.MultiHeadAttention, DotProductAttention)):
        return [given["query"], given["value"]]
    first = next(iter(given.values()), [])
    tensors = [x for x in keras.tree.flatten(first) if hasattr(x, "shape")]
    return tensors or node.input_tensors


def _count_layer(layer, inputs, counter, seen, output=None):
    """Counts one application of a layer, going into models."""
    if isinstance(layer, keras.Sequential) or hasattr(layer, "_nodes_by_depth"):
        return sum(_count_node(node, counter, seen) for node in nodes(layer))
    if output is None:
        output = layer.compute_output_spec(inputs[0] if len(inputs) == 1 else inputs)
    return counter(layer, inputs, output, seen)


def _flops(layer, inputs, output, seen):
    outputs = keras.tree.flatten(output)
    return layer_flops(layer, _shapes(inputs), _shapes(outputs))


def _shapes(tensors):
    shapes = [tensor.shape for tensor in tensors]
    return shapes[0] if len(shapes) == 1 else shapes


def _bitops(layer, inputs, output, seen):
    if not isinstance(layer, QuantizedConv2D):
        return 0
    flops = _flops(layer, inputs, output, seen)
    return flops * layer.weight_bits * layer.activation_bits / 2**30


def _params(layer, inputs, output, seen):
    if not getattr(layer, "weights", ()):
        return 0
    for part in layer._flatten_layers():
        if part.quantization_mode:
            raise ValueError(
                "Expected parameters as they are before Keras' `quantize`. Received: "
                f"layer {part.name!r}, quantized to {part.quantization_mode!r}."
            )
    if isinstance(layer, layers.BatchNormalization):
        sizes = {id(layer): 2 * int(inputs[0].shape[layer.axis])}
    else:
        # Freezing a layer empties `trainable_weights`. Wrappers hold others' weights.
        sizes = {
            id(w): int(np.prod(w.shape))
            for x in layer._flatten_layers()
            for w in x._trainable_variables
        }
    new = sizes.keys() - seen  # A layer used twice has its weights once.
    seen.update(new)
    return sum(sizes[key] for key in new)
