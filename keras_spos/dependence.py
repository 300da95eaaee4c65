"""Which layers have no place in some subnets?

`extract` leaves out what its output does not depend on, such as layers before an input
that an option's graph does not use.
"""

import numpy as np

from keras_spos.graph import functional, has_own_call, nodes
from keras_spos.layers.searchable import SearchableLayer


def check_none_is_left_out(net, cost, counts=lambda node: True):
    """Raises where a subnet lacks what costs: a sum over blocks knows nothing of it.

    Args:
        net: A `Supernet`.
        cost: What is summed, for the error.
        counts: A function of a node that is not searched: whether it costs anything.
    """
    needed = _needed(net)
    for node in nodes(net):
        if any(id(t) in needed for t in node.outputs):
            continue
        if isinstance(node.operation, SearchableLayer) or counts(node):
            raise ValueError(
                "Expected options that use all inputs of their block. Received: one "
                f"that leaves out {node.operation.name!r}, which its subnets lack: the "
                f"{cost} of a path is no sum over blocks. Put it into the options that "
                "use it."
            )


def _needed(model):
    """Ids of the tensors of a graph on which its outputs depend on every path."""
    needed = {id(t) for t in model.outputs}
    for node in reversed(list(nodes(model))):
        if any(id(t) in needed for t in node.outputs):
            used = _used(node.operation, len(node.input_tensors))
            inputs = zip(node.input_tensors, used, strict=True)
            needed.update(id(t) for t, is_used in inputs if is_used)
    return needed


def _used(layer, count):
    """Whether a layer uses each of its inputs; models are taken for their graph."""
    if count > 1 and isinstance(layer, SearchableLayer):
        sizes = [len(d.options) for d in layer.decisions]
        options = [_used(layer.picked(c), count) for c in np.ndindex(*sizes)]
        return [all(used) for used in zip(*options, strict=True)]
    layer = functional(layer)
    if count > 1 and hasattr(layer, "_nodes_by_depth") and not has_own_call(layer):
        needed = _needed(layer)
        return [id(t) in needed for t in layer.inputs]
    return [True] * count
