"""Which layers compute the same, names and weights aside; and which networks.

Example:
    >>> signature([layers.ReLU(name="a")]) == signature([layers.ReLU(name="b")])
    True
"""

import hashlib
import json

import keras

from keras_spos.graph import nodes, parts_of
from keras_spos.own_code import is_adaptable, is_stock, own_code

# What of a layer tells, beside the shapes of its weights, how long it takes.
_GEOMETRY = (
    "dilation_rate",
    "groups",
    "kernel_size",
    "padding",
    "pool_size",
    "strides",
)


def signature(operations, extra=()):
    """A hashable that is equal for operations that differ in names alone.

    What a config does not tell is not shared: a class of the user's without a
    `get_config` of its own, and what `adapt` has learned.
    """
    try:
        parts = [part for operation in operations for part in parts_of(operation)]
        for part in parts:
            described = is_stock(type(part)) or "get_config" in vars(type(part))
            if not described or is_adaptable(part):
                return (object(),)
        configs = [keras.saving.serialize_keras_object(o) for o in operations]
        # Other things have names that count, such as types of numbers.
        names = dict.fromkeys(part.name for part in parts)
        text = json.dumps(
            [_without_names(configs, names), _orders(parts)], sort_keys=True
        )
        # A config only names functions and classes, and others may have these names.
        return text, str(extra), tuple(id(x) for part in parts for x in own_code(part))
    except (TypeError, ValueError, NotImplementedError):
        return (object(),)


def _orders(parts):
    """Which layers of a list repeat which: a config of a list has each but once."""
    lists = [
        [id(x) for x in part.layers]
        for part in parts
        if isinstance(part, keras.Sequential)
    ]
    return [[ids.index(x) for x in ids] for ids in lists]


def network_signature(net, searchable):
    """What tells a network from others whose decisions are named alike.

    The shapes that blocks take and give, and kinds, geometry and shapes of weights of
    the layers in them: all that costs. Not their names and values, nor anything else
    whose text another version of Keras may change: it is kept in files.

    Args:
        net: A Functional model.
        searchable: The class of its searchable layers.

    Returns:
        A dict from the names of the decisions of a block to a text, and from "" for
        what is not searched; None if the net leaves the size of its inputs open.
    """
    if any(None in tensor.shape[1:] for tensor in net.inputs):
        return None
    found = {}
    for node in nodes(net):
        layer = node.operation
        if isinstance(layer, keras.layers.Layer):
            chosen = isinstance(layer, searchable)
            name = ", ".join(d.name for d in layer.decisions) if chosen else ""
            shapes = [t.shape[1:] for t in [*node.input_tensors, *node.outputs]]
            found.setdefault(name, []).append([_geometry(layer), shapes])
    return {name: _digest(sorted(parts, key=str)) for name, parts in found.items()}


def _geometry(layer):
    """A layer's kind, geometry and shapes of weights, and those of layers in it."""
    graph = isinstance(layer, keras.Model)
    inner = [
        _geometry(part)
        for part in (layer.layers if graph else layer._layers)
        if not isinstance(part, keras.layers.InputLayer)
    ]
    own = layer._trainable_variables + layer._non_trainable_variables
    activation = getattr(layer, "activation", None)
    return [
        type(layer).__name__,
        getattr(activation, "__name__", type(activation).__name__),
        [getattr(layer, name, None) for name in _GEOMETRY],
        [list(v.shape) for v in own],
        # A model that was loaded may list its layers in another order.
        sorted(inner, key=str) if graph else inner,
    ]


def _digest(value):
    text = json.dumps(value, default=lambda other: type(other).__name__)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without_names(config, names):
    """Numbers layer names, and drops initializers, which do not compute anything.

    Args:
        config: What is JSON-able.
        names: A dict from each name of a layer to its number, None as long as it has
            not been met.
    """

    def number(name):
        if name in names and names[name] is None:
            names[name] = f"#{sum(known is not None for known in names.values())}"
        return names.get(name, name)

    if isinstance(config, dict):
        result = {}
        for key, value in config.items():
            if key == "name" and isinstance(value, str):
                result[key] = number(value)
            elif key == "keras_history":
                result[key] = [number(value[0]), *value[1:]]
            elif key in ("input_layers", "output_layers"):
                result[key] = _number_strings(value, number)
            elif not key.endswith("_initializer"):
                result[key] = _without_names(value, names)
        return result
    if isinstance(config, (list, tuple)):
        return [_without_names(v, names) for v in config]
    return config


def _number_strings(value, number):
    if isinstance(value, (list, tuple)):
        return [_number_strings(v, number) for v in value]
    return number(value) if isinstance(value, str) else value
