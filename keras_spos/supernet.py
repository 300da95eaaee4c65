"""Supernet: a Functional Keras model that trains and runs one path at a time.

Example:
    >>> inputs = keras.Input((32, 32, 3))
    >>> options = [keras.layers.Conv2D(8, k, padding="same") for k in (3, 5)]
    >>> x = ChoiceBlock(options)(inputs)
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> net = Supernet(inputs, keras.layers.Dense(10)(x))
    >>> net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> net.fit(images, labels)                                    # doctest: +SKIP
    >>> subnet = net.extract((1,))
"""

import copy
import functools
import json

import keras
from keras import ops

from keras_spos.extraction import extract, inherit
from keras_spos.graph_checks import (
    check_files_can_hold,
    check_no_mask_is_lost,
    check_none_is_hidden,
    warn_of_metrics_in_layers,
    warn_of_what_extract_cannot_rebuild,
)
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.path_trainer import PathTrainer
from keras_spos.samplers import UniformSampler
from keras_spos.signatures import network_signature
from keras_spos.space import SearchSpace


@keras.saving.register_keras_serializable("keras_spos")
class Supernet(PathTrainer):
    """A Functional model with searchable layers (SPOS, section 3, Equation 8).

    `fit` samples one path per training step and updates that path alone. `evaluate`,
    `predict` and calls run the current path (`path`, `set_path`). Compiling, callbacks,
    saving and loading are those of any Keras model. An optimizer's moving averages of
    weights (`use_ema`) move, and with `ema_overwrite_frequency` replace weights, on the
    path of a step alone; the averages of all replace all at the end of `fit`.

    Gradients of embeddings are dense, as in Keras on JAX: Adam and its like square the
    sum of the gradients of a row that a batch names twice, where Keras on TensorFlow
    sums their squares. On both they move rows that a batch does not name.

    Subclasses may have a `compute_loss`, such as one that distils a frozen teacher, and
    a `train_step` that calls that of this class. One that calls the model itself trains
    the current path alone.

    `keras.models.clone_model` copies the graph alone: Keras makes the copy from inputs,
    outputs and name, with the defaults of all else. Use
    ``Supernet.from_config(net.get_config())``, which keeps the rest.

    A step keeps what layers assign to their non-trainable weights. Layers that assign
    anything else (RNNs with ``stateful=True``, `SpectralNormalization`), or draw random
    numbers without a `keras.random.SeedGenerator` of their own, are refused when they
    run.

    Args:
        inputs: Symbolic inputs, as for `keras.Model`.
        outputs: Symbolic outputs.
        name: The model's name.
        sampler: Draws the path of each training step: an object with `draw` or
            `draw_step` (`keras_spos.samplers`), and `get_config` and `from_config` for
            saving. Defaults to `UniformSampler()`.
        seed: Paths and random layers draw from (seed, step), so that a resumed run
            repeats them.
        named_paths: Known architectures: a dict from name to path.
        recompute: Whether backward passes compute each block again from its input,
            instead of keeping what they need of it: less memory for more time. The
            results are the same; layers of one's own must draw random numbers through
            `keras.random`. May be set at any time, which compiles everything again.
    """

    def __init__(
        self,
        inputs,
        outputs,
        name=None,
        *,
        sampler=None,
        seed=0,
        named_paths=None,
        recompute=False,
        **kwargs,
    ):
        super().__init__(inputs, outputs, name=name, **kwargs)
        check_none_is_hidden(self)
        check_no_mask_is_lost(self)
        if not self.searchable_layers:
            raise ValueError(
                "A Supernet needs at least one searchable layer, such as a "
                "ChoiceBlock, in its graph. Received: none."
            )
        warn_of_what_extract_cannot_rebuild(self)
        warn_of_metrics_in_layers(self)
        self.space = SearchSpace(
            _read_decisions(self.searchable_layers),
            network_signature(self, SearchableLayer),
        )
        self.sampler = UniformSampler() if sampler is None else sampler
        self.seed = int(seed)
        self.recompute = recompute
        self.named_paths = {
            name: self.space.path(path) for name, path in (named_paths or {}).items()
        }

    @property
    def sampler(self):
        """What draws the path of each training step; may be set at any time."""
        return self._sampler

    @sampler.setter
    def sampler(self, sampler):
        draws = hasattr(sampler, "draw") or hasattr(sampler, "draw_step")
        if not draws or isinstance(sampler, type):
            raise ValueError(
                "Expected a sampler, an object with `draw` or `draw_step` such as "
                f"UniformSampler(). Received: {sampler!r}"
            )
        self._sampler = sampler

    # Paths

    @property
    def searchable_layers(self):
        """The searchable layers, in graph order."""
        return [op for op in self.operations if isinstance(op, SearchableLayer)]

    @property
    def path(self):
        """The current path, a tuple of integers."""
        values = {}
        for layer in self.searchable_layers:
            for decision, choice in zip(layer.decisions, layer.choices, strict=True):
                values[decision.name] = int(ops.convert_to_numpy(choice))
        return tuple(values[d.name] for d in self.space.decisions)

    def set_path(self, path):
        """Makes `path` the one that `evaluate`, `predict` and calls run.

        Args:
            path: A tuple of integers, a description, or a name in `named_paths`.
        """
        path = self._as_path(path)
        chosen = {d.name: i for d, i in zip(self.space.decisions, path, strict=True)}
        for layer in self.searchable_layers:
            for decision, choice in zip(layer.decisions, layer.choices, strict=True):
                choice.assign(chosen[decision.name])
        # For a callback, in the middle of `evaluate` or `predict`.
        self._running_path, self._running_penalty = path, None

    def extract(self, path=None, fresh=False):
        """The subnet on a path, as a stock Keras model that loads without this package.

        Args:
            path: A path, a description, or a name in `named_paths`. Defaults to the
                current path.
            fresh: False copies the supernet's weights. True initializes new ones for
                retraining, and gives batch norms that have neither scale nor offset
                both, as the papers' retrained networks have. What frozen layers hold
                (such as a pretrained backbone's), and what layers learned by `adapt`,
                is copied anyway.

        Returns:
            A `keras.Model` with its own weights. To load a file of a quantized one,
            import this package, whose layers those are.
        """
        path = self.path if path is None else self._as_path(path)
        return extract(self, self.space, path, fresh=fresh)

    def inherit(self, donor, path=None):
        """Takes over a network's weights, by name, where a path uses them.

        Such as those of a trained float network, to start a quantized supernet from:
        its layers must be named as those of ``extract(path)``.

        Args:
            donor: A Functional model.
            path: A path, a description, or a name in `named_paths`. Defaults to the
                current path.

        Returns:
            Names "layer/weight" of the path's weights that the donor lacks; they stay.
        """
        path = self.path if path is None else self._as_path(path)
        return inherit(self, self.space, path, donor)

    def _as_path(self, path):
        if isinstance(path, str):
            if path not in self.named_paths:
                raise ValueError(
                    f"Known architectures are {sorted(self.named_paths)}. "
                    f"Received: {path!r}."
                )
            return self.named_paths[path]
        return self.space.path(path)

    # Saving

    @functools.wraps(PathTrainer.save)
    def save(self, *args, **kwargs):
        """Keras' `save`."""
        # What cannot be saved is to fail before Keras has emptied the file.
        json.dumps(keras.saving.serialize_keras_object(self))
        return super().save(*args, **kwargs)

    def get_config(self):
        """Mirrors `__init__`, with the graph as `keras.Model` describes it."""
        if not all(hasattr(self.sampler, f"{x}_config") for x in ("get", "from")):
            raise ValueError(
                "To save a supernet takes a sampler with `get_config` and "
                f"`from_config`. Received: {self.sampler!r}"
            )
        check_files_can_hold(self)
        return {
            **super().get_config(),
            "sampler": keras.saving.serialize_keras_object(self.sampler),
            "seed": self.seed,
            "named_paths": {
                name: list(path) for name, path in self.named_paths.items()
            },
            "recompute": self.recompute,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Inverse of `get_config`."""
        config = copy.deepcopy(config)  # Keras empties parts of it.
        names = ("sampler", "seed", "named_paths", "recompute")
        own = {name: config.pop(name) for name in names if name in config}
        own["sampler"] = keras.saving.deserialize_keras_object(
            own["sampler"], custom_objects=custom_objects
        )
        if "layers" not in config:
            # Of a subclass that makes its graph itself, as Keras makes such a model.
            model = cls(**config)
            named = own.pop("named_paths")
            model.named_paths = {name: model.space.path(p) for name, p in named.items()}
            for name, value in own.items():
                setattr(model, name, value)
            return model
        model = keras.Model.from_config(config, custom_objects=custom_objects)
        return cls(
            model.input, model.output, name=model.name, trainable=model.trainable, **own
        )


def _read_decisions(layers):
    decisions = {}
    for layer in layers:
        for decision in layer.decisions:
            known = decisions.setdefault(decision.name, decision)
            if known != decision:
                raise ValueError(
                    f"Layers that share decision {decision.name!r} must offer the same "
                    f"options. Received: {known.options} and {decision.options}."
                )
    return decisions.values()
