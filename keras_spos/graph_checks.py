"""What a supernet's graph may not hold, and what its user should know of it."""

import warnings

import keras
from keras.src.backend import get_keras_mask

from keras_spos.graph import functional, nodes
from keras_spos.layers.multi_path_block import MultiPathBlock
from keras_spos.layers.path_group import PathGroup
from keras_spos.layers.searchable import MASKED, SearchableLayer
from keras_spos.own_code import can_rebuild


def check_none_is_hidden(net):
    """Refuses searchable layers inside of others, where no path would reach them."""
    own = {id(layer) for layer in net.searchable_layers}
    for layer in net._flatten_layers():
        if isinstance(layer, SearchableLayer) and id(layer) not in own:
            raise ValueError(
                f"Searchable layer {layer.name!r} is inside another layer or model, "
                "where no path reaches it. Use it in the supernet's own graph."
            )


def check_no_mask_is_lost(net):
    """Refuses what fixed layers hand to a searchable one beside a tensor: a mask."""
    for node in nodes(net):
        for tensor in node.input_tensors:
            masked = get_keras_mask(tensor) is not None
            if masked and isinstance(node.operation, SearchableLayer):
                source = tensor._keras_history.operation
                raise ValueError(MASKED.format(source.name))


def check_files_can_hold(net):
    """Refuses layers that a file would hold twice, or several that it would join."""
    layers = net._flatten_layers()
    for chain in (x for x in layers if isinstance(x, keras.Sequential)):
        names = [x.name for x in chain.layers]
        if len(set(names)) < len(names):
            raise ValueError(
                "Keras saves a list of layers with each of them once. Received: "
                f"{names} in {chain.name!r}. Write it as a Functional model, which may "
                "call a layer twice; or save the weights alone (`save_weights`), and "
                "load them into a net that is built anew."
            )
    for owner in net._flatten_layers():
        called = {id(x) for graph in (net, owner) for x in _operations(graph)}
        _check_each_is_in_one_part(_parts(owner), called)


def _operations(layer):
    """What is called in the graph of a model; nothing for a layer without one."""
    return getattr(functional(layer), "operations", ())


def _parts(owner):
    """What the config of a model or block describes, each by itself."""
    if isinstance(owner, PathGroup):
        return [owner.before, *owner.paths, owner.after, owner.norm]
    if isinstance(owner, MultiPathBlock):
        return owner.groups
    if isinstance(owner, SearchableLayer):
        return getattr(owner, "options", ())
    return _operations(owner)


def _check_each_is_in_one_part(parts, called):
    """Refuses a layer with weights that a file would have in two of these parts."""
    first = {}
    for part in parts:
        if not isinstance(part, keras.layers.Layer):
            continue
        inside = part._flatten_layers()
        graphs = [layer for layer in inside if isinstance(layer, keras.Model)]
        in_graphs = {id(layer) for x in graphs for layer in x._flatten_layers(False)}
        known = {id(layer) for layer in inside}
        for layer in inside:
            if not layer.weights:
                continue
            home = first.setdefault(id(layer), part)
            # What comes first by itself, with what it is made of, is found again; not
            # in a graph, if it is called outside of it too.
            if id(home) not in known or id(home) in called & in_graphs:
                raise ValueError(
                    "A file of a supernet has each layer in one place. Received: "
                    f"{layer.name!r}, in {home.name!r} and in {part.name!r}. Give "
                    "each a layer of its own; or save the weights alone "
                    "(`save_weights`), and load them into a net that is built anew."
                )


def warn_of_what_extract_cannot_rebuild(net):
    """Warns of layers whose configs do not say all that they are made of."""
    names = [
        layer.name
        for layer in net._flatten_layers(include_self=False)
        if not isinstance(layer, SearchableLayer) and not can_rebuild(layer)
    ]
    if names:
        warnings.warn(
            "`extract` and loading make layers again from their configs. Expected a "
            "`get_config` in every class, and named functions in the place of lambdas. "
            f"Received: {sorted(names)}",
            stacklevel=3,
        )


def warn_of_metrics_in_layers(net):
    """Warns of metrics that only a layer's own call would update."""
    names = [layer.name for layer in net._flatten_layers() if layer._metrics]
    if names:
        warnings.warn(
            "A step does not update metrics that layers own; give them to `compile`. "
            f"Received: layers with metrics of their own, {sorted(names)}",
            stacklevel=3,
        )
