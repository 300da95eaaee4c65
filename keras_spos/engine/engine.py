"""Runs the units on a path: forward, backward, update."""

import functools
import importlib

import keras
import numpy as np
from keras import ops

from keras_spos.engine.steps import cut, logits_key
from keras_spos.engine.updates import apply_together, can_update_by_unit
from keras_spos.graph import pack_outputs


class Engine:
    """Compiled functions of a Functional model, run for one path at a time.

    Args:
        model: A Functional model, with or without searchable layers.
        space: Its `SearchSpace`, or None.
        jit_compile: Whether to compile with XLA (always done on JAX unless False).
        recompute: Whether the backward pass runs each unit again, from its inputs,
            instead of keeping what it needs of the forward pass.

    Attributes:
        logits: For each output the key of what it is the softmax or sigmoid of; there
            is such a tensor where Keras' crossentropies read it.
    """

    def __init__(self, model, space=None, jit_compile=None, recompute=False):
        self.model = model
        backend = keras.backend.backend()
        if backend not in ("tensorflow", "jax"):
            raise ValueError(
                "Networks run on Keras' backends TensorFlow and JAX. Expected "
                f"KERAS_BACKEND to be tensorflow or jax. Received: {backend!r}"
            )
        self.backend = importlib.import_module(f"keras_spos.engine.{backend}")
        # Without paths it does not train, and there is no loss.
        self.steps = cut(model, space, self.backend.logits_of if space else None)
        self.inputs = [id(t) for t in model.inputs]
        self.logits = [logits_key(id(t)) for t in model.outputs]
        options = {} if jit_compile is None else {"jit_compile": jit_compile}
        self.runner = self.backend.Runner(recompute=recompute, **options)

    def convert(self, inputs):
        """Model inputs as a flat list of tensors of the declared types."""
        if isinstance(inputs, dict):
            # By name, whatever the structure that the model was made with.
            names = [t.name for t in self.model.inputs]
            missing = set(names) - set(inputs)
            if missing and len(inputs) < len(names):
                raise ValueError(
                    f"Expected inputs {names}. "
                    f"Received: a dict without {sorted(missing)}."
                )
            if not missing:
                # What else is there goes nowhere; Keras might take it for an input.
                inputs = {name: inputs[name] for name in names}
            return self.model._standardize_inputs(inputs)
        tensors = self.model._convert_inputs_to_tensors(keras.tree.flatten(inputs))
        return self.model._adjust_input_rank(tensors)

    def units(self, path):
        """The units that run in each step on a path, as a list of tuples."""
        return [units for units, _ in self._active(path)]

    def _active(self, active):
        """For each step its units, and how many choices their sum is the mean of."""
        result = []
        for step in self.steps:
            choices = _choices(step, active)
            units = [unit for c in choices for unit in step.units_for(c)]
            result.append((tuple(units), len(choices)))
        return result

    def predict(self, inputs, path):
        """The model's outputs on a path, in inference mode."""
        return self._infer_all(inputs, path, self.infer)

    def evaluate(self, inputs, path):
        """`predict`, and the sum of the losses that layers add (None without any)."""
        total = None

        def infer(unit, inputs):
            nonlocal total
            state = self.state(unit, None, {})
            outputs, loss = self.runner.evaluate(unit, inputs, state)
            total = self.backend.add(total, loss)
            return outputs

        return self._infer_all(inputs, path, infer), total

    def _infer_all(self, inputs, path, function):
        tensors = dict(zip(self.inputs, self.convert(inputs), strict=True))
        for step, units in zip(self.steps, self.units(path), strict=True):
            self.run(step, tensors, function, units)
        return self.pack(tensors)

    def penalty(self, path):
        """Sum of the regularization losses of the weights on a path, or None."""
        total, seen = None, set()
        for unit in (u for units in self.units(path) for u in units):
            for index, key in unit.regularized:
                if key not in seen:
                    (value,) = self.runner.read([unit.trainable[index]])
                    total = self.backend.add(total, unit.penalty(index, value))
                    seen.add(key)
        return total

    def infer(self, unit, inputs, statistics=None):
        """Runs one unit in inference mode; `statistics` overrides variables by id."""
        state = self.state(unit, None, statistics or {})
        return self.runner.infer(unit, inputs, state)

    def calibrate(self, unit, inputs):
        """Runs one unit on normalized inputs and measures its batch norms.

        Dropout is off: the statistics are for inference.

        Returns:
            The outputs, and a dict from (id of moving mean, id of moving variance) to
            the mean and variance over `inputs`.
        """
        state = self.state(unit, (0,), {})
        outputs, values = self.runner.calibrate(unit, inputs, state)
        ids = [(id(mean), id(variance)) for mean, variance in unit.norms]
        pairs = zip(values[::2], values[1::2], strict=True)
        return outputs, dict(zip(ids, pairs, strict=True))

    def run(self, step, tensors, function, units, count=1):
        """Runs one step on a dict of tensors, in place, and drops what is used up.

        It gives the sum of what the units give, over `count`.
        """
        inputs = [tensors[key] for key in step.inputs]
        results = [function(unit, inputs) for unit in units]
        made = len(step.outputs)
        same = zip(*(outputs[:made] for outputs in results), strict=True)
        outputs = [self._mean(values, count) for values in same]
        tensors.update(zip(step.outputs, outputs, strict=True))
        if len(units) == 1:
            # A sum of several is no softmax.
            keys = map(logits_key, units[0].logits)
            tensors.update(zip(keys, results[0][made:], strict=True))
        for key in step.last_uses:
            del tensors[key]

    def pack(self, tensors):
        """The model's outputs, in its own structure, from a dict of tensors."""
        outputs = [tensors[id(t)] for t in self.model.outputs]
        for output, key in zip(outputs, self.logits, strict=True):
            if key in tensors:
                # Where Keras' losses look for them.
                output._keras_logits = tensors[key]
        return pack_outputs(self.model, outputs)

    def forward(self, inputs, active, seed):
        """Runs a path in training mode, without changing any variable.

        Args:
            inputs: The model's inputs.
            active: One entry per decision: an option, or several whose mean is taken.
            seed: Integers from which random layers draw.

        Returns:
            The outputs, the regularization loss, and a `Tape` for `backward`.
        """
        tensors = dict(zip(self.inputs, self.convert(inputs), strict=True))
        tape = Tape()
        for position, (step, (units, count)) in enumerate(
            zip(self.steps, self._active(active), strict=True)
        ):
            differentiable = tuple(
                key not in self.inputs and keras.backend.is_float_dtype(x.dtype)
                for key, x in ((key, tensors[key]) for key in step.inputs)
            )
            run = functools.partial(
                self._record, tape, (*seed, position), (step, differentiable, count)
            )
            self.run(step, tensors, run, units, count)
            for key in step.outputs:
                y = tensors[key]
                tape.shapes[key] = self.backend.shape_of(y), y.dtype
        tape.logits = [key for key in self.logits if key in tensors]
        return self.pack(tensors), tape.penalty, tape

    def _record(self, tape, seed, where, unit, inputs):
        """Runs one unit in training mode, and notes on the tape what it leaves."""
        step, differentiable, count = where
        state = self.state(unit, seed, tape.pending)
        outputs, state, penalty, record = self.runner.forward(
            unit, inputs, differentiable, state, tape.penalize(unit)
        )
        for variable, value in zip(unit.non_trainable, state, strict=True):
            tape.pending[id(variable)] = value
            tape.written[id(variable)] = variable
        tape.penalty = self.backend.add(tape.penalty, penalty)
        tape.records.append((step, unit, differentiable, count, record))
        return outputs

    def learn(self, optimizer, tape, output_gradients, penalty_gradient):
        """Backward pass and update of the variables on a path, and of nothing else.

        Args:
            optimizer: A built optimizer.
            tape: What `forward` left; it is used up.
            output_gradients: Gradients of the outputs, and then of `logits`.
            penalty_gradient: Gradient of the regularization loss.
        """
        units = [unit for _, unit, *_ in tape.records]
        if not self._updates_by_unit(optimizer, units):
            groups = self.backward(tape, output_gradients, penalty_gradient)
            self.apply(optimizer, groups)
            return
        finishes = []

        def run(unit, record, cotangents):
            wanted, finish = self.runner.descend(
                unit, optimizer, record, cotangents, penalty_gradient
            )
            finishes.append(finish)
            return wanted

        self._go_back(tape, output_gradients, run)
        # Not before: whatever fails on the way has changed nothing.
        for finish in finishes:
            finish()
        self._count_step(optimizer)

    def backward(self, tape, output_gradients, penalty_gradient):
        """Gradients of the variables on a path, as a list of (unit, gradients)."""
        groups = []

        def run(unit, record, cotangents):
            wanted, own = self.runner.backward(record, cotangents, penalty_gradient)
            groups.append((unit, own))
            return wanted

        self._go_back(tape, output_gradients, run)
        return groups

    def _go_back(self, tape, output_gradients, function):
        """Calls ``function(unit, record, cotangents)`` on the units in reverse order.

        It returns the gradients of the unit's differentiable inputs.
        """
        gradients = {}
        keys = [*map(id, self.model.outputs), *tape.logits]
        outputs = zip(keys, keras.tree.flatten(output_gradients), strict=True)
        for key, gradient in outputs:
            # One tensor may be several outputs.
            gradients[key] = self.backend.add(gradients.get(key), gradient)
        used = {}
        while tape.records:
            step, unit, differentiable, count, record = tape.records.pop()
            # The units of one step are adjacent, and share their outputs' gradient.
            if used.get("step") is not step:
                used = {
                    "step": step,
                    "cotangents": self._cotangents(step, gradients, tape),
                }
                if count > 1:
                    used["cotangents"] = [
                        self.backend.scale(c, 1 / count) for c in used["cotangents"]
                    ]
            cotangents = list(used["cotangents"])
            for key in unit.logits:
                gradient = gradients.pop(logits_key(key), None)
                if gradient is None:  # Where several units are added.
                    gradient = ops.zeros_like(cotangents[step.outputs.index(key)])
                cotangents.append(gradient)
            wanted = function(unit, record, cotangents)
            keys = [k for k, d in zip(step.inputs, differentiable, strict=True) if d]
            for key, gradient in zip(keys, wanted, strict=True):
                gradients[key] = self.backend.add(gradients.get(key), gradient)

    def apply(self, optimizer, groups):
        """Updates the variables on a path, and nothing else."""
        if self._updates_by_unit(optimizer, [unit for unit, _ in groups]):
            for unit, gradients in groups:
                self.runner.update(unit, optimizer, gradients)
            self._count_step(optimizer)
        else:
            apply_together(self.backend, self.runner, optimizer, groups)

    def _updates_by_unit(self, optimizer, units):
        return not self.backend.is_replicated() and can_update_by_unit(optimizer, units)

    def _count_step(self, optimizer):
        (count,) = self.runner.read([optimizer.iterations])
        self.runner.write([optimizer.iterations], [count + 1])

    def commit(self, tape):
        """Assigns the new values of non-trainable variables: batch statistics."""
        variables = list(tape.written.values())
        values = [tape.pending[id(v)] for v in variables]
        if self.backend.is_replicated():
            # Batch statistics differ between replicas, seeds do not.
            keep = [keras.backend.is_float_dtype(v.dtype) for v in variables]
            variables = [v for v, k in zip(variables, keep, strict=True) if k]
            values = [x for x, k in zip(values, keep, strict=True) if k]
            values = self.backend.mean_over_replicas(values)
        self.runner.write(variables, values)

    def state(self, unit, seed, overrides):
        """What a unit reads of its non-trainable variables.

        Args:
            unit: The unit.
            seed: Integers that random layers draw from; None for the variables' seeds.
            overrides: Values to take instead of the variables', a dict by id.
        """
        if not unit.non_trainable:
            return []
        if not overrides and not any(unit.is_seed):
            return self.runner.refer(unit.non_trainable)
        state = []
        for number, (variable, is_seed) in enumerate(
            zip(unit.non_trainable, unit.is_seed, strict=True)
        ):
            if is_seed and seed is not None:
                words = np.random.SeedSequence((*seed, number)).generate_state(2)
                state.append(self.runner.seed(words))
            elif id(variable) in overrides:
                state.append(overrides[id(variable)])
            else:
                state.extend(self.runner.refer([variable]))
        return state

    def _mean(self, values, count):
        """Sum of some tensors over `count`."""
        total = None
        for value in values:
            total = self.backend.add(total, value)
        return total if count == 1 else self.backend.scale(total, 1 / count)

    def _cotangents(self, step, gradients, tape):
        result = []
        for key in step.outputs:
            shape, dtype = tape.shapes.pop(key)
            gradient = gradients.pop(key, None)
            result.append(ops.zeros(shape, dtype) if gradient is None else gradient)
        return result


class Tape:
    """What a forward pass leaves for the backward pass."""

    def __init__(self):
        self.records = []
        self.logits = []
        self.penalty = None
        self.penalized = set()
        self.pending = {}
        self.written = {}
        self.shapes = {}

    def penalize(self, unit):
        """Indices of a unit's regularized variables that the tape counts already."""
        if not unit.regularized:
            return ()
        known = tuple(i for i, key in unit.regularized if key in self.penalized)
        self.penalized.update(key for _, key in unit.regularized)
        return known


def _choices(step, active):
    """The joint choices that run in a step."""
    if step.layer is None:
        return [()]
    picked = [active[d] for d in step.decisions]
    several = [isinstance(p, (tuple, list, frozenset)) for p in picked]
    if any(several):
        if len(picked) > 1 or len(step.layer.stages((0,))) > 1:
            raise ValueError(
                f"{step.layer.name!r} combines its parts by itself: one choice at a "
                f"time. Received: {picked}."
            )
        return [(int(i),) for i in sorted(picked[0])]
    return [tuple(int(i) for i in picked)]
