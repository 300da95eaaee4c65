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

import keras
import numpy as np
from keras import ops
from keras.src.backend import compute_output_spec
from keras.src.models.functional import Functional

from keras_spos.engine import Engine
from keras_spos.extraction import extract
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.samplers import UniformSampler
from keras_spos.space import SearchSpace


@keras.saving.register_keras_serializable("keras_spos")
class Supernet(Functional):
    """A Functional model with searchable layers (SPOS, section 3, Equation 8).

    `fit` samples one path per training step and updates that path alone. `evaluate`,
    `predict` and calls run the current path (`path`, `set_path`). Compiling, callbacks,
    saving and loading are those of any Keras model.

    Args:
        inputs: Symbolic inputs, as for `keras.Model`.
        outputs: Symbolic outputs.
        name: The model's name.
        sampler: Draws the path of each training step. Defaults to `UniformSampler()`.
        seed: Paths and random layers draw from (seed, step), so that a resumed run
            repeats them.
        named_paths: Known architectures: a dict from name to path.
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
        **kwargs,
    ):
        super().__init__(inputs, outputs, name=name, **kwargs)
        if not self.searchable_layers:
            raise ValueError(
                "A Supernet needs at least one searchable layer, such as a "
                "ChoiceBlock, in its graph. Received: none."
            )
        self.space = _read_space(self.searchable_layers)
        self.sampler = sampler or UniformSampler()
        self.seed = int(seed)
        self.named_paths = {
            name: self.space.path(path) for name, path in (named_paths or {}).items()
        }
        self._engine = None
        self._heads = {}
        self._iterations_seen = (None, 0)

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
                values[decision.name] = int(ops.convert_to_numpy(choice.value))
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

    def extract(self, path=None, fresh=False):
        """The subnet on a path, as a stock Keras model that loads without this package.

        Args:
            path: A path, a description, or a name in `named_paths`. Defaults to the
                current path.
            fresh: False copies the supernet's weights. True initializes new ones for
                retraining, and gives batch norms that have neither scale nor offset
                both, as the papers' retrained networks have.

        Returns:
            A `keras.Model` with its own weights.
        """
        path = self.path if path is None else self._as_path(path)
        return extract(self, self.space, path, fresh=fresh)

    def _as_path(self, path):
        if isinstance(path, str):
            if path not in self.named_paths:
                raise ValueError(
                    f"Known architectures are {sorted(self.named_paths)}. "
                    f"Received: {path!r}."
                )
            return self.named_paths[path]
        return self.space.path(path)

    # Training

    def get_engine(self):
        """The compiled functions of this model's units."""
        # A new call of `compile` makes a new loss object, and so a new engine.
        # An optimizer is an attribute from `compile` on; `predict` needs none.
        optimizer = getattr(self, "optimizer", None)
        compiled = getattr(self, "_compile_loss", None), optimizer
        if self._engine is None or self._engine_compiled != compiled:
            jit = bool(self.jit_compile) and not self.run_eagerly
            self._engine = Engine(
                self, self.space, jit_compile=jit if self.compiled else None
            )
            self._engine_compiled = compiled
            self._heads = {}
        return self._engine

    def draw(self, step):
        """The path of training step `step`: what the sampler draws from (seed, step).

        Returns:
            One entry per decision: an option, or a tuple of options (path dropout).
        """
        optimizer = getattr(self, "optimizer", None)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        accumulated = getattr(inner, "gradient_accumulation_steps", None) or 1
        rng = np.random.default_rng((self.seed, step // accumulated))
        return self.sampler.draw(self.space, rng)

    def train_step(self, data):
        """Samples a path and updates its weights and statistics, and nothing else.

        Args:
            data: A batch: (x, y) or (x, y, sample_weight).

        Returns:
            A dict of metrics.

        Raises:
            FloatingPointError: The loss is not finite. No variable has been changed.
        """
        self._build_head(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        step = self._count_steps()
        active = self.draw(step)
        engine = self.get_engine()
        y_pred, penalty, tape = engine.forward(x, active, (self.seed, step))
        head = self._head(training=True)
        penalty = ops.zeros(()) if penalty is None else penalty
        loss, logs, metrics, (y_gradient, penalty_gradient) = head(
            x, y, y_pred, sample_weight, penalty
        )
        if not np.isfinite(float(loss)):
            raise FloatingPointError(
                f"The loss is {float(loss)} at step {step}, on path {list(active)}. "
                "Nothing was updated in this step. Try a lower learning rate, or clip "
                "gradients (clipnorm=...)."
            )
        groups = engine.backward(tape, y_gradient, penalty_gradient)
        if step == 0:
            engine.start_averages(self.optimizer)
        engine.apply(self.optimizer, groups)
        engine.commit(tape)
        engine.runner.write(self.metrics_variables, metrics)
        self._iterations_seen = (self._iterations_token(), step + 1)
        return logs

    def test_step(self, data):
        """Evaluates the current path on one batch."""
        self._build_head(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        engine = self.get_engine()
        y_pred = engine.predict(x, self._running_path)
        logs, metrics = self._head(training=False)(x, y, y_pred, sample_weight)
        engine.runner.write(self.metrics_variables, metrics)
        return logs

    def predict_step(self, data):
        """Outputs of the current path for one batch."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.get_engine().predict(x, self._running_path)

    @property
    def losses(self):
        """Regularization losses; inside a step they come from the path's units."""
        return [] if getattr(self, "_in_head", False) else super().losses

    def _count_steps(self):
        """The optimizer's step count, without waiting for an accelerator."""
        token, count = self._iterations_seen
        if token is not None and token is self._iterations_token():
            return count
        return int(ops.convert_to_numpy(self._iterations_variable().value))

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

    def _head(self, training):
        """Compiles the loss and metrics, and the loss's gradient."""
        runner = self.get_engine().runner
        if training in self._heads:
            return self._heads[training]
        metrics = self.metrics_variables
        # Loss scaling reads the optimizer's scale.
        variables = [*metrics, *(v for v in self.optimizer.variables if v.shape == ())]

        def compute(sources, x, y, sample_weight, state):
            y_pred, penalty = sources
            y_pred = keras.tree.pack_sequence_as(self._outputs_struct, y_pred)
            self._in_head = True
            try:
                mapping = list(zip(variables, state, strict=True))
                with keras.StatelessScope(mapping) as scope:
                    loss = self.compute_loss(x, y, y_pred, sample_weight, training)
                    loss = loss + ops.cast(
                        self._aggregate_additional_loss(penalty), loss.dtype
                    )
                    batch = ops.shape(keras.tree.flatten(x)[0])[0]
                    self._loss_tracker.update_state(loss, sample_weight=batch)
                    logs = self.compute_metrics(x, y, y_pred, sample_weight)
                    scaled = self.optimizer.scale_loss(loss)
            finally:
                self._in_head = False
            state = [scope.get_current_value(v) for v in metrics]
            return scaled, (loss, logs, state)

        if training:
            gradient = runner.value_and_gradient(compute)

            def run(x, y, y_pred, sample_weight, penalty):
                sources = (keras.tree.flatten(y_pred), penalty)
                (_, (loss, logs, state)), gradients = gradient(
                    sources, x, y, sample_weight, runner.read(variables)
                )
                return loss, logs, state, gradients
        else:
            compiled = runner.compile(compute)

            def run(x, y, y_pred, sample_weight):
                sources = (keras.tree.flatten(y_pred), ops.zeros(()))
                _, (_, logs, state) = compiled(
                    sources, x, y, sample_weight, runner.read(variables)
                )
                return logs, state

        self._heads[training] = run
        return run

    # How Keras' loops call the steps. Its own version traces the step into one graph
    # with every option in it; here the step stays in Python.

    def make_train_function(self, force=False):
        """Prepares `fit`."""
        self.train_function = self._stepwise(self.train_step, 4)

    def make_test_function(self, force=False):
        """Prepares `evaluate`."""
        self._running_path = self.path
        self.test_function = self._stepwise(self.test_step, 3)

    def make_predict_function(self, force=False):
        """Prepares `predict`."""
        self._running_path = self.path

        def concatenated(batches):
            outputs = [self.predict_step(batch) for batch in batches]
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
                logs = step(keras.tree.map_structure(_none_if_optional, data))
            return logs

        if keras.backend.backend() == "jax":
            # Keras' loop hands the state from step to step; ours is in the variables.
            return lambda state, iterator: (run(iterator), (None,) * state_size)
        return run

    def _symbolic_build(self, iterator=None, data_batch=None):
        # Keras would trace the whole graph here, every option included.
        if data_batch is None:
            for _, _, data in iterator:
                data_batch = data[0] if isinstance(data, (list, tuple)) else next(data)
                break
        self._build_head(data_batch)

    def _build_head(self, data):
        """Builds loss, metrics and optimizer, from the shapes of a batch."""
        parts = (self._compile_loss, self._compile_metrics, self.optimizer)
        if all(part is None or part.built for part in parts):
            return
        self.optimizer.build(self.trainable_variables)

        def symbolic(value):
            if value is None:
                return None
            return keras.KerasTensor(
                value.shape, keras.backend.standardize_dtype(value.dtype)
            )

        data = keras.tree.map_structure(symbolic, data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = keras.tree.flatten(x)[0].shape[0]
        y_pred = keras.tree.map_structure(
            lambda t: keras.KerasTensor((batch, *t.shape[1:]), t.dtype),
            self._outputs_struct,
        )
        for function in (self.compute_loss, self.compute_metrics):
            compute_output_spec(function, x, y, y_pred, sample_weight)

    def _get_jax_state(self, purge_model_variables=False, **kinds):
        return (None,) * len(kinds)

    def jax_state_sync(self):
        """Nothing to do: variables are always up to date."""

    # Saving

    def get_config(self):
        """Mirrors `__init__`, with the graph as `keras.Model` describes it."""
        return {
            **super().get_config(),
            "sampler": keras.saving.serialize_keras_object(self.sampler),
            "seed": self.seed,
            "named_paths": {
                name: list(path) for name, path in self.named_paths.items()
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Inverse of `get_config`."""
        config = dict(config)
        own = {key: config.pop(key) for key in ("sampler", "seed", "named_paths")}
        own["sampler"] = keras.saving.deserialize_keras_object(own["sampler"])
        model = keras.Model.from_config(config, custom_objects=custom_objects)
        return cls(
            model.input, model.output, name=model.name, trainable=model.trainable, **own
        )


def _read_space(layers):
    decisions = {}
    for layer in layers:
        for decision in layer.decisions:
            known = decisions.setdefault(decision.name, decision)
            if known != decision:
                raise ValueError(
                    f"Layers that share decision {decision.name!r} must offer the same "
                    f"options. Received: {known.options} and {decision.options}."
                )
    return SearchSpace(decisions.values())


def _none_if_optional(value):
    # TensorFlow's loop wraps what a batch lacks (such as sample weights).
    return None if type(value).__name__ in ("_OptionalImpl", "Optional") else value


def _is_exhausted(error):
    return isinstance(error, StopIteration) or type(error).__name__ == "OutOfRangeError"
