"""How a model with paths trains and runs: one path a step, in Keras' own loops.

Keras traces a step into one graph, which would hold every option. Here the step stays
in Python, and the engine runs compiled functions of the path's units.
"""

import contextlib
import functools

import keras
import numpy as np
from keras import ops
from keras.src.backend import compute_output_spec
from keras.src.models.functional import Functional

from keras_spos.engine import Engine
from keras_spos.engine.updates import check_optimizer, start_averages
from keras_spos.graph import pack_outputs
from keras_spos.loss_head import LossHead
from keras_spos.samplers import draw


class PathTrainer(Functional):
    """A Functional model whose steps run one path.

    Subclasses set `space`, `sampler`, `seed` and `recompute`, and have a current
    `path`.
    """

    _engine = None
    _head = None
    _iterations_seen = (None, 0)
    _last_loss = None
    _path_losses = None

    def get_engine(self):
        """The compiled functions of this model's units."""
        # A new call of `compile` makes a new loss object, and so a new engine.
        # An optimizer is an attribute from `compile` on; `predict` needs none.
        optimizer = getattr(self, "optimizer", None)
        compiled = getattr(self, "_compile_loss", None), optimizer, self.recompute
        if self._engine is None or self._engine_compiled != compiled:
            jit = bool(self.jit_compile) and not self.run_eagerly
            self._engine = Engine(
                self, self.space, jit if self.compiled else None, self.recompute
            )
            self._engine_compiled = compiled
            self._head = None
        return self._engine

    def draw(self, step):
        """The path of training step `step`: what the sampler draws from (seed, step).

        Returns:
            One entry per decision: an option, or a tuple of options (path dropout).
        """
        optimizer = getattr(self, "optimizer", None)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        accumulated = getattr(inner, "gradient_accumulation_steps", None) or 1
        return draw(self.sampler, self.space, self.seed, step // accumulated)

    def train_step(self, data):
        """Samples a path and updates its weights and statistics, and nothing else.

        Args:
            data: A batch: (x, y) or (x, y, sample_weight).

        Returns:
            A dict of metrics.

        Raises:
            FloatingPointError: The loss is not finite. No variable has been changed.
        """
        self.build_head(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        step = self.count_steps()
        active = self.draw(step)
        engine = self.get_engine()
        y_pred, penalty, tape = engine.forward(x, active, (self.seed, step))
        loss, logs, metrics, (y_gradient, penalty_gradient) = (
            self.get_head().differentiate(x, y, y_pred, sample_weight, penalty)
        )
        self._check_loss(loss, step, active)
        if step == 0:
            start_averages(engine.runner, self.optimizer)
        engine.learn(self.optimizer, tape, y_gradient, penalty_gradient)
        engine.commit(tape)
        self.get_head().write(metrics)
        self._iterations_seen = (self._iterations_token(), step + 1)
        return logs

    def test_step(self, data):
        """Evaluates the current path on one batch."""
        self.build_head(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        engine = self.get_engine()
        y_pred, losses = engine.evaluate(x, self._running_path)
        if self._running_penalty is None:
            # The same for every batch: weights do not change meanwhile.
            self._running_penalty = engine.penalty(self._running_path)
        head = self.get_head()
        penalty = engine.backend.add(self._running_penalty, losses)
        logs, metrics = head.evaluate(x, y, y_pred, sample_weight, penalty)
        head.write(metrics)
        return logs

    def predict_step(self, data):
        """Outputs of the current path for one batch."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.get_engine().predict(x, self._running_path)

    @property
    def losses(self):
        """Regularization losses; inside a step, those of the path alone."""
        return super().losses if self._path_losses is None else self._path_losses

    @contextlib.contextmanager
    def losses_are(self, values):
        """Inside, `losses` are these tensors."""
        # Past Keras' `__setattr__`, which tracks.
        vars(self)["_path_losses"] = values
        try:
            yield
        finally:
            vars(self)["_path_losses"] = None

    def get_head(self):
        """This model's `LossHead`: its loss and metrics, compiled."""
        if self._head is None:
            self._head = LossHead(self, self.get_engine().runner)
        return self._head

    @functools.wraps(Functional.quantize)
    def quantize(self, *args, **kwargs):
        """Keras' `quantize`, which gives layers other variables."""
        super().quantize(*args, **kwargs)
        self._engine = None

    # The signature of Keras' own, not its docstring.
    @functools.wraps(Functional.fit, assigned=())
    def fit(self, *args, **kwargs):
        """Keras' `fit`, one path a step.

        `validation_data` is evaluated on the current path (`path`), whatever paths are
        trained, and with moving averages of batch norms that mix those of many paths.
        So "val_loss" and its like are no measure of a supernet, nor for callbacks to
        monitor: `keras_spos.callbacks.SampledAccuracy` logs the scores of random paths
        (such as "sampled_accuracy_mean") by an `Evaluator`, which recalibrates them.
        """
        history = super().fit(*args, **kwargs)
        self._check_last_loss()
        return history

    def _check_loss(self, loss, step, active):
        """Raises if the loss is not finite, before anything is updated.

        On an accelerator that would make every step wait for the host: there the loss
        of the step before is looked at.
        """
        if self.get_engine().backend.is_asynchronous():
            self._check_last_loss()
            self._last_loss = (loss, step, active)
        else:
            changed = "Nothing was updated in that step."
            _check_finite(loss, step, active, changed)

    def _check_last_loss(self):
        last, self._last_loss = self._last_loss, None
        if last is not None:
            changed = "The weights are those after that step: load a checkpoint."
            _check_finite(*last, changed)

    def count_steps(self):
        """The optimizer's step count, without waiting for an accelerator."""
        token, count = self._iterations_seen
        if token is not None and token is self._iterations_token():
            return count
        return int(ops.convert_to_numpy(self._iterations_variable()))

    def _iterations_variable(self):
        # `iterations` of an optimizer that accumulates counts several steps as one.
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)._iterations

    def _iterations_token(self):
        # A JAX array is replaced by every assignment; a TensorFlow variable is not.
        # Loss scaling may skip an update, which then does not count.
        if keras.backend.backend() != "jax" or hasattr(
            self.optimizer, "inner_optimizer"
        ):
            return None
        return self._iterations_variable().value

    def _resolve_auto_jit_compile(self):
        # On CPUs, a step of depthwise convolutions took ten times as long with XLA: on
        # TensorFlow it is for those who ask for it.
        if keras.backend.backend() == "tensorflow":
            return False
        return super()._resolve_auto_jit_compile()

    # How Keras' loops call the steps. Its own version traces the step into one graph
    # with every option in it; here the step stays in Python.

    def make_train_function(self, force=False):
        """Prepares `fit`."""
        self.get_engine()  # Which refuses backends before Keras' loop begins.
        self._check_last_loss()
        self.train_function = self._stepwise(self.train_step, 4)

    def make_test_function(self, force=False):
        """Prepares `evaluate`."""
        self.get_engine()  # As in `make_train_function`.
        self._running_path = self.path
        # Left to the first step: in a strategy's scope, weights are a replica's.
        self._running_penalty = None
        self.test_function = self._stepwise(self.test_step, 3)

    def make_predict_function(self, force=False):
        """Prepares `predict`."""
        self.get_engine()  # As in `make_train_function`.
        self._running_path = self.path

        def concatenated(batches):
            run = self.get_engine().backend.run_replicated
            outputs = [y for b in batches for y in run(self, self.predict_step, b)]
            if len(outputs) == 1:
                return outputs[0]
            return keras.tree.map_structure(lambda *o: ops.concatenate(o), *outputs)

        if keras.backend.backend() == "tensorflow":
            self.predict_function = concatenated
        else:

            def function(state, iterator):
                batches = list(zip(range(self.steps_per_execution), iterator))  # noqa: B905
                if not batches:
                    raise StopIteration
                return concatenated([b for _, b in batches]), (None,) * 2

            self.predict_function = function

    def _stepwise(self, step, state_size):
        def run(iterator):
            logs = None
            # zip would take one batch too many from a shared iterator.
            for _ in range(self.steps_per_execution):
                try:
                    data = next(iterator)
                except Exception as error:
                    if logs is None or not _is_exhausted(error):
                        raise
                    break
                data = keras.tree.map_structure(_none_if_optional, data)
                results = self.get_engine().backend.run_replicated(self, step, data)
                logs = results[0]
            return logs if len(results) == 1 else self.get_metrics_result()

        if keras.backend.backend() == "jax":
            # Keras' loop hands the state from step to step; ours is in the variables.
            return lambda state, iterator: (run(iterator), (None,) * state_size)
        return run

    def _symbolic_build(self, iterator=None, data_batch=None):
        # Keras would trace the whole graph here, every option included.
        if data_batch is None:
            for _, _, data in iterator:
                data_batch = next(iter(data))
                break
        self.build_head(data_batch)

    def build_head(self, data):
        """Builds loss, metrics and optimizer, from the shapes of a batch."""
        parts = (self._compile_loss, self._compile_metrics, self.optimizer)
        if all(part is None or part.built for part in parts):
            return
        check_optimizer(self.optimizer, self.operations)
        # Building one again would start its loss scale anew.
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

        def symbolic(value):
            if value is None:
                return None
            if isinstance(value, np.ndarray):  # Which JAX takes as 32 bits.
                value = ops.convert_to_tensor(value)
            return keras.KerasTensor(
                value.shape, keras.backend.standardize_dtype(value.dtype)
            )

        data = keras.tree.map_structure(symbolic, data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = keras.tree.flatten(x)[0].shape[0]
        flat = [keras.KerasTensor((batch, *t.shape[1:]), t.dtype) for t in self.outputs]
        y_pred = pack_outputs(self, flat)
        # Which losses there are, a path tells: any will do to build the others.
        with self.losses_are([ops.zeros(())]):
            for function in (self._compute_loss, self.compute_metrics):
                compute_output_spec(function, x, y, y_pred, sample_weight)

    def _get_jax_state(self, purge_model_variables=False, **kinds):
        return (None,) * len(kinds)

    def jax_state_sync(self):
        """Nothing to do: variables are always up to date."""


def _check_finite(loss, step, active, changed):
    if not np.isfinite(float(loss)):
        path = [int(a) if hasattr(a, "__index__") else tuple(a) for a in active]
        raise FloatingPointError(
            f"The loss is {float(loss)} at step {step}, on path {path}. {changed} "
            "Try a lower learning rate, or clip gradients (clipnorm)."
        )


def _none_if_optional(value):
    # TensorFlow's loop wraps what a batch lacks (such as sample weights).
    return None if type(value).__name__ in ("_OptionalImpl", "Optional") else value


def _is_exhausted(error):
    return isinstance(error, StopIteration) or type(error).__name__ == "OutOfRangeError"
