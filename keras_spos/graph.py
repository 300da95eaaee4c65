"""What a model is made of: nodes of its graph, each a call of a layer or operation.

Example:
    >>> [node.operation.name for node in nodes(model)]             # doctest: +SKIP
"""

import keras
from keras.src.models.functional import Functional, unpack_singleton


def functional(model):
    """The model that holds the graph: a Sequential model keeps it in one of its own."""
    if isinstance(model, keras.Sequential):
        return model._functional or model
    return model


def has_own_call(model):
    """Whether this is of a subclass whose `call` may compute more than the graph."""
    stock = (Functional.call, keras.Sequential.call)
    return isinstance(model, keras.Model) and type(model).call not in stock


def flatten_inputs(model, args, kwargs):
    """What a Functional model is called on, as a flat list in its own order."""
    inputs = args[0] if args else kwargs["inputs"]
    if isinstance(inputs, dict) and not isinstance(model._inputs_struct, dict):
        # As Keras does: a model of a list takes a dict by the names of its inputs.
        return [inputs[t.name] for t in model.inputs]
    # As Keras does, which warns of it: what is left over goes nowhere.
    return keras.tree.flatten(inputs)[: len(model.inputs)]


def pack_outputs(model, flat):
    """A Functional model's outputs as it returns them, from a flat list."""
    outputs = keras.tree.pack_sequence_as(model._outputs_struct, flat)
    # As Keras does: a list of one output is that output.
    return unpack_singleton(outputs)


def nodes(model):
    """Yields the nodes, inputs aside, in an order in which they can run."""
    model = functional(model)
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (n for n in model._nodes_by_depth[depth] if not n.is_input)


def parts_of(operation):
    """An operation, and all layers and operations inside it."""
    if not isinstance(operation, keras.layers.Layer):
        return [operation]
    layers = operation._flatten_layers()
    # A Functional model's operations are more than its layers.
    inner = [x for layer in layers for x in getattr(layer, "operations", ())]
    return unique([*layers, *inner])


def unique(items):
    """The items without repetition, however they compare."""
    return list({id(item): item for item in items}.values())


def check_functional(model):
    """Refuses a model that has no graph."""
    if not model.built or not hasattr(functional(model), "_inputs_struct"):
        raise ValueError(
            "Expected a Functional model, or a Sequential one that has been called on "
            f"a batch. Received: {model.name!r}, a {type(model).__name__}."
        )
