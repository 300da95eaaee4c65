"""Which layers have no place in some subnets?

`extract` leaves out what its output does not depend on, such as layers before an input
that an option's graph does not use.
"""

import numpy as np

from keras_spos.graph import flatten_inputs, functional, has_own_call, nodes
from keras_spos.layers.multi_path_block import MultiPathBlock
from keras_spos.layers.searchable import SearchableLayer


def check_none_is_left_out(net, cost, counts=lambda node: True):
    """Raises where a subnet lacks what costs: a sum over blocks knows nothing of it.

    Args:
        net: A `Supernet`.
        cost: What is summed, for the error.
        counts: A function of a node that is not searched: whether it costs anything.
    """
    for node in _left_out(net, net.outputs, counts):
        raise ValueError(
            "Expected options that use all inputs of their block, and models whose "
            "outputs are all used. Received: one that leaves out "
            f"{node.operation.name!r}, which its subnets lack: the {cost} of a path is "
            "no sum over blocks. Put it into the options that use it, or use a model "
            "without it."
        )


def _left_out(model, outputs, counts):
    """Yields nodes that cost, in models inside too, which some outputs do not need."""
    needed = _needed(model, outputs)
    for node in nodes(model):
        layer, wanted = node.operation, [id(t) in needed for t in node.outputs]
        searchable = isinstance(layer, SearchableLayer)
        if any(wanted):
            for part in _parts(layer) if searchable else (layer,):
                if _is_graph(part):
                    yield from _left_out(part, _some(part.outputs, wanted), counts)
        elif searchable or counts(node):
            yield node


def _parts(block):
    """What a searchable layer picks from."""
    if isinstance(block, MultiPathBlock):
        groups = [(g.before, *g.paths, g.after) for g in block.groups]
        return [part for group in groups for part in group if part is not None]
    return getattr(block, "options", ())


def _needed(model, outputs):
    """Ids of the tensors of a graph on which outputs depend on every path."""
    needed = {id(t) for t in outputs}
    for node in reversed(list(nodes(model))):
        wanted = [id(t) in needed for t in node.outputs]
        if any(wanted):
            needed |= _used(node.operation, node, wanted)
    return needed


def _used(layer, node, wanted):
    """Ids of the inputs of a node that wanted outputs use, if it runs a layer.

    Models go by their graph.
    """
    several = len(node.input_tensors) > 1
    if several and isinstance(layer, SearchableLayer):
        sizes = [len(d.options) for d in layer.decisions]
        picked = [layer.picked(choices) for choices in np.ndindex(*sizes)]
        return set.intersection(*(_used(option, node, wanted) for option in picked))
    if several and _is_graph(layer):
        needed = _needed(layer, _some(layer.outputs, wanted))
        given = flatten_inputs(layer, node.arguments.args, node.arguments.kwargs)
        inputs = zip(given, layer.inputs, strict=True)
        return {id(tensor) for tensor, own in inputs if id(own) in needed}
    return set(map(id, node.input_tensors))


def _is_graph(layer):
    """Whether `extract` takes this for its graph."""
    return hasattr(functional(layer), "_nodes_by_depth") and not has_own_call(layer)


def _some(items, chosen):
    return [item for item, is_chosen in zip(items, chosen, strict=True) if is_chosen]
