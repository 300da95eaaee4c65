"""ElasticBlock: a choice of operation, of width and of bit widths that share weights.

As in Figure 3 (b) and (c) of the SPOS paper.

Example:
    >>> inputs = keras.Input((32, 32, 16))
    >>> x = SliceableConv2D((4, 8), 1, use_bias=False)(inputs)
    >>> x = SliceableConv2D((16, 16), 1)(SliceableBatchNormalization()(x))
    >>> block = ElasticBlock([keras.Model(inputs, x)], widths=("0.5x", "1.0x"))
"""

import types

import keras

from keras_spos.graph import has_own_call
from keras_spos.layers.choice_block import as_list, default_label
from keras_spos.layers.elastic import ElasticLayer
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.own_code import is_adaptable, rebuild
from keras_spos.space import Decision
from keras_spos.weight_slice import WeightSlice, placeholders


@keras.saving.register_keras_serializable("keras_spos")
class ElasticBlock(SearchableLayer):
    """Runs one of its options, at one width and one pair of bit widths.

    Every option is a Functional model at its largest width, which owns the weights. In
    it, elastic layers (`SliceableConv2D`, `ElasticQuantizedConv2D`, ...) say what they
    are at a setting; the other layers just take what width they are given. The width
    and the bit widths are one decision each, which all layers of the block share.

    Args:
        options: Functional models of one input and one output. The output has the same
            shape at every setting.
        labels: A label for each option. Defaults to names, as in `ChoiceBlock`.
        widths: A label for each width, or None if the width is not searched.
        bits: A label for each pair of bit widths, or None if they are not searched.
        name: The block's name; that of the decision of an option too. Those of width
            and bits are ``<name>_width`` and ``<name>_bits``.
        **kwargs: Other arguments of a layer.
    """

    def __init__(
        self, options, labels=None, widths=None, bits=None, name=None, **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.options = as_list(options, "Functional models")
        for option in self.options:
            if not hasattr(option, "_nodes_by_depth"):
                raise ValueError(
                    "An option of an ElasticBlock is a Functional model. "
                    f"Received: {option!r}"
                )
            if has_own_call(option):
                raise ValueError(
                    "An ElasticBlock makes its options anew for every width, from "
                    "their graphs. Expected models without a `call` of their own. "
                    f"Received: {option!r}"
                )
            for layer in option._flatten_layers():
                if is_adaptable(layer):
                    raise ValueError(
                        "An ElasticBlock makes its options anew for every width, which "
                        "loses what `adapt` has learned. Adapt a layer before the "
                        f"block instead. Received: {layer.name!r} in an option."
                    )
        self.labels = tuple(
            labels or map(default_label, range(len(self.options)), self.options)
        )
        self.widths = tuple(widths or ())
        self.bits = tuple(bits or ())
        if not self.options or len(self.labels) != len(self.options):
            raise ValueError(
                "Expected at least one option, and one label for each. Received: "
                f"{len(self.options)} options, labels={self.labels}"
            )
        if not self.decisions:
            raise ValueError(
                "An ElasticBlock with one option needs widths or bits to choose from. "
                "Received: neither."
            )
        # A namespace, so that Keras does not track the plain layers as the block's own.
        self._made = types.SimpleNamespace(picked={}, views={}, layers={})

    @property
    def decisions(self):
        """Which option, width and bit widths; those of which there are several."""
        found = []
        if len(self.options) > 1:
            found.append(Decision(self.name, self.labels))
        if self.widths:
            found.append(Decision(f"{self.name}_width", self.widths))
        if self.bits:
            found.append(Decision(f"{self.name}_bits", self.bits))
        return tuple(found)

    def picked(self, choices):
        """A Functional model of plain layers; its variables are placeholders."""
        if choices not in self._made.picked:
            self._make(choices)
        # Layers may have been frozen, or thawed, since.
        for new, layer in self._made.layers[choices]:
            if new.trainable != layer.trainable:
                new.trainable = layer.trainable
        return self._made.picked[choices]

    def views(self, choices):
        """Which parts of this block's weights the placeholders stand for."""
        self.picked(choices)
        return self._made.views[choices]

    def _make(self, choices):
        rest = list(choices)
        option = self.options[rest.pop(0) if len(self.options) > 1 else 0]
        width = rest.pop(0) if self.widths else None
        bits = rest.pop(0) if self.bits else None
        made = {}

        def plain(layer):
            # A layer that is used twice stays one layer.
            if id(layer) not in made:
                if isinstance(layer, ElasticLayer):
                    new = layer.at(width=width, bits=bits)
                    sources = layer.weights_at(bits=bits)
                else:
                    new = rebuild(layer, layer.get_config())
                    sources = getattr(layer, "weights", [])
                made[id(layer)] = new, layer, [*sources, *_seeds(layer)]
            return made[id(layer)][0]

        with placeholders():
            model = keras.models.clone_model(option, clone_function=plain)
        if model.output_shape != option.output_shape:
            raise ValueError(
                f"The output of {self.name!r} has the same shape at every setting. "
                f"Received: {option.output_shape} at the largest width, "
                f"{model.output_shape} at choices {choices}."
            )
        self._made.picked[choices] = model
        self._made.layers[choices] = [
            pair
            for new, layer, _ in made.values()
            if isinstance(layer, keras.layers.Layer)
            for pair in zip(new._flatten_layers(), layer._flatten_layers(), strict=True)
        ]
        self._made.views[choices] = {
            id(variable): WeightSlice(source, variable.shape)
            for new, _, sources in made.values()
            for variable, source in zip(
                [*getattr(new, "weights", []), *_seeds(new)], sources, strict=True
            )
        }

    def build(self, input_shape):
        """Creates what holds the current choice; the options are built."""
        self.add_choice_weights()

    def compute_output_spec(self, inputs, training=None):
        """The options' common output; an error if they differ."""
        specs = [option.compute_output_spec(inputs) for option in self.options]
        if len({(tuple(s.shape), s.dtype) for s in specs}) > 1:
            raise ValueError(
                f"All options of {self.name!r} must give outputs of one shape and "
                f"type. Received: {[(s.shape, s.dtype) for s in specs]}"
            )
        return specs[0]

    def compute_output_shape(self, input_shape):
        """The options' common output shape."""
        return self.options[0].compute_output_shape(input_shape)

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "options": [keras.saving.serialize_keras_object(o) for o in self.options],
            "labels": list(self.labels),
            "widths": list(self.widths),
            "bits": list(self.bits),
        }

    @classmethod
    def from_config(cls, config):
        """Inverse of `get_config`."""
        config = dict(config)
        config["options"] = [
            keras.saving.deserialize_keras_object(o) for o in config["options"]
        ]
        return cls(**config)


def _seeds(layer):
    """The states of a layer's seed generators, which are not among its weights."""
    variables = getattr(layer, "variables", [])
    return [v for v in variables if v.name == "seed_generator_state"]
