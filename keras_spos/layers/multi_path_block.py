"""MultiPathBlock: the sum of a few of several layers, MixPath's Figure 1.

Example:
    >>> inputs = keras.Input((32, 32, 16))
    >>> paths = [
    ...     keras.layers.Conv2D(16, k, padding="same", name=f"k{k}") for k in (3, 5, 7)]
    >>> x = MultiPathBlock(paths, max_paths=2, name="block")(inputs)
    >>> # Options: k3, k5, k7, k3+k5, k3+k7, k5+k7.
"""

import keras
from keras import layers

from keras_spos.layers.choice_block import as_list, common_spec
from keras_spos.layers.path_group import PathGroup
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.layers.shadow_batch_norm import ShadowBatchNormalization
from keras_spos.space import Decision


@keras.saving.register_keras_serializable("keras_spos")
class MultiPathBlock(SearchableLayer):
    """Runs and sums up to `max_paths` of its candidate paths (MixPath, section 3).

    The block is one decision, whose options are the non-empty subsets of at most
    `max_paths` paths of a group. With ``max_paths=1`` that is SPOS's choice of one.

    Args:
        groups: The `PathGroup`s of which one is run, such as one for each expansion
            ratio. Or candidate layers, which make one group whose sums pass a
            `ShadowBatchNormalization`.
        max_paths: The paper's m, the largest number of paths that run together.
        decision: Name of the decision. Blocks that give the same name share one
            integer of the path. Defaults to the block's own name.
        name: The block's name.

    Call arguments:
        inputs: A tensor.
        training: Whether the paths taken run in training mode.
    """

    def __init__(self, groups, max_paths=1, decision=None, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        if max_paths < 1:
            raise ValueError(
                f"Expected max_paths >= 1. Received: max_paths={max_paths}"
            )
        groups = as_list(groups, "PathGroups or layers")
        are_groups = {isinstance(group, PathGroup) for group in groups}
        if len(are_groups) != 1:
            raise ValueError(
                "A MultiPathBlock takes PathGroups, or layers, at least one. "
                f"Received: {groups}"
            )
        if not are_groups.pop():
            norm = ShadowBatchNormalization(max_paths, name=f"{self.name}_norm")
            groups = [PathGroup(groups, norm=norm, name=f"{self.name}_paths")]
        for group in groups:
            most = max(map(len, group.offered(max_paths)), default=0)
            if group.norm is not None and group.norm.max_paths < most:
                raise ValueError(
                    f"{group.norm.name!r} is for up to {group.norm.max_paths} paths. "
                    f"Received: max_paths={max_paths} and a group that offers {most}."
                )
        self.groups = groups
        self.max_paths = max_paths
        self.decision = decision or self.name
        # (number of the group, indices of its paths) of each option.
        self.options = tuple(
            (number, subset)
            for number, group in enumerate(groups)
            for subset in group.offered(max_paths)
        )
        labels = [
            "+".join(groups[number].labels[i] for i in subset)
            for number, subset in self.options
        ]
        if len(groups) > 1:
            labels = [
                f"{groups[number].name}:{label}"
                for (number, _), label in zip(self.options, labels, strict=True)
            ]
        self._decisions = (Decision(self.decision, tuple(labels)),)
        # In the place of what one group has and another lacks.
        self._nothing = layers.Identity(dtype=self.dtype_policy)
        # Past Keras' `__setattr__`, which tracks: these hold the groups' own layers.
        vars(self)["_models"] = {}

    @property
    def decisions(self):
        """One decision: which subset of which group's paths."""
        return self._decisions

    def stages(self, choices):
        """What runs before the paths, the paths, and what their sum passes."""
        number, subset = self.options[choices[0]]
        group = self.groups[number]
        stages = [[group.paths[i] for i in subset]]
        if any(g.before is not None for g in self.groups):
            stages.insert(0, [group.before or self._nothing])
        if any(g.after is not None for g in self.groups):
            stages.append([group.after or self._nothing])
        if any(g.norm is not None for g in self.groups):
            norm = group.norm and group.norm.norm(len(subset))
            stages.append([norm or self._nothing])
        return stages

    def picked(self, choices):
        """A model of the layers that `choices` runs; it shares their weights."""
        choice = choices[0]
        if choice not in self._models:
            dtype = vars(self).get("_input_dtype", self.compute_dtype)
            x = inputs = keras.Input(self._input_shape[1:], dtype=dtype)
            for stage in self.stages(choices):
                outputs = [layer(x) for layer in stage]
                add = layers.Add(dtype=self.dtype_policy)
                x = outputs[0] if len(outputs) == 1 else add(outputs)
            self._models[choice] = keras.Model(inputs, x, name=self.name)
        return self._models[choice]

    def build(self, input_shape):
        """Builds every group for the block's input shape."""
        vars(self)["_input_shape"] = tuple(input_shape)
        for group in self.groups:
            if not group.built:
                group.build(input_shape)
        self.add_choice_weights()

    def compute_output_spec(self, inputs, training=None):
        """The groups' common output; an error if they differ."""
        # Integers, such as words, come as they are; half precision would round them.
        if not keras.backend.is_float_dtype(inputs.dtype):
            vars(self)["_input_dtype"] = inputs.dtype
        numbers = [number for number, _ in self.options]
        groups = list(dict.fromkeys(numbers))
        firsts = [self.picked((numbers.index(number),)) for number in groups]
        specs = [first.compute_output_spec(inputs) for first in firsts]
        return common_spec(self, specs, [self.groups[n].name for n in groups])

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "groups": [keras.saving.serialize_keras_object(g) for g in self.groups],
            "max_paths": self.max_paths,
            "decision": self.decision,
        }

    @classmethod
    def from_config(cls, config):
        """Inverse of `get_config`."""
        config = dict(config)
        config["groups"] = [
            keras.saving.deserialize_keras_object(g) for g in config["groups"]
        ]
        return cls(**config)
