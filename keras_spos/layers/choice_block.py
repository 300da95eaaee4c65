"""ChoiceBlock: one of several layers, as in Figure 3 (a) of the SPOS paper.

Example:
    >>> inputs = keras.Input((32, 32, 3))
    >>> x = ChoiceBlock([keras.layers.Conv2D(8, k, padding="same") for k in (3, 5, 7)],
    ...                 labels=("k3", "k5", "k7"))(inputs)
"""

import contextlib
import inspect
import re
from collections.abc import Iterable

import keras
from keras.src.backend import get_keras_mask

from keras_spos.graph import functional
from keras_spos.layers.searchable import MASKED, SearchableLayer
from keras_spos.own_code import is_stock
from keras_spos.space import Decision


class BlockOfOptions(SearchableLayer):
    """Base of blocks with `options`, layers of one output, and their `labels`."""

    def compute_output_spec(self, inputs, training=None):
        """The options' common output; an error if they differ."""
        specs = [option.compute_output_spec(inputs) for option in self.options]
        return common_spec(self, specs, self.labels)

    def compute_output_shape(self, input_shape):
        """The options' common output shape."""
        return self.options[0].compute_output_shape(input_shape)

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "options": [keras.saving.serialize_keras_object(o) for o in self.options],
            "labels": list(self.labels),
        }

    @classmethod
    def from_config(cls, config):
        """Inverse of `get_config`."""
        options = config["options"]
        options = [keras.saving.deserialize_keras_object(o) for o in options]
        return cls(**{**config, "options": options})


@keras.saving.register_keras_serializable("keras_spos")
class ChoiceBlock(BlockOfOptions):
    """Runs exactly one of its options (SPOS, section 3, "choice block").

    It belongs into a `keras_spos.Supernet`, whose `fit` draws an option for each step.
    In a plain `keras.Model` its current option is trained and no other; TensorFlow's
    `fit` warns of that, JAX's does not.

    Args:
        options: Candidate layers. Each is a Keras layer, a Keras model (a small graph),
            or a list of layers to run in turn; of none, to pass the input on. All map
            the block's input to outputs of one shape. They may share layers, such as
            lists of two and of three layers that begin alike; `save_weights` saves
            that, `save` refuses to.
        labels: A readable label for each option. Defaults to the options' names, or to
            class and number where Keras made the names.
        decision: Name of the decision. Blocks that give the same name share one
            integer of the path. Defaults to the block's own name.
        name: The block's name.

    Call arguments:
        inputs: A tensor, or a list of tensors if options take one.
        training: Whether the option taken runs in training mode.
    """

    def __init__(self, options, labels=None, decision=None, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.options = [as_layer(option) for option in as_list(options, "options")]
        if not self.options:
            raise ValueError("A ChoiceBlock needs at least one option. Received: none.")
        self.labels = labels_of(self.options, labels, "option")
        self.decision = decision or self.name

    @property
    def decisions(self):
        """One decision: which option."""
        return (Decision(self.decision, self.labels),)

    def picked(self, choices):
        """The option numbered ``choices[0]``."""
        return self.options[choices[0]]

    def build(self, input_shape):
        """Builds every option for the block's input shape."""
        for option in self.options:
            if not option.built:
                build_part(option, input_shape, self.compute_dtype)
        self.add_choice_weights()

    def compute_output_spec(self, inputs, training=None):
        """The options' common output; an error if they differ."""
        spec = super().compute_output_spec(inputs)
        for option in self.options:
            if _makes_mask(option, inputs):
                raise ValueError(MASKED.format(option.name))
        return spec

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "decision": self.decision}


def build_part(layer, input_shape, dtype):
    """Builds one of the layers that a block is made of."""
    if getattr(layer.build, "_is_default", False):
        # As Keras does at the first call: layers inside it are built by being called.
        inputs = keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor(shape, dtype), input_shape
        )
        with contextlib.suppress(Exception):  # It may want integers.
            layer.compute_output_spec(inputs)
        layer.build(input_shape)
        return
    parameters = list(inspect.signature(layer.build).parameters.values())
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    if len(needed) > 1:
        raise ValueError(
            "An option computes on one argument: put a layer that takes several into a "
            f"Functional model. Received: {type(layer).__name__} {layer.name!r}, "
            f"which is built for {needed}."
        )
    layer.build(input_shape)


def as_layer(option):
    """A layer as it is, a list of layers as one."""
    if isinstance(option, (list, tuple)):
        option = keras.Sequential(list(option)) if option else keras.layers.Identity()
    if not isinstance(option, keras.layers.Layer):
        raise ValueError(
            "An option is a Keras layer, a Keras model or a list of layers. "
            f"Received: {option!r}"
        )
    return option


def as_list(items, expected):
    """A list of several items; an error for one that is none itself."""
    if isinstance(items, keras.layers.Layer) or not isinstance(items, Iterable):
        raise ValueError(f"Expected a list of {expected}. Received: {items!r}")
    return list(items)


def labels_of(layers, labels, kind):
    """Labels as given, or the layers' own: one for each layer, of a kind."""
    labels = tuple(labels or map(_default_label, range(len(layers)), layers))
    if len(labels) != len(layers):
        raise ValueError(
            f"Expected one label per {kind} ({len(layers)}). Received: labels={labels}"
        )
    return labels


def _default_label(index, option):
    """An option's name, or class and number where Keras made the name."""
    # Names that Keras makes count up within a process: rebuilt, the same block would
    # have other labels, and be another space to a checkpoint.
    kind = type(option).__name__
    automatic = re.fullmatch(
        kind.lower() + r"\d*", option.name.replace("_", "").lower()
    )
    return f"{kind}_{index}" if automatic else option.name


def _makes_mask(option, inputs):
    """Whether an option's output has a Keras mask, if that is known before it runs."""
    graph = functional(option)
    if hasattr(graph, "_nodes_by_depth"):
        return any(get_keras_mask(t) is not None for t in graph.outputs)
    if not (is_stock(type(option)) and option.supports_masking):
        return False
    masks = keras.tree.flatten(option.compute_mask(inputs, None))
    return any(mask is not None for mask in masks)


def common_spec(block, specs, labels):
    """The first spec of an output; an error if one of the others differs."""
    described = [_shape_and_type(spec) for spec in specs]
    for label, other in zip(labels, described, strict=True):
        if other != described[0]:
            raise ValueError(
                f"All options of {block.name!r} must give outputs of one shape and "
                f"type. Received: {labels[0]} gives {described[0]}, {label} "
                f"gives {other}."
            )
    return specs[0]


def _shape_and_type(spec):
    return keras.tree.map_structure(lambda t: (tuple(t.shape), t.dtype), spec)
