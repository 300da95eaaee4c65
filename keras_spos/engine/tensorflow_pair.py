"""A unit's forward and backward function, and what the one leaves for the other.

Either (`keeping`) what the backward pass needs of what the forward pass computed, or
(`recomputing`) what the forward pass was given, to compute the rest from it again.
"""

import re

import keras
import tensorflow as tf

from keras_spos.engine.tensorflow_arguments import values
from keras_spos.engine.tensorflow_calls import Compiled

# TensorFlow's own random operations, which give other numbers at each call.
_DRAWS = re.compile(
    "Random|Multinomial|TruncatedNormal|Rng|Stateful(?!PartitionedCall)"
)


class Pair:
    """Two compiled functions.

    Args:
        function: Makes a function of tensors one that can be traced.
        unit: The unit.
        differentiable: Which inputs need a gradient.
        unpenalized: See `Unit.run`.
        substitutes: What to run in the place of Keras' own layers.
    """

    def __init__(self, function, unit, differentiable, unpenalized, substitutes):
        self._function = function
        self._unit = unit
        self._differentiable = differentiable
        self._options = {
            "training": True,
            "unpenalized": unpenalized,
            "substitutes": substitutes,
            "scope_class": _Assigning,
        }

    def keeping(self, specs):
        """Traces both; the first leaves what the second needs of what it computed."""

        def trace(*arguments):
            results, differentiate = self._run(*arguments)
            backward = self._function(differentiate).get_concrete_function(
                self._targets
            )
            self._backward = Compiled(backward, keep_captures=False, parallel=True)
            return results, list(backward.captured_inputs)

        self._forward = Compiled(self._function(trace).get_concrete_function(*specs))
        self._recomputes = False
        return self

    def recomputing(self, specs):
        """Traces both; the first leaves what it was given."""

        def trace(*arguments):
            return self._run(*arguments)[0]

        def again(cotangents, *arguments):
            return self._run(*arguments)[1](cotangents)

        forward = self._function(trace).get_concrete_function(*specs)
        _check_draws(forward.graph, self._unit)
        self._forward = Compiled(forward)
        backward = self._function(again).get_concrete_function(self._targets, *specs)
        self._backward = Compiled(backward, parallel=True)
        self._recomputes = True
        return self

    def _run(self, inputs, trainable, state):
        """In a function: all that the unit gives, and a function for gradients."""
        trainable, state = values(self._unit, trainable, state)
        wanted = zip(inputs, self._differentiable, strict=True)
        sources = [*(x for x, d in wanted if d), *trainable]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs, state, penalty = self._unit.run(
                inputs, trainable, state, **self._options
            )
        penalties = [] if penalty is None else [penalty]
        targets = [y for y in outputs if y.dtype.is_floating] + penalties
        self._targets = [tf.TensorSpec(y.shape, y.dtype) for y in targets]
        self._floats = [y.dtype.is_floating for y in outputs]
        self._counts = len(outputs), len(state), len(penalties)

        def differentiate(cotangents):
            gradients = tape.gradient(targets, sources, output_gradients=cotangents)
            # A function returns tensors only: None is noted, not returned.
            self._connected = [g is not None for g in gradients]
            return [tf.convert_to_tensor(g) for g in gradients if g is not None]

        return [*outputs, *state, *penalties], differentiate

    def forward(self, arguments):
        """Runs the unit.

        Args:
            arguments: `Arguments`.

        Returns:
            Outputs, new values of the non-trainable variables, the regularization
            loss or None, and what `backward` takes.
        """
        given = arguments.flat()
        rest = self._forward(given)
        parts = []
        for count in self._counts:
            parts.append(rest[:count])
            rest = rest[count:]
        outputs, state, penalties = parts
        self._forward.note_shapes(arguments.inputs, outputs)
        kept = given if self._recomputes else rest
        return outputs, state, penalties[0] if penalties else None, kept

    def backward(self, kept, cotangents, penalty_cotangent):
        """Gradients of the differentiable inputs, and of the trainable variables."""
        cotangents = [c for c, f in zip(cotangents, self._floats, strict=True) if f] + [
            penalty_cotangent
        ] * self._counts[2]
        any_connected = any(self._connected)
        found = iter(self._backward([*cotangents, *kept]) if any_connected else ())
        gradients = [next(found) if c else None for c in self._connected]
        wanted = sum(self._differentiable)
        return gradients[:wanted], gradients[wanted:]


class _Assigning(keras.StatelessScope):
    """Lets no gradient through what layers assign: none goes through a variable."""

    def add_update(self, update):
        """Keeps the value that a variable is assigned."""
        variable, value = update
        super().add_update((variable, tf.stop_gradient(value)))


def _check_draws(graph, unit):
    """Raises if the backward pass would compute with other random numbers."""
    draws = {op.type for op in graph.get_operations() if _DRAWS.match(op.type)}
    if draws:
        raise ValueError(
            "With recompute=True, layers must draw the same numbers twice: through "
            "keras.random, with a keras.random.SeedGenerator. Received: "
            f"{sorted(draws)} in {[layer.name for layer in unit.layers]}"
        )
