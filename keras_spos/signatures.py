"""Which layers compute the same, names and weights aside.

Example:
    >>> signature([layers.ReLU(name="a")]) == signature([layers.ReLU(name="b")])
    True
"""

import json

import keras

from keras_spos.graph import nodes


def signature(operations, extra=()):
    """A hashable that is equal for operations that differ in names alone.

    What a config does not tell is not shared: a class of the user's without a
    `get_config` of its own, and what `adapt` has learned.
    """
    try:
        parts = [part for operation in operations for part in _flatten(operation)]
        for part in parts:
            described = is_stock(type(part)) or "get_config" in vars(type(part))
            if not described or is_adaptable(part):
                return (object(),)
        configs = [keras.saving.serialize_keras_object(o) for o in operations]
        text = json.dumps(_without_names(configs, {}), sort_keys=True)
        # A config only names functions and classes, and others may have these names.
        return text, str(extra), tuple(id(x) for part in parts for x in own_code(part))
    except (TypeError, ValueError, NotImplementedError):
        return (object(),)


def is_adaptable(layer):
    """Whether a layer learns from data by `adapt`, such as `Normalization`.

    What it has learned is neither in its config nor in what compiled functions read.
    """
    return hasattr(layer, "adapt") or hasattr(layer, "finalize_state")


def own_code(operation):
    """The functions and classes of the user's that one layer or operation is made of.

    Those of layers inside it are not among them.
    """
    found = [] if is_stock(type(operation)) else [type(operation)]
    seen = set()

    def collect(value):
        if id(value) in seen or isinstance(value, keras.Operation):
            return
        seen.add(id(value))
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple, set)):
            for item in value:
                collect(item)
        elif callable(value):
            # An object that describes itself is told apart by its class and its parts.
            described = hasattr(value, "get_config")
            code = type(value) if described else value
            if not is_stock(code):
                found.append(code)
                collect(vars(value) if described else None)

    for name, value in vars(operation).items():
        # Keras keeps wrapped methods, such as `build`, as attributes.
        method = callable(getattr(type(operation), name, None))
        if not method and not name.endswith("_initializer"):
            collect(value)
    if hasattr(operation, "_nodes_by_depth"):
        for node in nodes(operation):
            collect(node.arguments.args)
            collect(node.arguments.kwargs)
    return found


def is_stock(code):
    """Whether a class or a function is Keras' own."""
    return (getattr(code, "__module__", None) or "").startswith("keras.")


def _flatten(operation):
    if not isinstance(operation, keras.layers.Layer):
        return [operation]
    layers = operation._flatten_layers()
    # A Functional model's operations are more than its layers.
    inner = [x for layer in layers for x in getattr(layer, "operations", ())]
    return list({id(x): x for x in [*layers, *inner]}.values())


def _without_names(config, names):
    """Numbers layer names, and drops initializers, which do not compute anything."""

    def number(name):
        return names.setdefault(name, f"#{len(names)}")

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
