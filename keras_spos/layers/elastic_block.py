"""ElasticBlock: a choice of operation, of width and of bit widths that share weights.

As in Figure 3 (b) and (c) of the SPOS paper.

Example:
    >>> inputs = keras.Input((32, 32, 16))
    >>> x = SliceableConv2D((4, 8), 1, use_bias=False)(inputs)
    >>> x = SliceableConv2D((16, 16), 1)(SliceableBatchNormalization()(x))
    >>> block = ElasticBlock([keras.Model(inputs, x)], widths=("0.5x", "1.0x"))
"""

import keras

from keras_spos.graph import has_own_call
from keras_spos.layers.choice_block import BlockOfOptions, as_list, labels_of
from keras_spos.layers.elastic import ElasticLayer
from keras_spos.own_code import is_adaptable, rebuild
from keras_spos.space import Decision
from keras_spos.weight_slice import WeightSlice, placeholders


@keras.saving.register_keras_serializable("keras_spos")
class ElasticBlock(BlockOfOptions):
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
        decision: Name of the decision of an option; those of width and bits are
            ``<decision>_width`` and ``<decision>_bits``. Blocks that give the same name
            share these. Defaults to the block's own name.
        name: The block's name.
        **kwargs: Other arguments of a layer.
    """

    def __init__(
        self,
        options,
        labels=None,
        widths=None,
        bits=None,
        decision=None,
        name=None,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.options = as_list(options, "Functional models")
        self.widths = tuple(widths or ())
        self.bits = tuple(bits or ())
        if not self.options:
            raise ValueError("Expected at least one option. Received: 0 options.")
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
            self._check_elastic_layers(option)
        self._check_what_settings_decide()
        self.labels = labels_of(self.options, labels, "option")
        self.decision = decision or self.name
        if not self.decisions:
            raise ValueError(
                "An ElasticBlock with one option needs widths or bits to choose from. "
                "Received: neither."
            )
        # Past Keras' `__setattr__`, which tracks: plain layers are not its own.
        vars(self)["_made"] = {}

    def _check_elastic_layers(self, option):
        """Refuses elastic layers that know no layer for some of this block's settings.

        Those inside of other layers would stay as they are.
        """
        own = {id(layer) for layer in option.layers}
        for layer in option._flatten_layers():
            if not isinstance(layer, ElasticLayer):
                continue
            if id(layer) not in own:
                raise ValueError(
                    "Expected elastic layers in the graph of an option. Received: "
                    f"{layer.name!r}, inside another layer or model of {option.name!r}."
                )
            for kind, labels in (("widths", self.widths), ("bits", self.bits)):
                count = len(getattr(layer, kind, labels))
                if labels and count != len(labels):
                    raise ValueError(
                        f"Expected {len(labels)} {kind} in each elastic layer that has "
                        f"some, as the block has. Received: {layer.name!r}, with "
                        f"{count}."
                    )

    def _check_what_settings_decide(self):
        """Refuses widths or bits that no layer has: paths would be the same network."""
        layers = [x for option in self.options for x in option.layers]
        elastic = [x for x in layers if isinstance(x, ElasticLayer)]
        for kind in ("widths", "bits"):
            labels = getattr(self, kind)
            if len(labels) > 1 and not any(hasattr(layer, kind) for layer in elastic):
                raise ValueError(
                    f"Expected elastic layers with {len(labels)} {kind} in the options "
                    f"of a block with {kind} to choose from. Received: none in "
                    f"{self.name!r}."
                )

    @property
    def decisions(self):
        """Which option, width and bit widths; those of which there are several."""
        found = []
        if len(self.options) > 1:
            found.append(Decision(self.decision, self.labels))
        if self.widths:
            found.append(Decision(f"{self.decision}_width", self.widths))
        if self.bits:
            found.append(Decision(f"{self.decision}_bits", self.bits))
        return tuple(found)

    def picked(self, choices):
        """A Functional model of plain layers; its variables are placeholders."""
        model, pairs, _ = self._plain(choices)
        # Layers may have been frozen, or thawed, since.
        for new, layer in pairs:
            if new.trainable != layer.trainable:
                new.trainable = layer.trainable
        return model

    def views(self, choices):
        """Which parts of this block's weights the placeholders stand for."""
        _, _, views = self._plain(choices)
        return views

    def _plain(self, choices):
        """`_make`, once for the same choices."""
        if choices not in self._made:
            self._made[choices] = self._make(choices)
        return self._made[choices]

    def _make(self, choices):
        """What `choices` runs; pairs of its layers and of this block's; `views`."""
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
        pairs = [
            pair
            for new, layer, _ in made.values()
            if isinstance(layer, keras.layers.Layer)
            for pair in zip(new._flatten_layers(), layer._flatten_layers(), strict=True)
        ]
        views = {
            id(variable): WeightSlice(source, variable.shape)
            for new, _, sources in made.values()
            for variable, source in zip(
                [*getattr(new, "weights", []), *_seeds(new)], sources, strict=True
            )
        }
        return model, pairs, views

    def build(self, input_shape):
        """Creates what holds the current choice; the options are built."""
        self.add_choice_weights()

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "widths": list(self.widths),
            "bits": list(self.bits),
            "decision": None if self.decision == self.name else self.decision,
        }


def _seeds(layer):
    """The states of a layer's seed generators, which are not among its weights."""
    variables = getattr(layer, "variables", [])
    return [v for v in variables if v.name == "seed_generator_state"]
