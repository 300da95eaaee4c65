"""Which layers have no place in some subnets?

`extract` leaves out what its output does not depend on, such as layers before an input
that an option's graph does not use.
"""

import numpy as np

from keras_spos.graph import functional, has_own_call, nodes
from keras_spos.layers.searchable import SearchableLayer


def nodes_left_out(net):
    """The nodes of a supernet's graph that some path's subnet lacks."""
    needed = _needed(net)
    return [n for n in nodes(net) if not any(id(t) in needed for t in n.outputs)]


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
