"""Which layers compute the same, names and weights aside.

Example:
    >>> signature([layers.ReLU(name="a")]) == signature([layers.ReLU(name="b")])
    True
"""

import json

import keras


def signature(operations, extra=()):
    """A hashable that is equal for operations that differ in names alone.

    A class of the user's that does not describe itself (`get_config`) shares nothing.
    """
    try:
        for operation in operations:
            for layer in _flatten(operation):
                stock = type(layer).__module__.startswith("keras.")
                if not stock and "get_config" not in vars(type(layer)):
                    return (object(),)
        configs = [keras.saving.serialize_keras_object(o) for o in operations]
        return (json.dumps(_without_names(configs, {}), sort_keys=True), str(extra))
    except (TypeError, ValueError, NotImplementedError):
        return (object(),)


def _flatten(operation):
    if isinstance(operation, keras.layers.Layer):
        return operation._flatten_layers()
    return [operation]


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
