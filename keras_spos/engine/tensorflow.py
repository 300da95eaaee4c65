"""Compiles units on TensorFlow.

Each function is traced once per unit key and called with a flat list of tensors: Keras'
and TensorFlow's own calling layers cost six times as much, which twenty blocks of three
calls each would feel. Steps queue their calls, so that Python prepares the next ones
while one runs.
"""

import contextlib

import numpy as np
import tensorflow as tf

from keras_spos.engine import tensorflow_lean
from keras_spos.engine.lean import Substitutes
from keras_spos.engine.slots import counterparts, keeping_outside, update_kind
from keras_spos.engine.tensorflow_calls import Compiled, Queue, shape_of, shaped_as
from keras_spos.weight_slice import is_part, whole


class Runner:
    """Runs units forward, backward and through the optimizer.

    Args:
        jit_compile: Whether to compile with XLA.
    """

    def __init__(self, jit_compile=False):
        self.jit_compile = jit_compile
        self._cache = {}
        self.queueing = Queue().queueing

    def _function(self, function):
        return tf.function(
            function, autograph=False, jit_compile=self.jit_compile or None
        )

    def infer(self, unit, inputs, state):
        """Outputs in inference mode, with `state` for the non-trainable variables."""
        return self._infer(unit, inputs, state, losses=False)[0]

    def evaluate(self, unit, inputs, state):
        """Outputs in inference mode, and the losses that layers add, or None."""
        return self._infer(unit, inputs, state, losses=unit.may_add_losses)

    def _infer(self, unit, inputs, state, losses):
        trainable = self.refer(unit.trainable)
        kinds = _kinds(trainable), _kinds(state)
        key = ("infer", losses, unit.key, _keys(inputs), kinds)
        if key not in self._cache:
            found = []

            def trace(inputs, trainable, state):
                values = _values(unit, trainable, state)
                outputs, _, penalty = unit.run(inputs, *values, training=False)
                found[:] = [penalty] if losses and penalty is not None else []
                return outputs, found

            compiled = self._compiled(trace, inputs, trainable, state)
            self._cache[key] = compiled, bool(found)
        compiled, has_penalty = self._cache[key]
        values = compiled([*inputs, *trainable, *state])
        outputs, penalty = (values[:-1], values[-1]) if has_penalty else (values, None)
        compiled.note_shapes(inputs, outputs)
        return outputs, penalty

    def calibrate(self, unit, inputs, state):
        """Outputs, and what `Unit.measure` measures."""
        trainable = self.refer(unit.trainable)
        key = ("calibrate", unit.key, _keys(inputs), _kinds(trainable), _kinds(state))
        if key not in self._cache:

            def trace(inputs, trainable, state):
                values = _values(unit, trainable, state)
                return unit.measure(inputs, *values, substitutes(self.jit_compile))

            self._cache[key] = self._compiled(trace, inputs, trainable, state)
        values = self._cache[key]([*inputs, *trainable, *state])
        split = len(values) - 2 * len(unit.norms)
        outputs, measured = values[:split], values[split:]
        self._cache[key].note_shapes(inputs, outputs)
        return outputs, measured

    def forward(self, unit, inputs, differentiable, state, unpenalized=()):
        """Runs in training mode and keeps what the backward pass needs.

        Args:
            unit: The unit.
            inputs: Tensors.
            differentiable: Which inputs need a gradient.
            state: Values of the non-trainable variables.
            unpenalized: See `Unit.run`.

        Returns:
            Outputs, new values of the non-trainable variables, the regularization
            loss or None, and a record for `backward`.
        """
        trainable = self.refer(unit.trainable)
        kinds = _kinds(trainable), _kinds(state)
        key = ("forward", unit.key, _keys(inputs), kinds, differentiable, unpenalized)
        if key not in self._cache:
            self._cache[key] = self._trace_forward(
                unit, inputs, differentiable, trainable, state, unpenalized
            )
        compiled, backward, counts, has_penalty = self._cache[key]
        values = compiled([*inputs, *trainable, *state])
        outputs, rest = values[: counts[0]], values[counts[0] :]
        compiled.note_shapes(inputs, outputs)
        state, rest = rest[: counts[1]], rest[counts[1] :]
        penalty, rest = (rest[0], rest[1:]) if has_penalty else (None, rest)
        return outputs, state, penalty, (backward, rest, has_penalty)

    def _trace_forward(
        self, unit, inputs, differentiable, trainable, state, unpenalized
    ):
        found = {}

        def trace(inputs, trainable, state):
            trainable, state = _values(unit, trainable, state)
            sources = [x for x, d in zip(inputs, differentiable, strict=True) if d]
            sources += trainable
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                outputs, state, penalty = unit.run(
                    inputs,
                    trainable,
                    state,
                    True,
                    unpenalized,
                    substitutes(self.jit_compile),
                )
            penalties = [] if penalty is None else [penalty]
            targets = [y for y in outputs if y.dtype.is_floating] + penalties

            def gradient(*cotangents):
                gradients = tape.gradient(targets, sources, output_gradients=cotangents)
                # A function returns tensors only: None is noted, not returned.
                found["connected"] = [g is not None for g in gradients]
                return [tf.convert_to_tensor(g) for g in gradients if g is not None]

            specs = [tf.TensorSpec(y.shape, y.dtype) for y in targets]
            backward = self._function(gradient).get_concrete_function(*specs)
            found["backward"] = Compiled(backward, keep_captures=False, parallel=True)
            found["floats"] = [y.dtype.is_floating for y in outputs]
            found["counts"] = (len(outputs), len(state))
            found["penalty"] = penalty is not None
            return outputs, state, penalties, list(backward.captured_inputs)

        compiled = self._compiled(trace, inputs, trainable, state)
        inputs_wanted = sum(differentiable)
        backward = (
            found["backward"],
            found["connected"],
            inputs_wanted,
            found["floats"],
        )
        return compiled, backward, found["counts"], found["penalty"]

    def _compiled(self, trace, inputs, trainable, state):
        function = self._function(trace)
        specs = _specs(inputs), _specs(trainable, False), _specs(state, False)
        return Compiled(function.get_concrete_function(*specs))

    def backward(self, record, cotangents, penalty_cotangent):
        """Gradients for a `forward`: of its differentiable inputs and its variables."""
        (compiled, connected, wanted, floats), residuals, has_penalty = record
        cotangents = [c for c, f in zip(cotangents, floats, strict=True) if f]
        if has_penalty:
            cotangents.append(penalty_cotangent)
        values = iter(compiled([*cotangents, *residuals]) if any(connected) else ())
        gradients = [next(values) if c else None for c in connected]
        return gradients[:wanted], gradients[wanted:]

    def update(self, unit, optimizer, gradients):
        """Applies the optimizer to the unit's variables; `iterations` stays."""
        present = [
            (source, g)
            for source, g in zip(unit.trainable, gradients, strict=True)
            if g is not None
        ]
        if not present:
            return
        # All slices of a variable share the trace.
        key = ("update", tuple((id(whole(v)), is_part(v)) for v, _ in present))
        if key not in self._cache:
            self._cache[key] = self._bind_update([v for v, _ in present], optimizer)
        self._cache[key]([g for _, g in present])

    def _bind_update(self, sources, optimizer):
        """The update of some weights, traced for these or for others of their kind."""
        kind = ("updates", tuple(update_kind(optimizer, v) for v in sources))
        if kind not in self._cache:
            self._cache[kind] = sources, self._trace_update(sources, optimizer)
        traced, compiled = self._cache[kind]
        own = {
            id(a.value.handle): b.value.handle
            for a, b in counterparts(optimizer, traced, sources)
        }
        return compiled.with_captures([own.get(id(x), x) for x in compiled.captures])

    def _trace_update(self, sources, optimizer):
        variables = [whole(v) for v in sources]

        def trace(gradients):
            parts = [
                (whole(v), inside(g, v))
                for g, v in zip(gradients, sources, strict=True)
                if is_part(v)
            ]
            gradients = [
                padded(g, v) if is_part(v) else g
                for g, v in zip(gradients, sources, strict=True)
            ]
            iterations = tf.identity(optimizer.iterations.value)
            with keeping_outside(self, optimizer, parts):
                optimizer.apply(gradients, variables)
            optimizer.iterations.value.assign(iterations)

        specs = [
            tf.TensorSpec([None] * len(v.shape) if is_part(v) else v.shape, v.dtype)
            for v in sources
        ]
        return Compiled(self._function(trace).get_concrete_function(specs))

    def value_and_gradient(self, function):
        """Compiles ``f(sources, *rest) -> (value, auxiliary)``, with its gradient."""

        @self._function
        def run(sources, *rest):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                value, auxiliary = function(sources, *rest)
            gradients = tape.gradient(
                value, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return (value, auxiliary), gradients

        return run

    def compile(self, function):
        """Compiles a function of tensors."""
        return self._function(function)

    def read(self, sources):
        """Current values of variables and slices."""
        return [_read(v) for v in sources]

    def refer(self, sources):
        """What compiled functions take for variables and slices.

        A function reads a variable in a tenth of the time that Python takes.
        """
        return [_refer(v) for v in sources]

    def write(self, sources, values):
        """Assigns values to variables and slices."""
        for source, value in zip(sources, values, strict=True):
            variable = whole(source).value
            if is_part(source):
                variable[source.index].assign(value)
            elif hasattr(variable, "handle"):
                tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
            else:
                variable.assign(value)

    def seed(self, numbers):
        """A seed generator's state."""
        return tf.constant(np.asarray(numbers, "uint32"))


def assigning_in_cond(needed):
    """Nothing to do: TensorFlow assigns variables inside `cond` anyway."""
    return contextlib.nullcontext()


def run_replicated(model, step, data):
    """Runs a step of a model on each replica of its distribution strategy.

    Every replica draws the same path: it follows from (seed, step).

    Returns:
        A list with what each replica returns.
    """
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        with model.get_engine().runner.queueing():
            return [step(data)]
    # Each replica has a thread of its own.
    return strategy.experimental_local_results(strategy.run(step, args=(data,)))


def mean_over_replicas(values):
    """Means of tensors over the replicas of a distribution strategy."""
    context = tf.distribute.get_replica_context()
    if not is_replicated() or not values:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, list(values))


def is_asynchronous():
    """Whether reading a result would make the device wait for the host."""
    return bool(tf.config.list_logical_devices("GPU"))


def is_replicated():
    """Whether several replicas run the same step."""
    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def add(a, b):
    """Sum of two gradients, either of which may be absent."""
    if a is None or b is None:
        return b if a is None else a
    return shaped_as(a, tf.raw_ops.AddV2(x=a, y=b))


def scale(a, factor):
    """A tensor times a Python number."""
    return shaped_as(a, a * tf.cast(factor, a.dtype))


def padded(gradient, part):
    """A slice's gradient as one of the whole variable."""
    missing = np.array(part.variable.shape, np.int32) - tf.shape(gradient)
    return tf.pad(gradient, tf.stack([tf.zeros_like(missing), missing], axis=1))


def inside(gradient, part):
    """Where a slice's gradient lies in the whole variable, as a boolean mask."""
    return padded(tf.ones_like(gradient, tf.bool), part)


def substitutes(jit_compile):
    """What to run in the place of Keras' own layers."""
    if is_asynchronous():
        return Substitutes(tensorflow_lean.normalize)
    if jit_compile:
        # XLA has kernels of its own, and no complex numbers to interleave with.
        return Substitutes(tensorflow_lean.normalize, tensorflow_lean.multiply)
    return Substitutes(
        tensorflow_lean.normalize,
        tensorflow_lean.multiply,
        tensorflow_lean.depthwise,
        tensorflow_lean.concatenate,
        tensorflow_lean.unstack,
    )


def _read(source):
    variable = whole(source).value
    if not hasattr(variable, "handle"):
        value = tf.convert_to_tensor(variable)
    else:
        value = tf.raw_ops.ReadVariableOp(
            resource=variable.handle, dtype=variable.dtype
        )
    if is_part(source):
        value = tf.slice(value, [0] * len(source.shape), source.shape)
    return value


def _refer(source):
    """A variable's handle; the values of a slice."""
    variable = whole(source).value
    if is_part(source) or not hasattr(variable, "handle"):
        return _read(source)
    return variable.handle


def _values(unit, trainable, state):
    """In a function: the values that its arguments are or refer to."""
    return [
        [_dereferenced(x, v) for x, v in zip(arguments, variables, strict=True)]
        for arguments, variables in (
            (trainable, unit.trainable),
            (state, unit.non_trainable),
        )
    ]


def _dereferenced(argument, source):
    if argument.dtype != tf.resource:
        return argument
    dtype = whole(source).value.dtype
    value = tf.raw_ops.ReadVariableOp(resource=argument, dtype=dtype)
    return tf.ensure_shape(value, source.shape)


def _keys(tensors):
    return tuple((t.dtype, shape_of(t)[1:]) for t in tensors)


def _kinds(arguments):
    return tuple(x.dtype == tf.resource for x in arguments)


def _specs(tensors, batched=True):
    # Any batch size runs the same trace.
    return [
        tf.TensorSpec(
            [None, *t.shape[1:]] if batched and t.shape.rank else t.shape, t.dtype
        )
        for t in tensors
    ]
