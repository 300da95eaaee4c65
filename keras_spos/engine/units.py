"""Units: the pieces of a network that are compiled.

A unit is a run of fixed operations, or one option of a searchable layer. Units that
compute the same thing on other weights have the same `key` and share their compiled
functions: the 80 options of the SPOS space have 32 keys.
"""

import contextlib
import functools

import keras
from keras import ops
from keras.src.backend import get_keras_mask
from keras.src.backend.common import global_state
from keras.src.layers.layer import CallContext

from keras_spos.engine.lean import lean
from keras_spos.graph import parts_of, unique
from keras_spos.layers.searchable import MASKED

APPLIED_TWICE = (
    "A batch norm is applied more than once on this path: no one mean and variance "
    "fit its inputs. Give each place a batch norm of its own, or score with "
    "recalibrate=False."
)


class Unit:
    """A piece of a network: a function of inputs and of its own variables.

    Args:
        call: ``call(inputs, training) -> outputs``, lists of tensors.
        layers: The layers that `call` runs; their variables are the unit's.
        key: Units with equal keys compute the same function of inputs and variables.
        views: What variables stand for: a dict from id to `WeightSlice`.
        operations: What `call` runs beside layers.
        logits: Keys of outputs whose logits `call` gives after all outputs.

    Attributes:
        trainable: What the unit reads and training updates: variables, or slices.
        non_trainable: The rest of what it reads.
    """

    def __init__(self, call, layers, key, views=None, operations=(), logits=()):
        self.call = call
        self.logits = logits
        self.layers = layers
        self.operations = operations
        self._views = views or {}
        self._trainable = _variables(layers, "trainable_variables")
        self._non_trainable = _variables(layers, "non_trainable_variables")
        self.trainable = [self._source(v) for v in self._trainable]
        self.non_trainable = [self._source(v) for v in self._non_trainable]
        # Random draws must repeat in a resumed run, so the seed of each step is given
        # rather than kept. (Seed generators are not saved with a model anyway.)
        self.is_seed = [v.name == "seed_generator_state" for v in self._non_trainable]
        self.key = (
            key,
            tuple(_variable_key(v) for v in self._trainable),
            tuple(_variable_key(v) for v in self._non_trainable),
        )

    def _source(self, variable):
        return self._views.get(id(variable), variable)

    @functools.cached_property
    def norms(self):
        """(moving mean, moving variance) of batch norms in training."""
        return [
            (self._source(layer.moving_mean), self._source(layer.moving_variance))
            for layer in self._all_layers()
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]

    @property
    def synchronized(self):
        """Names of batch norms whose statistics are those of all replicas."""
        layers = self._all_layers()
        return [x.name for x in layers if getattr(x, "synchronized", False)]

    def _all_layers(self):
        return unique(x for y in self.layers for x in y._flatten_layers())

    def _lean(self, substitutes):
        """The context in which layers run at less cost."""
        if not substitutes:
            return contextlib.nullcontext()
        whole = [*self.layers, *self.operations]
        return lean(unique(x for y in whole for x in parts_of(y)), substitutes)

    @contextlib.contextmanager
    def _norms_in_training(self):
        """Inside, batch norms work as in training even where all else does not.

        Dropout, noise and the like stay off: what is measured is for inference.
        """
        norms = [
            layer
            for layer in self._all_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]

        measured = set()

        def in_training(norm):
            call = norm.call

            def run(*args, **kwargs):
                if id(norm) in measured:
                    raise ValueError(APPLIED_TWICE)
                measured.add(id(norm))
                return call(*args, **{**kwargs, "training": True})

            return run

        # `lean` may have replaced calls too.
        names = ("call", "renorm", "momentum")
        before = [{n: vars(x)[n] for n in names if n in vars(x)} for x in norms]
        try:
            for norm in norms:
                # Past Keras' `__setattr__`, which tracks. With renorm, a norm corrects
                # by averages of batches before, and averages standard deviations.
                # Without momentum, moving averages are what they average.
                vars(norm).update(call=in_training(norm), renorm=False, momentum=0.0)
            yield
        finally:
            for norm, own in zip(norms, before, strict=True):
                for name in names:
                    del vars(norm)[name]
                vars(norm).update(own)

    def measure(self, inputs, trainable, non_trainable, substitutes=None):
        """Calls the unit on normalized inputs, and measures its batch norms on them.

        Args:
            inputs: Tensors.
            trainable: Values of the trainable variables.
            non_trainable: Values of the others.
            substitutes: The backend's for `lean`, or None.

        Returns:
            The outputs; mean and variance of each of `norms`, as one list.
        """
        averages = {id(v) for norm in self.norms for v in norm}
        start = [
            ops.zeros_like(x) if id(v) in averages else x
            for v, x in zip(self.non_trainable, non_trainable, strict=True)
        ]
        with self._lean(substitutes), self._norms_in_training():
            outputs, state, _ = self.run(inputs, trainable, start, training=False)
        values = {id(v): x for v, x in zip(self.non_trainable, state, strict=True)}
        return outputs, [values[id(v)] for norm in self.norms for v in norm]

    @functools.cached_property
    def regularized(self):
        """(index among `trainable`, id) of the variables with a regularizer."""
        return [
            (i, id(source))
            for i, (v, source) in enumerate(
                zip(self._trainable, self.trainable, strict=True)
            )
            if v.regularizer is not None
        ]

    def penalty(self, index, value):
        """Regularization loss of trainable variable `index` at a value."""
        return _as_loss(self._trainable[index].regularizer(value))

    def run(
        self,
        inputs,
        trainable,
        non_trainable,
        training,
        unpenalized=(),
        substitutes=None,
        scope_class=keras.StatelessScope,
    ):
        """Calls the unit on given values of its variables, without side effects.

        Args:
            inputs: Tensors.
            trainable: Values of the trainable variables.
            non_trainable: Values of the others.
            training: Whether to run in training mode.
            unpenalized: Indices of trainable variables whose regularization loss is
                counted elsewhere.
            substitutes: The backend's for `lean`, or None.
            scope_class: The class of the scope that keeps what layers assign.

        Returns:
            The outputs, the new values of the non-trainable variables, and the sum of
            losses that layers add and, in training, of weights' regularization losses
            (None if there are none).
        """
        mapping = [
            *zip(self._trainable, trainable, strict=True),
            *zip(self._non_trainable, non_trainable, strict=True),
        ]
        with scope_class(mapping, collect_losses=True) as scope:
            given = dict(scope.state_mapping)
            with self._lean(substitutes), _one_call(self.layers):
                outputs = self.call(inputs, training)
            self._check_assigned(given, scope.state_mapping)
            if any(get_keras_mask(y) is not None for y in outputs):
                raise ValueError(MASKED.format(self.layers[-1].name))
            losses = [
                _as_loss(x) for y in self._all_layers() for x in y._get_own_losses()
            ]
            if training:
                losses += [
                    self.penalty(i, trainable[i])
                    for i, _ in self.regularized
                    if i not in unpenalized
                ]
        state = [scope.get_current_value(v) for v in self._non_trainable]
        penalty = functools.reduce(lambda a, b: a + b, losses) if losses else None
        return outputs, state, penalty

    def _check_assigned(self, before, after):
        """Raises if layers assigned what a step does not keep."""
        kept = {id(v) for v in self._non_trainable}
        # The supernet has warned of these.
        kept |= {id(v) for x in self.layers for v in x.metrics_variables}
        if any(x is not before.get(k) for k, x in after.items() if k not in kept):
            raise ValueError(
                "A step keeps what layers assign to their non-trainable weights, and "
                "would lose all else: the states of RNNs with stateful=True, trainable "
                "weights (SpectralNormalization), random numbers without a "
                "keras.random.SeedGenerator of the layer's own. Received: such a layer "
                f"among {[layer.name for layer in self.layers]}."
            )


@contextlib.contextmanager
def _one_call(layers):
    """Inside, layers are parts of one call, as those of a model are.

    In a call of its own, a layer forgets the losses that it added in calls before.
    """
    for layer in layers:
        layer._clear_losses()
    name = "current_call_ctx"
    before = global_state.get_global_attribute(name)
    global_state.set_global_attribute(name, CallContext(entry_layer=None))
    try:
        yield
    finally:
        global_state.set_global_attribute(name, before)


def _variable_key(variable):
    return tuple(variable.shape), variable.dtype


def _variables(layers, attribute):
    return unique(v for layer in layers for v in getattr(layer, attribute))


def _as_loss(x):
    """A scalar of at least single precision, whatever a layer computes in."""
    return ops.sum(ops.cast(x, keras.backend.result_type(x.dtype, "float32")))
