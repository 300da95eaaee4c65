"""Compiles units on TensorFlow.

Each function is traced once per unit key and called with a flat list of tensors: Keras'
and TensorFlow's own calling layers cost six times as much, which twenty blocks of three
calls each would feel. Steps queue their calls, so that Python prepares the next ones
while one runs.
"""

import contextlib
import functools

import numpy as np
import tensorflow as tf
from keras.src.backend import compute_output_spec

from keras_spos.engine import tensorflow_lean
from keras_spos.engine.lean import Substitutes
from keras_spos.engine.slots import counterparts, keeping_outside, update_kind
from keras_spos.engine.tensorflow_arguments import Arguments, read, refer, values
from keras_spos.engine.tensorflow_calls import (
    Compiled,
    Queue,
    shape_of,  # noqa: F401 (the engine takes it from here)
    shaped_as,
)
from keras_spos.engine.tensorflow_pair import Pair
from keras_spos.weight_slice import is_part, whole


class Runner:
    """Runs units forward, backward and through the optimizer.

    Args:
        jit_compile: Whether to compile with XLA.
        recompute: Whether backward passes run the forward pass again, instead of
            keeping what they need of it.
    """

    def __init__(self, jit_compile=False, recompute=False):
        self.jit_compile = jit_compile
        self.recompute = recompute
        self._cache = {}
        self.queueing = Queue().queueing

    def _function(self, function):
        return tf.function(
            function, autograph=False, jit_compile=self.jit_compile or None
        )

    def infer(self, unit, inputs, state):
        """Outputs in inference mode, with `state` for the non-trainable variables."""
        return self.evaluate(unit, inputs, state)[0]

    def evaluate(self, unit, inputs, state):
        """Outputs in inference mode, and the losses that layers add, or None."""
        given = Arguments(unit, inputs, state)
        key = ("infer", unit.key, given.key())
        if key not in self._cache:
            found = []

            def trace(inputs, trainable, state):
                own = values(unit, trainable, state)
                outputs, _, penalty = unit.run(inputs, *own, training=False)
                found[:] = [] if penalty is None else [penalty]
                return outputs, found

            self._cache[key] = self._compiled(trace, given), bool(found)
        compiled, has_penalty = self._cache[key]
        outputs, penalty = compiled(given.flat()), None
        if has_penalty:
            *outputs, penalty = outputs
        compiled.note_shapes(inputs, outputs)
        return outputs, penalty

    def calibrate(self, unit, inputs, state):
        """Outputs, and what `Unit.measure` measures."""
        given = Arguments(unit, inputs, state)
        key = ("calibrate", unit.key, given.key())
        if key not in self._cache:

            def trace(inputs, trainable, state):
                own = values(unit, trainable, state)
                return unit.measure(inputs, *own, substitutes(self.jit_compile))

            self._cache[key] = self._compiled(trace, given)
        results = self._cache[key](given.flat())
        split = len(results) - 2 * len(unit.norms)
        outputs, measured = results[:split], results[split:]
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
        given = Arguments(unit, inputs, state)
        key = ("forward", unit.key, given.key(), differentiable, unpenalized)
        if key not in self._cache:
            if unit.synchronized and is_replicated():
                raise ValueError(
                    "Replicas do not meet inside of a step's parts. Expected batch "
                    "norms with synchronized=False, each of which normalizes what its "
                    f"replica sees. Received: synchronized=True in {unit.synchronized}"
                )
            pair = Pair(
                self._function,
                unit,
                differentiable,
                unpenalized,
                substitutes(self.jit_compile),
            )
            trace = pair.recomputing if self.recompute else pair.keeping
            self._cache[key] = trace(given.specs())
        pair = self._cache[key]
        outputs, state, penalty, kept = pair.forward(given)
        return outputs, state, penalty, (pair, kept)

    def _compiled(self, trace, given):
        function = self._function(trace)
        return Compiled(function.get_concrete_function(*given.specs()))

    def backward(self, record, cotangents, penalty_cotangent):
        """Gradients for a `forward`: of its differentiable inputs and its variables."""
        pair, kept = record
        return pair.backward(kept, cotangents, penalty_cotangent)

    def descend(self, unit, optimizer, record, cotangents, penalty_cotangent):
        """`backward`, and what updates the unit's variables when it is called.

        Returns:
            Gradients of the differentiable inputs, and a function.
        """
        wanted, own = self.backward(record, cotangents, penalty_cotangent)
        return wanted, functools.partial(self.update, unit, optimizer, own)

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
        return read(sources)

    def refer(self, sources):
        """What compiled functions take for variables and slices."""
        return refer(sources)

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
    if strategy.num_replicas_in_sync == 1 and not is_replicated():
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


def logits_of(call, inputs):
    """Which outputs of a call Keras' crossentropies know the logits of.

    Args:
        call: ``call(inputs, training) -> outputs``, lists of tensors.
        inputs: Symbolic tensors.

    Returns:
        Their indices. They have an attribute `_keras_logits`.
    """
    found = []

    def trace(*inputs):
        # In training: a dropout then has no logits, whatever it is given.
        outputs = call(inputs, training=True)
        found[:] = [i for i, y in enumerate(outputs) if hasattr(y, "_keras_logits")]
        return outputs

    compute_output_spec(trace, *inputs)
    return found


def is_replicated():
    """Whether a distribution strategy runs the step on its replicas."""
    return tf.distribute.has_strategy()


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
