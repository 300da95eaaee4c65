"""Compiles units on JAX: the same operations as on TensorFlow, as pure functions."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_spos.engine import jax_lean
from keras_spos.engine.jax_pullback import Pullback, pull, pulled
from keras_spos.engine.slots import counterparts, keeping_outside, update_kind
from keras_spos.weight_slice import is_part, whole


class Runner:
    """Runs units forward, backward and through the optimizer.

    Args:
        jit_compile: Whether to compile (True) or to run operation by operation.
        recompute: Whether backward passes run the whole forward pass again, instead of
            keeping what is costly of it.
    """

    def __init__(self, jit_compile=True, recompute=False):
        self._is_kept = None if recompute else jax_lean.is_kept
        # Which traces: layers that cannot be compiled do not take that.
        self._checkpoints = jit_compile or recompute
        self._jit = jax.jit if jit_compile else lambda f: f
        self._substitutes = jax_lean.substitutes(jit_compile)
        self._cache = {}
        # Of this runner's own: what JAX compiles is kept as long as the function is.
        self._pullback = self._jit(lambda *given: pull(*given))

    def queueing(self):
        """Nothing to do: JAX queues what it runs."""
        return contextlib.nullcontext()

    def _compiled(self, key, function):
        if key not in self._cache:
            self._cache[key] = self._jit(function)
        return self._cache[key]

    def infer(self, unit, inputs, state):
        """Outputs in inference mode, with `state` for the non-trainable variables."""
        return self.evaluate(unit, inputs, state)[0]

    def evaluate(self, unit, inputs, state):
        """Outputs in inference mode, and the losses that layers add, or None."""

        def function(inputs, trainable, state):
            outputs, _, penalty = unit.run(
                inputs, trainable, state, False, substitutes=self._substitutes
            )
            return outputs, penalty

        compiled = self._compiled(("infer", unit.key), function)
        return compiled(list(inputs), self.read(unit.trainable), list(state))

    def calibrate(self, unit, inputs, state):
        """Outputs, and what `Unit.measure` measures."""
        function = functools.partial(unit.measure, substitutes=self._substitutes)
        compiled = self._compiled(("calibrate", unit.key), function)
        return compiled(list(inputs), self.read(unit.trainable), list(state))

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

        def function(inputs, trainable, state):
            def run(sources, trainable):
                sources = iter(sources)
                full = [
                    next(sources) if d else x
                    for x, d in zip(inputs, differentiable, strict=True)
                ]
                outputs, new_state, penalty = unit.run(
                    full, trainable, state, True, unpenalized, self._substitutes
                )
                floats = [y if _is_float(y) else None for y in outputs]
                return (floats, penalty), (outputs, new_state)

            sources = [x for x, d in zip(inputs, differentiable, strict=True) if d]
            if self._checkpoints:
                run = jax.checkpoint(run, policy=self._is_kept, prevent_cse=False)
            (_, penalty), pullback, (outputs, new_state) = jax.vjp(
                run, sources, trainable, has_aux=True
            )
            known = jax.tree.leaves((inputs, trainable, state, outputs))
            return outputs, new_state, penalty, Pullback.of(pullback, known)

        compiled = self._compiled(
            ("forward", unit.key, differentiable, unpenalized), function
        )
        given = list(inputs), self.read(unit.trainable), list(state)
        outputs, state, penalty, pullback = compiled(*given)
        known = pullback.among([x for values in (*given, outputs) for x in values])
        floats = [_is_float(y) for y in outputs]
        return outputs, state, penalty, (pullback, known, floats, penalty is not None)

    def backward(self, record, cotangents, penalty_cotangent):
        """Gradients for a `forward`: of its differentiable inputs and its variables."""
        return self._pullback(*pulled(record, cotangents, penalty_cotangent))

    def descend(self, unit, optimizer, record, cotangents, penalty_cotangent):
        """`backward` and the update in one, but that nothing is assigned yet.

        Calling compiled functions and wrapping what they return is much of Python's
        time in a step, for which a fast device waits.

        Returns:
            Gradients of the differentiable inputs, and a function that assigns.
        """
        given = pulled(record, cotangents, penalty_cotangent)
        if not unit.trainable:
            return self._pullback(*given)[0], lambda: None
        function, written, scalars = self._bound("descend", unit.trainable, optimizer)
        wanted, values = function(given, self.read(written), self.read(scalars))
        return wanted, functools.partial(self.write, written, values)

    def update(self, unit, optimizer, gradients):
        """Applies the optimizer to the unit's variables; `iterations` stays."""
        if not gradients:
            return
        function, written, scalars = self._bound("update", unit.trainable, optimizer)
        values = function(gradients, self.read(written), self.read(scalars))
        self.write(written, values)

    def _bound(self, name, sources, optimizer):
        """A function that updates, what it writes, and the scalars that it takes."""
        # All slices of a variable share the function.
        key = (name, tuple((id(whole(v)), is_part(v)) for v in sources))
        if key not in self._cache:
            self._cache[key] = self._bind(name, sources, optimizer)
        return self._cache[key]

    def _bind(self, name, sources, optimizer):
        """The same, made for these weights or for others of their kind."""
        kind = (f"{name} of", tuple(update_kind(optimizer, v) for v in sources))
        if kind not in self._cache:
            update, written, scalars = self._make_update(sources, optimizer)

            def descend(given, values, scalar_values):
                wanted, own = pull(*given)
                return wanted, update(own, values, scalar_values)

            function = self._jit(update if name == "update" else descend)
            self._cache[kind] = sources, (function, written, scalars)
        made, (function, written, scalars) = self._cache[kind]
        own = {id(a): b for a, b in counterparts(optimizer, made, sources)}
        return function, [own.get(id(v), v) for v in written], scalars

    def _make_update(self, sources, optimizer):
        trainable = [whole(v) for v in sources]
        known = optimizer.variables
        # Which of the optimizer's variables belong to these weights: those that an
        # update of these weights changes.
        changed = []

        def probe(gradients, values):
            mapping = list(zip([*trainable, *known], values, strict=True))
            before = {id(v): value for v, value in mapping}
            with keras.StatelessScope(mapping) as scope:
                optimizer.apply(gradients, trainable)
            changed.extend(
                v
                for v in known
                if scope.get_current_value(v) is not before[id(v)]
                and v is not optimizer.iterations
            )
            return 0

        jax.eval_shape(probe, self.read(trainable), self.read([*trainable, *known]))
        slots = {id(v) for v in changed}
        # What all weights share, such as the learning rate.
        scalars = [v for v in known if v.shape == () and id(v) not in slots]
        written = [*trainable, *changed]

        def function(gradients, values, scalar_values):
            parts = [
                (whole(v), inside(g, v))
                for g, v in zip(gradients, sources, strict=True)
                if is_part(v)
            ]
            gradients = [
                padded(g, v) if is_part(v) else g
                for g, v in zip(gradients, sources, strict=True)
            ]
            mapping = [
                *zip(written, values, strict=True),
                *zip(scalars, scalar_values, strict=True),
            ]
            with keras.StatelessScope(mapping) as scope:
                with keeping_outside(self, optimizer, parts):
                    optimizer.apply(gradients, trainable)
            return [scope.get_current_value(v) for v in written]

        return function, written, scalars

    def value_and_gradient(self, function):
        """Compiles ``f(sources, *rest) -> (value, auxiliary)``, with its gradient."""
        differentiate = jax.value_and_grad(function, has_aux=True, allow_int=True)

        def run(sources, *rest):
            value, gradients = differentiate(sources, *rest)
            # Outputs that are integers have none.
            return value, jax.tree.map(
                lambda x, g: g if _is_float(x) else None, sources, gradients
            )

        return self._jit(run)

    def compile(self, function):
        """Compiles a function of tensors."""
        return self._jit(function)

    def read(self, sources):
        """Current values of variables and slices."""
        return [
            _leading(v.variable.value, v.shape) if is_part(v) else whole(v).value
            for v in sources
        ]

    def refer(self, sources):
        """What compiled functions take for variables and slices: their values."""
        return self.read(sources)

    def write(self, sources, values):
        """Assigns values to variables and slices."""
        for source, value in zip(sources, values, strict=True):
            source.assign(value)

    def seed(self, numbers):
        """A seed generator's state."""
        return jnp.asarray(np.asarray(numbers, "uint32"))


def assigning_in_cond(needed):
    """Lets an optimizer assign variables inside `cond`, as loss scaling does."""
    return jax.disable_jit() if needed else contextlib.nullcontext()


def run_replicated(model, step, data):
    """Runs a step: on JAX, arrays that are spread over devices do the rest."""
    return [step(data)]


def mean_over_replicas(values):
    """The values: a JAX array is the whole already."""
    return values


def is_asynchronous():
    """Whether reading a result would make the device wait for the host."""
    return jax.default_backend() != "cpu"


def logits_of(call, inputs):
    """Which outputs of a call Keras' crossentropies know the logits of: none."""
    return []


def is_replicated():
    """Never: see `run_replicated`."""
    return False


def shape_of(x):
    """A tensor's shape as a tuple."""
    return x.shape


def add(a, b):
    """Sum of two gradients, either of which may be absent."""
    if a is None or b is None:
        return b if a is None else a
    return _add(a, b)


def scale(a, factor):
    """A tensor times a Python number."""
    return _scale(a, factor)


def padded(gradient, part):
    """A slice's gradient as one of the whole variable."""
    shapes = zip(part.variable.shape, gradient.shape, strict=True)
    return jnp.pad(gradient, [(0, n - m) for n, m in shapes])


def inside(gradient, part):
    """Where a slice's gradient lies in the whole variable, as a boolean mask."""
    return padded(jnp.ones_like(gradient, bool), part)


_add = jax.jit(jnp.add)
_scale = jax.jit(lambda a, factor: (a * factor).astype(a.dtype))
_leading = jax.jit(
    lambda a, shape: a[tuple(slice(0, n) for n in shape)], static_argnums=1
)


def _is_float(x):
    return jnp.issubdtype(x.dtype, jnp.floating)
