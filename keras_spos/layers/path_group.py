"""PathGroup: candidate paths, and the layers that all of their sums pass.

    y = norm_k(after(sum of k paths of before(x)))         (MixPath, Algorithm 1)

Example:
    >>> group = PathGroup(
    ...     [keras.layers.DepthwiseConv2D(k, padding="same") for k in (3, 5, 7)],
    ...     before=keras.layers.Conv2D(48, 1), after=keras.layers.Conv2D(16, 1),
    ...     norm=ShadowBatchNormalization(2), labels=("k3", "k5", "k7"))
"""

import itertools

import keras

from keras_spos.layers.choice_block import as_layer, as_list, build_part, labels_of
from keras_spos.layers.shadow_batch_norm import ShadowBatchNormalization


@keras.saving.register_keras_serializable("keras_spos")
class PathGroup(keras.layers.Layer):
    """A part of a `MultiPathBlock`, which runs one of its groups.

    It only holds layers, each of them a Keras layer, a Keras model or a list of layers.

    Args:
        paths: Candidate layers that map one input to outputs of one shape.
        before: A layer that the paths' common input passes, or None.
        after: A layer that the paths' sum passes, or None.
        norm: A `ShadowBatchNormalization`, or None for none.
        labels: A readable label for each path. Defaults to names, as in `ChoiceBlock`.
        subsets: The subsets of paths on offer, as tuples of indices. Defaults to all
            that are not empty and not larger than the block's `max_paths`.
        name: The group's name, by which the block's options are labelled.
    """

    def __init__(
        self,
        paths,
        before=None,
        after=None,
        norm=None,
        labels=None,
        subsets=None,
        name=None,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.paths = [as_layer(path) for path in as_list(paths, "paths")]
        if not self.paths:
            raise ValueError("A PathGroup needs at least one path. Received: none.")
        self.before = None if before is None else as_layer(before)
        self.after = None if after is None else as_layer(after)
        if norm is not None and not isinstance(norm, ShadowBatchNormalization):
            raise ValueError(
                f"norm is a ShadowBatchNormalization or None. Received: {norm!r}"
            )
        self.norm = norm
        self.labels = labels_of(self.paths, labels, "path")
        indices = range(len(self.paths))
        self.subsets = subsets and tuple(tuple(int(i) for i in s) for s in subsets)
        for subset in self.subsets or ():
            if not subset or len(set(subset)) < len(subset) or set(subset) - {*indices}:
                raise ValueError(
                    "A subset is of one path or more, each named once by its index, "
                    f"0 to {len(self.paths) - 1}. Received: {subset}"
                )

    def offered(self, max_paths):
        """The subsets on offer, the smallest first, of at most `max_paths` paths."""
        if self.subsets:
            return [s for s in self.subsets if len(s) <= max_paths]
        indices, most = range(len(self.paths)), min(max_paths, len(self.paths))
        counts = range(1, most + 1)
        return [s for k in counts for s in itertools.combinations(indices, k)]

    def build(self, input_shape):
        """Builds the layers in the order in which they run."""
        shape = _build(self.before, input_shape)
        shapes = [_build(path, shape) for path in self.paths]
        for label, other in zip(self.labels, shapes, strict=True):
            if tuple(other) != tuple(shapes[0]):
                raise ValueError(
                    f"All paths of {self.name!r} must give outputs of one shape. "
                    f"Received: {self.labels[0]} gives {tuple(shapes[0])}, {label} "
                    f"gives {tuple(other)}."
                )
        _build(self.norm, _build(self.after, shapes[0]))

    def get_config(self):
        """Mirrors `__init__`."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "paths": [serialize(path) for path in self.paths],
            "before": serialize(self.before),
            "after": serialize(self.after),
            "norm": serialize(self.norm),
            "labels": list(self.labels),
            "subsets": self.subsets and [list(s) for s in self.subsets],
        }

    @classmethod
    def from_config(cls, config):
        """Inverse of `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        config["paths"] = [deserialize(path) for path in config["paths"]]
        for part in ("before", "after", "norm"):
            config[part] = config[part] and deserialize(config[part])
        return cls(**config)


def _build(layer, shape):
    """Builds a layer, if there is one, and returns its output shape."""
    if layer is None:
        return shape
    dtype = layer.compute_dtype
    if not layer.built:
        build_part(layer, shape, dtype)
    return layer.compute_output_spec(keras.KerasTensor(shape, dtype)).shape
