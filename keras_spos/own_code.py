"""What of a layer is the user's own: functions and classes, which a config only names.

Example:
    >>> own_code(layers.Dense(3, activation=my_function)) == [my_function]
    True
"""

import keras

from keras_spos.graph import nodes, parts_of


def own_code(operation, initializers=False):
    """The functions and classes of the user's that one layer or operation is made of.

    Those of layers inside it are not among them, nor are those that only draw first
    weights, unless `initializers`.
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
        elif callable(value) and getattr(value, "__self__", None) is not operation:
            # An object that describes itself is told apart by its class and its parts.
            described = hasattr(value, "get_config")
            code = type(value) if described else value
            if not is_stock(code):
                found.append(code)
                collect(vars(value) if described else None)

    for name, value in vars(operation).items():
        # Keras keeps wrapped methods, such as `build`, as attributes.
        method = callable(getattr(type(operation), name, None))
        if not method and (initializers or not name.endswith("_initializer")):
            collect(value)
    if hasattr(operation, "_nodes_by_depth"):
        for node in nodes(operation):
            collect(node.arguments.args)
            collect(node.arguments.kwargs)
    return found


def rebuild(operation, config):
    """A new operation of the same class and from a config, with the same functions."""
    named = {
        keras.saving.get_registered_name(code): code
        for part in parts_of(operation)
        for code in own_code(part, initializers=True)
        if hasattr(code, "__name__")
    }
    with keras.saving.custom_object_scope(named):
        return type(operation).from_config(config)


def can_rebuild(operation):
    """Whether `rebuild` can work: with a config, and without a lambda in it."""
    own = own_code(operation, initializers=True)
    # A class of the user's may make its functions itself.
    stock = is_stock(type(operation))
    if stock and any(getattr(code, "__name__", None) == "<lambda>" for code in own):
        return False
    try:
        if own:
            operation.get_config()
    except (TypeError, ValueError, AttributeError, NotImplementedError):
        return False
    return True


def is_stock(code):
    """Whether a class or a function is Keras' own."""
    return (getattr(code, "__module__", None) or "").startswith("keras.")


def is_adaptable(layer):
    """Whether a layer learns from data by `adapt`, such as `Normalization`.

    What it has learned is neither in its config nor in what compiled functions read.
    """
    return hasattr(layer, "adapt")
