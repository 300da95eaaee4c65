"""Compiles a model's loss and metrics, and the loss's gradient."""

import keras
from keras import ops
from keras.src.losses.loss import unscale_loss_for_distribution

from keras_spos.graph import pack_outputs


class LossHead:
    """What follows the outputs in a step: loss, its gradient, metrics.

    Args:
        model: A compiled and built `PathTrainer`.
        runner: The engine's runner.
    """

    def __init__(self, model, runner):
        self.model = model
        self.runner = runner
        self.metrics = model.metrics_variables
        # Loss scaling reads the optimizer's scale.
        scalars = [v for v in model.optimizer.variables if v.shape == ()]
        self.variables = [*self.metrics, *scalars]
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
            of the outputs (a flat list, then those of the engine's `logits`) and of the
            penalty (None without any).
        """
        sources = _sources(y_pred, penalty)
        (_, (loss, logs, metrics)), (gradients, logits, penalties) = self._gradient(
            sources, x, y, sample_weight, self.runner.read(self.variables)
        )
        gradients = [*gradients, *logits.values()]
        return loss, logs, metrics, (gradients, penalties[0] if penalties else None)

    def evaluate(self, x, y, y_pred, sample_weight, penalty):
        """Evaluation: the logs, and new values of the metrics' variables."""
        sources = _sources(y_pred, penalty)
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
            y_pred, logits, penalties = sources
            for i, value in logits.items():
                y_pred[i]._keras_logits = value
            y_pred = pack_outputs(model, y_pred)
            # In the type of losses, to which `compute_loss` adds them.
            penalties = [ops.cast(x, keras.config.floatx()) for x in penalties]
            mapping = list(zip(self.variables, state, strict=True))
            with (
                model.losses_are(penalties),
                _OfOutputs(mapping, weights if training else {}) as scope,
            ):
                loss = model._compute_loss(x, y, y_pred, sample_weight, training)
                model._loss_tracker.update_state(
                    unscale_loss_for_distribution(loss),
                    sample_weight=ops.shape(keras.tree.flatten(x)[0])[0],
                )
                logs = model.compute_metrics(x, y, y_pred, sample_weight)
                scaled = model.optimizer.scale_loss(loss)
            metrics = [scope.get_current_value(v) for v in self.metrics]
            return scaled, (loss, logs, metrics)

        return compute


def _sources(y_pred, penalty):
    """What a loss is a function of: outputs, logits by the output's index, penalties.

    Crossentropies of probabilities near zero have no gradient but through logits.
    """
    outputs = keras.tree.flatten(y_pred)
    logits = {
        i: y._keras_logits for i, y in enumerate(outputs) if hasattr(y, "_keras_logits")
    }
    return outputs, logits, [] if penalty is None else [penalty]


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
                "the layer, or call add_loss in one; freeze a teacher "
                "(trainable = False). Received: a loss that reads "
                f"{self._weights[id(variable)]}."
            )
        return super().get_current_value(variable)
