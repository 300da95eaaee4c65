"""Which layers compute the same, names and weights aside.

Example:
    >>> signature([layers.ReLU(name="a")]) == signature([layers.ReLU(name="b")])
    True
"""

import json

import keras

from keras_spos.own_code import is_adaptable, is_stock, own_code, parts_of


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
        text = json.dumps(_without_names(configs, {}), sort_keys=True)
        # A config only names functions and classes, and others may have these names.
        return text, str(extra), tuple(id(x) for part in parts for x in own_code(part))
    except (TypeError, ValueError, NotImplementedError):
        return (object(),)


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
