"""Cuts a Functional model into units, the pieces that are compiled.

A unit is a run of fixed operations, or one option of a searchable layer. Units that
compute the same thing on other weights have the same `key` and share their compiled
functions: the 80 options of the SPOS space have 32 keys.
"""

import contextlib
import dataclasses
import functools

import keras
from keras import ops
from keras.src.backend import get_keras_mask

from keras_spos.engine.lean import lean
from keras_spos.graph import nodes
from keras_spos.layers.searchable import MASKED, SearchableLayer
from keras_spos.signatures import signature

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

    Attributes:
        trainable: What the unit reads and training updates: variables, or slices.
        non_trainable: The rest of what it reads.
    """

    def __init__(self, call, layers, key, views=None, operations=()):
        self.call = call
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
        """(moving mean, moving variance, momentum) of batch norms in training."""
        return [
            (
                self._source(layer.moving_mean),
                self._source(layer.moving_variance),
                layer.momentum,
            )
            for layer in self._all_layers()
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]

    def _all_layers(self):
        return _unique_objects(x for y in self.layers for x in y._flatten_layers())

    def _all_operations(self):
        layers = self._all_layers()
        # A Functional model's operations are more than its layers.
        inner = [x for y in layers for x in getattr(y, "operations", ())]
        return _unique_objects([*layers, *self.operations, *inner])

    @contextlib.contextmanager
    def measuring(self, substitutes=None):
        """Inside, batch norms work as in training even where all else does not.

        Dropout, noise and the like stay off: what is measured is for inference.

        Args:
            substitutes: The backend's for `lean`, or None.
        """
        with contextlib.ExitStack() as stack:
            if substitutes:
                stack.enter_context(lean(self._all_operations(), substitutes))
            stack.enter_context(self._norms_in_training())
            yield

    @contextlib.contextmanager
    def _norms_in_training(self):
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

        # `lean` may have replaced them too.
        before = [vars(norm).get("call") for norm in norms]
        try:
            for norm in norms:
                # Past Keras' `__setattr__`, which tracks.
                vars(norm)["call"] = in_training(norm)
            yield
        finally:
            for norm, call in zip(norms, before, strict=True):
                if call is None:
                    del vars(norm)["call"]
                else:
                    vars(norm)["call"] = call

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
        averages = {id(v) for norm in self.norms for v in norm[:2]}
        start = [
            ops.zeros_like(x) if id(v) in averages else x
            for v, x in zip(self.non_trainable, non_trainable, strict=True)
        ]
        with self.measuring(substitutes):
            outputs, state, _ = self.run(inputs, trainable, start, training=False)
        values = {id(v): x for v, x in zip(self.non_trainable, state, strict=True)}
        # From zero, a moving average becomes (1 - momentum) times what it averages.
        return outputs, [
            values[id(average)] / (1 - momentum)
            for mean, variance, momentum in self.norms
            for average in (mean, variance)
        ]

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

    @functools.cached_property
    def may_add_losses(self):
        """Whether some layer may add a loss while it runs (`add_loss`)."""
        return any(
            layer.activity_regularizer is not None
            or not type(layer).__module__.startswith(("keras.", "keras_spos."))
            for layer in self._all_layers()
        )

    def run(
        self,
        inputs,
        trainable,
        non_trainable,
        training,
        unpenalized=(),
        substitutes=None,
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

        Returns:
            The outputs, the new values of the non-trainable variables, and the sum of
            losses that layers add and, in training, of weights' regularization losses
            (None if there are none).
        """
        mapping = [
            *zip(self._trainable, trainable, strict=True),
            *zip(self._non_trainable, non_trainable, strict=True),
        ]
        cheaper = contextlib.nullcontext()
        if substitutes:
            cheaper = lean(self._all_operations(), substitutes)
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            with cheaper:
                outputs = self.call(inputs, training)
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


@dataclasses.dataclass
class Step:
    """One step of a program: which tensors it reads and writes, and its units.

    Args:
        inputs: Keys of the tensors read.
        outputs: Keys of the tensors written.
        unit: The unit, if the step is fixed.
        layer: The searchable layer, if it is not.
        stage: Which of the searchable layer's stages this is.
        decisions: Indices into the path of the searchable layer's decisions.
        make_unit: Makes the unit of a layer: ``make_unit(layer, views)``.
        last_uses: Keys of tensors that no later step reads.
        choices: The units of each joint choice that was asked for.
        units: The units made so far, by the id of their layer.
    """

    inputs: tuple
    outputs: tuple
    unit: Unit | None = None
    layer: SearchableLayer | None = None
    stage: int = 0
    decisions: tuple[int, ...] = ()
    make_unit: object = None
    last_uses: tuple = ()
    choices: dict = dataclasses.field(default_factory=dict)
    units: dict = dataclasses.field(default_factory=dict)

    def units_for(self, choices):
        """The units that run for ``choices``; their outputs are added."""
        if self.layer is None:
            return (self.unit,)
        if choices not in self.choices:
            views = self.layer.views(choices)
            layers = self.layer.stages(choices)[self.stage]
            for layer in layers:
                if id(layer) not in self.units:
                    self.units[id(layer)] = self.make_unit(layer, views)
            self.choices[choices] = tuple(self.units[id(layer)] for layer in layers)
        return self.choices[choices]


def cut(model, space=None):
    """Cuts a Functional model into `Step`s in an order in which they can run."""
    indices = {d.name: i for i, d in enumerate(space.decisions)} if space else {}
    runs = []
    for node in nodes(model):
        fixed = not isinstance(node.operation, SearchableLayer)
        if fixed and runs and runs[-1][0]:
            runs[-1][1].append(node)
        else:
            runs.append((fixed, [node]))
    steps = []
    for position, (fixed, run) in enumerate(runs):
        made = _unique(id(t) for node in run for t in node.outputs)
        read = _unique(
            id(t) for node in run for t in node.input_tensors if id(t) not in set(made)
        )
        later = {
            id(t) for _, r in runs[position + 1 :] for n in r for t in n.input_tensors
        }
        later |= {id(t) for t in model.outputs}
        written = [t for t in made if t in later]
        _check_no_mask(run, written)
        if fixed:
            unit = _fixed_unit(run, read, written)
            steps.append(Step(tuple(read), tuple(written), unit))
        else:
            steps += _choice_steps(run[0], tuple(read), tuple(written), indices)
    kept = {id(t) for t in model.outputs}
    for step in reversed(steps):
        step.last_uses = tuple(t for t in step.inputs if t not in kept)
        kept |= set(step.inputs)
    return steps


def _check_no_mask(run, written):
    for node in run:
        for tensor in node.outputs:
            if get_keras_mask(tensor) is not None and id(tensor) in written:
                raise ValueError(MASKED.format(node.operation.name))


def _fixed_unit(run, read, written):
    def call(inputs, training):
        tensors = dict(zip(read, inputs, strict=True))
        for node in run:
            args, kwargs = node.arguments.fill_in(tensors)
            if getattr(node.operation, "_call_has_training_arg", False):
                kwargs = {**kwargs, "training": training}
            outputs = node.operation(*args, **kwargs)
            for symbolic, value in zip(
                node.outputs, keras.tree.flatten(outputs), strict=True
            ):
                tensors[id(symbolic)] = value
        return [tensors[key] for key in written]

    operations = _unique_objects(n.operation for n in run)
    layers = [x for x in operations if isinstance(x, keras.layers.Layer)]
    key = signature([n.operation for n in run], _wiring(run, read, written))
    return Unit(call, layers, key, operations=operations)


def _choice_steps(node, read, written, indices):
    """The steps of a searchable layer, one per stage."""
    searchable = node.operation
    decisions = tuple(indices[d.name] for d in searchable.decisions)
    count = len(searchable.stages((0,) * len(decisions)))
    # Between stages there are tensors that the model's graph does not know.
    between = [((id(node), stage),) for stage in range(1, count)]
    steps = []
    for stage, (inputs, outputs) in enumerate(
        zip([read, *between], [*between, written], strict=True)
    ):
        make_unit = functools.partial(_choice_unit, node, read, stage)
        steps.append(
            Step(inputs, outputs, None, searchable, stage, decisions, make_unit)
        )
    return steps


def _choice_unit(node, read, stage, layer, views):
    def call(inputs, training):
        args, kwargs = inputs, {}
        if stage == 0:
            args, kwargs = node.arguments.fill_in(dict(zip(read, inputs, strict=True)))
        outputs = node.operation.run_part(
            layer, *args, **{**kwargs, "training": training}
        )
        return keras.tree.flatten(outputs)

    return Unit(call, [layer], signature([layer], ()), views)


_PLAIN = (type(None), type(...), bool, int, float, complex, str, slice)


def _wiring(run, read, written):
    """How the nodes of a run are connected, with tensors numbered instead of named."""
    numbers = {key: i for i, key in enumerate(read)}
    for node in run:
        for tensor in node.outputs:
            numbers.setdefault(id(tensor), len(numbers))

    def number(value):
        if id(value) in numbers:
            return f"t{numbers[id(value)]}"
        # Of large arrays, `repr` leaves most out.
        return repr(value) if isinstance(value, _PLAIN) else id(value)

    arguments = [(n.arguments.args, n.arguments.kwargs) for n in run]
    return keras.tree.map_structure(number, arguments), [numbers[t] for t in written]


def _variable_key(variable):
    return tuple(variable.shape), variable.dtype, variable.trainable


def _variables(layers, attribute):
    return _unique_objects(v for layer in layers for v in getattr(layer, attribute))


def _as_loss(x):
    """A scalar of at least single precision, whatever a layer computes in."""
    return ops.sum(ops.cast(x, keras.backend.result_type(x.dtype, "float32")))


def _unique_objects(items):
    return list({id(item): item for item in items}.values())


def _unique(keys):
    return list(dict.fromkeys(keys))
