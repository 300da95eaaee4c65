"""Extracts the subnet on a path as a stock Functional model."""

import collections
import tempfile

import keras
import numpy as np
from keras import ops

from keras_spos.graph import flatten_inputs, functional, has_own_call, nodes
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.numpy_initializers import numpy_initializers
from keras_spos.own_code import is_adaptable, rebuild


def extract(model, space, path, fresh=False, overrides=None):
    """Rebuilds a supernet's graph with the layers that a path picks.

    Args:
        model: The supernet.
        space: Its `SearchSpace`.
        path: A path.
        fresh: Whether to initialize new weights (with scale and offset for batch norms
            that have neither) instead of copying the supernet's. What frozen layers
            hold (such as a pretrained backbone's), and what layers learned by `adapt`,
            is copied anyway.
        overrides: Values to take instead of the supernet's, a dict by variable id.

    Returns:
        A `keras.Model` of stock layers.
    """
    for layer in model._flatten_layers() if fresh else ():
        if layer.quantization_mode:
            raise ValueError(
                "Quantized weights do not train: quantize a fresh subnet after its "
                f"training. Received: layer {layer.name!r}, quantized by Keras to "
                f"{layer.quantization_mode!r}."
            )
    subnet, builder = _rebuild(model, space, path, fresh)
    for new, old in builder.pairs:
        kept = _frozen(old) if builder.keep_frozen else ()
        if fresh and not kept:
            continue
        for target, variable in zip(new.weights, old.weights, strict=True):
            if fresh and id(variable) not in kept:
                continue
            source = builder.views.get(id(variable), variable)
            value = (overrides or {}).get(id(source), source.value)
            # A copy: JAX models give their arrays away when they run.
            target.assign(ops.copy(value))
    for new, old in builder.pairs:
        copy_adapted(new, old)
        for target, source in zip(
            new._flatten_layers(), old._flatten_layers(), strict=True
        ):
            # A config freezes a layer alone, not the layers inside it.
            trainable = source.trainable or (fresh and not builder.keep_frozen)
            if target.trainable != trainable:
                target.trainable = trainable
    return subnet


def _frozen(layer):
    """Ids of weights of a layer, or of parts of it, that training does not move."""
    frozen = set()
    for part in layer._flatten_layers():
        # LoRA freezes the kernel alone.
        alone = [v for v in part._trainable_variables if not v.trainable]
        frozen.update(map(id, alone if part.trainable else part.weights))
    return frozen


def copy_adapted(new, old):
    """Copies what a layer, and those in it, learned by `adapt`, to a copy of it."""
    for target, source in zip(
        new._flatten_layers(), old._flatten_layers(), strict=True
    ):
        if is_adaptable(source):
            _copy_adapted(target, source)


def _copy_adapted(target, source):
    """Copies what one layer learned, the way in which Keras saves it."""
    state = {}
    source.save_own_variables(state)
    target.load_own_variables({key: np.array(value) for key, value in state.items()})
    words = getattr(source, "get_vocabulary", None)
    if words and words(include_special_tokens=False):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def inherit(model, space, path, donor):
    """Writes a network's weights into a supernet where a path uses them.

    What fits is found by name: the layer's, as `extract` names it, and the weight's.

    Args:
        model: The supernet.
        space: Its `SearchSpace`.
        path: A path.
        donor: A Functional model with layers of the names of that path's subnet.

    Returns:
        Names "layer/weight" of the path's weights that the donor lacks; they stay.
    """
    given = {}
    for layer in donor.layers:
        given.update(_named(layer.name, layer.weights))
    _, builder = _rebuild(model, space, path, fresh=False)
    wanted = {}
    for new, old in builder.pairs:
        for name, variable in _named(new.name, old.weights).items():
            wanted[name] = builder.views.get(id(variable), variable)
    if not wanted.keys() & given.keys():
        raise ValueError(
            f"No weight of {donor.name!r} has the name of one of {model.name!r}. "
            f"Expected some of {sorted(wanted)[:5]}... "
            f"Received: {sorted(given)[:5]}..."
        )
    for name, target in wanted.items():
        if name in given and tuple(target.shape) != tuple(given[name].shape):
            raise ValueError(
                f"{name} has shape {tuple(target.shape)} on this path. "
                f"Received: {tuple(given[name].shape)}"
            )
    for name, target in wanted.items():
        if name in given:
            target.assign(ops.copy(given[name].value))
    for _, old in builder.pairs:
        if hasattr(old, "finalize_state"):
            old.finalize_state()
    return sorted(wanted.keys() - given.keys())


def _named(layer, weights):
    """A layer's weights by name, numbered where it holds several of one name."""
    named, counts = {}, collections.Counter()
    for weight in weights:
        number = f"_{counts[weight.name]}" if weight.name in counts else ""
        counts[weight.name] += 1
        named[f"{layer}/{weight.name}{number}"] = weight
    return named


@numpy_initializers()
def _rebuild(model, space, path, fresh):
    """A model of copies of the layers on a path, and the builder that made it."""
    builder = _Builder(
        dict(zip((d.name for d in space.decisions), path, strict=True)),
        fresh,
        # Of a supernet that is frozen as a whole, no layer was frozen for its weights.
        keep_frozen=fresh and model.trainable,
    )
    inputs = [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name)
        for t in model.inputs
    ]
    builder.names.update(t.name for t in inputs)
    outputs = builder.graph(model, inputs, prefix="")
    subnet = keras.Model(
        keras.tree.pack_sequence_as(model._inputs_struct, inputs),
        keras.tree.pack_sequence_as(model._outputs_struct, outputs),
        name=f"{model.name}_subnet",
    )
    # Not of outputs that nobody reads.
    inside = {id(layer) for layer in subnet.layers}
    builder.pairs = [pair for pair in builder.pairs if id(pair[0]) in inside]
    return subnet, builder


class _Builder:
    """Copies layers onto new symbolic tensors, going into models and choices."""

    def __init__(self, choices, fresh, keep_frozen):
        self.choices = choices
        self.fresh = fresh
        self.keep_frozen = keep_frozen
        self.copies = {}
        self.pairs = []
        self.views = {}
        self.names = set()

    def graph(self, model, inputs, prefix):
        """Applies a Functional model's graph to symbolic inputs, a flat list."""
        tensors = {
            id(t): _as_input(x, t) for t, x in zip(model.inputs, inputs, strict=True)
        }
        for node in nodes(model):
            args, kwargs = node.arguments.fill_in(tensors)
            outputs = self.apply(node.operation, args, kwargs, prefix)
            for old, new in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
                tensors[id(old)] = new
        return [tensors[id(t)] for t in model.outputs]

    def apply(self, operation, args, kwargs, prefix):
        """Applies a copy of one operation; the outputs of a model are a flat list."""
        if isinstance(operation, SearchableLayer):
            choices = tuple(self.choices[d.name] for d in operation.decisions)
            self.views.update(operation.views(choices))
            layer = operation.picked(choices)
            return self.apply(layer, args, kwargs, f"{prefix}{operation.name}_")
        if not has_own_call(operation):
            operation = functional(operation)
            if hasattr(operation, "_nodes_by_depth"):
                inputs = flatten_inputs(operation, args, kwargs)
                return self.graph(operation, inputs, prefix)
        return self.copy(operation, prefix)(*args, **kwargs)

    def copy(self, operation, prefix):
        """A copy of a layer under a unique name; a layer used twice is copied once."""
        if id(operation) not in self.copies:
            config = operation.get_config()
            name = f"{prefix}{operation.name}"
            while name in self.names:
                name += "_"
            self.names.add(name)
            config["name"] = name
            if self.fresh and isinstance(operation, keras.layers.BatchNormalization):
                kept = self.keep_frozen and not operation.trainable
                if not kept and not config["center"] and not config["scale"]:
                    config["center"] = config["scale"] = True
            new = rebuild(operation, config)
            self.copies[id(operation)] = new
            if isinstance(operation, keras.layers.Layer):
                self.pairs.append((new, operation))
        return self.copies[id(operation)]


def _as_input(tensor, declared):
    """A tensor in the type and rank of a model's input, as Keras hands it on."""
    # Layers cast from one float type to another themselves.
    types = tensor.dtype, declared.dtype
    if types[0] != types[1] and not all(map(keras.backend.is_float_dtype, types)):
        tensor = ops.cast(tensor, declared.dtype)
    more = len(tensor.shape) - len(declared.shape)
    if more == 0:
        return tensor
    return ops.squeeze(tensor, -1) if more == 1 else ops.expand_dims(tensor, -1)
