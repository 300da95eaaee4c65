"""Compiles a model's loss and metrics, and the loss's gradient."""

import keras
from keras import ops
from keras.src.losses.loss import unscale_loss_for_distribution

from keras_spos.engine.engine import pack_outputs


class LossHead:
    """What follows the outputs in a step: loss, its gradient, metrics.

    Args:
        model: A compiled and built `PathTrainer`.
        runner: The engine's runner.
    """

    def __init__(self, model, runner):
        self.model = model
        self.runner = runner
        self.running = False
        self.metrics = model.metrics_variables
        # Loss scaling reads the optimizer's scale.
        scalars = [v for v in model.optimizer.variables if v.shape == ()]
        self.variables = [*self.metrics, *scalars]
        self._no_penalty = ops.zeros(())
        self._gradient = runner.value_and_gradient(self._make(training=True))
        self._value = runner.compile(self._make(training=False))

    def differentiate(self, x, y, y_pred, sample_weight, penalty):
        """Training: loss and its gradient.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: The model's outputs.
            sample_weight: Weights or None.
            penalty: Sum of regularization losses, or None.

        Returns:
            The loss, the logs, new values of the metrics' variables, and the gradients
            of the outputs (a flat list) and of the penalty.
        """
        penalty = self._no_penalty if penalty is None else penalty
        sources = (keras.tree.flatten(y_pred), penalty)
        (_, (loss, logs, metrics)), gradients = self._gradient(
            sources, x, y, sample_weight, self.runner.read(self.variables)
        )
        return loss, logs, metrics, gradients

    def evaluate(self, x, y, y_pred, sample_weight, penalty):
        """Evaluation: the logs, and new values of the metrics' variables."""
        penalty = self._no_penalty if penalty is None else penalty
        sources = (keras.tree.flatten(y_pred), penalty)
        _, (_, logs, metrics) = self._value(
            sources, x, y, sample_weight, self.runner.read(self.variables)
        )
        return logs, metrics

    def write(self, metrics):
        """Assigns the metrics' variables."""
        self.runner.write(self.metrics, metrics)

    def _make(self, training):
        model = self.model
        weights = {id(v): v.path for v in model.trainable_variables}

        def compute(sources, x, y, sample_weight, state):
            y_pred, penalty = sources
            y_pred = pack_outputs(model, y_pred)
            self.running = True
            try:
                mapping = list(zip(self.variables, state, strict=True))
                with _OfOutputs(mapping, weights if training else {}) as scope:
                    loss = model.compute_loss(x, y, y_pred, sample_weight, training)
                    penalty = model._aggregate_additional_loss(penalty)
                    loss = loss + ops.cast(penalty, loss.dtype)
                    model._loss_tracker.update_state(
                        unscale_loss_for_distribution(loss),
                        sample_weight=ops.shape(keras.tree.flatten(x)[0])[0],
                    )
                    logs = model.compute_metrics(x, y, y_pred, sample_weight)
                    scaled = model.optimizer.scale_loss(loss)
            finally:
                self.running = False
            metrics = [scope.get_current_value(v) for v in self.metrics]
            return scaled, (loss, logs, metrics)

        return compute


class _OfOutputs(keras.StatelessScope):
    """Refuses to read weights, of which a loss of outputs has no gradient."""

    def __init__(self, mapping, weights):
        super().__init__(mapping)
        self._weights = weights

    def get_current_value(self, variable):
        """The value that a variable has in this scope."""
        if id(variable) in self._weights:
            raise ValueError(
                "The loss is a function of outputs and targets: what it reads of the "
                "model's weights would get no gradient. Pass a kernel_regularizer to "
                "the layer, or call add_loss in one. Received: a loss that reads "
                f"{self._weights[id(variable)]}."
            )
        return super().get_current_value(variable)
