"""How is one number made of predictions and labels? By a metric, or by the loss."""

import json

import keras
import numpy as np
from keras import ops
from keras.src.trainers.compile_utils import CompileLoss

_METRICS = {
    "accuracy": {
        "binary": keras.metrics.BinaryAccuracy,
        "sparse": keras.metrics.SparseCategoricalAccuracy,
        "one-hot": keras.metrics.CategoricalAccuracy,
    },
    "top5": {
        "sparse": lambda: keras.metrics.SparseTopKCategoricalAccuracy(5),
        "one-hot": lambda: keras.metrics.TopKCategoricalAccuracy(5),
    },
}


def check_metric(metric, net, labels):
    """Raises ValueError for what cannot be scored, before anything is computed.

    Args:
        metric: "accuracy", "top5", "loss", or a Keras metric or its name. Of several
            outputs, "loss" or a function of labels and outputs.
        net: A model.
        labels: The array of all labels, or several.
    """
    several = len(net.outputs) > 1
    if metric == "loss":
        is_one = isinstance(net.loss, str) or callable(net.loss)
        if not (is_one or (several and net.loss)):
            raise ValueError(
                'metric="loss" is the loss of a compiled supernet. Received: '
                f"loss={net.loss!r}. Call compile(loss=...), with one loss for one "
                "output, or pass another metric."
            )
    elif several:
        no_function = isinstance(metric, (str, type, keras.metrics.Metric))
        if no_function or not callable(metric):
            raise ValueError(
                f'Of several outputs ({len(net.outputs)}), the metric is "loss" or a '
                "function of (labels, outputs) to a number, of which the highest is "
                f"best. Received: metric={metric!r}"
            )
    elif isinstance(metric, str) and metric in _METRICS:
        kind = _kind(labels.shape, net.outputs[0].shape)
        if kind not in _METRICS[metric]:
            raise ValueError(
                f"Metric {metric!r} needs an output for each class. Received: outputs "
                f"of shape {net.outputs[0].shape}."
            )
        _check_labels(labels, kind, net.outputs[0].shape)
    else:
        found = keras.metrics.get(metric)
        if not isinstance(found, keras.metrics.Metric):
            raise ValueError(
                "Expected a Keras metric. Received: a function; wrap it, as in "
                "keras.metrics.MeanMetricWrapper(function)."
            )
        if _is_error(found):
            raise ValueError(
                "Of scores, the highest is best. Received: the metric "
                f"{type(found).__name__}, of which the lowest is. Compile the supernet "
                'with it as its loss, and pass metric="loss".'
            )


def _check_labels(labels, kind, outputs):
    """Refuses classes that no output stands for, such as those numbered from one."""
    # Of pixels, one label more often says that there is no class.
    if kind == "one-hot" or len(outputs) > 2:
        return
    classes = 2 if kind == "binary" else outputs[-1]
    known = np.isin(labels, np.arange(classes))
    if not np.all(known):
        raise ValueError(
            f"Expected validation labels that are classes, 0 to {classes - 1}. "
            f"Received: {labels[~known][0]} among labels of {labels.min()} to "
            f'{labels.max()}. (Where they are no classes, pass metric="loss".)'
        )


def _is_error(metric):
    """Whether a metric of Keras' own grows as predictions get worse."""
    methods = (type(metric).update_state, type(metric).result)
    if not all(method.__module__.startswith("keras.") for method in methods):
        return False  # One's own, such as the negative of an error.
    kinds = ("regression", "probabilistic", "hinge")
    modules = [f"keras.src.metrics.{kind}_metrics" for kind in kinds]
    own = next(c for c in type(metric).__mro__ if c.__module__.startswith("keras."))
    rising = (keras.metrics.CosineSimilarity, keras.metrics.R2Score)
    counts = (keras.metrics.FalsePositives, keras.metrics.FalseNegatives)
    of_errors = own.__module__ in modules and not isinstance(metric, rising)
    # What a `MeanMetricWrapper` is the mean of.
    function = getattr(metric, "_fn", None)
    of_losses = getattr(function, "__module__", None) == "keras.src.losses.losses"
    return of_errors or of_losses or isinstance(metric, counts)


def score_of(metric, net, labels, predictions, logits):
    """A metric's value; the loss with the opposite sign. Higher is better.

    Args:
        metric: See `check_metric`.
        net: A model.
        labels: The array of all labels, or several.
        predictions: The outputs for them.
        logits: Dict from an output's index to what it is the softmax or sigmoid of, as
            far as losses look at that.
    """
    if metric == "loss":
        outputs = list(map(ops.convert_to_tensor, keras.tree.flatten(predictions)))
        for i, value in logits.items():
            # Where Keras' losses look for them.
            outputs[i]._keras_logits = ops.convert_to_tensor(value)
        predictions = keras.tree.pack_sequence_as(predictions, outputs)
        if len(net.outputs) == 1:
            (predictions,) = keras.tree.flatten(predictions)  # As labels come.
        loss = CompileLoss(net.loss, _loss_weights(net), output_names=net.output_names)
        return -float(ops.convert_to_numpy(loss(labels, predictions)))
    if len(net.outputs) > 1:
        value = np.asarray(metric(labels, predictions))
        if value.shape != ():
            raise ValueError(
                "Expected a metric of several outputs to return a number. Received: an "
                f"array of shape {value.shape}."
            )
        return float(value)
    (predictions,) = keras.tree.flatten(predictions)  # It may be in a dict or a list.
    if isinstance(metric, str) and metric in _METRICS:
        metric = _METRICS[metric][_kind(labels.shape, predictions.shape)]()
    metric = keras.metrics.get(metric)
    metric.reset_state()
    metric.update_state(labels, predictions)
    return float(ops.convert_to_numpy(metric.result()))


def describe_metric(metric, net):
    """A text that differs between metrics, and between losses."""
    loss = [described(net.loss)] if metric == "loss" else []
    if loss and _loss_weights(net) is not None:
        loss.append(described(_loss_weights(net)))
    return json.dumps([described(metric), *loss], sort_keys=True)


def described(value):
    """What a loss or a metric is, as JSON, the same in every process.

    Names are left out: Keras numbers them by what was made before.
    """
    if isinstance(value, dict):
        return {key: described(v) for key, v in value.items() if key != "name"}
    if isinstance(value, (list, tuple)):
        return [described(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (keras.losses.Loss, keras.metrics.Metric)):
        # Keras leaves some settings out of a configuration, such as Huber's delta.
        settings = [_config(value), getattr(value, "_fn_kwargs", None)]
        return {type(value).__name__: described(settings)}
    # A function has no settings that can be read, nor has another callable.
    return getattr(value, "__qualname__", type(value).__qualname__)


def _loss_weights(net):
    return getattr(getattr(net, "_compile_loss", None), "_user_loss_weights", None)


def _config(value):
    try:
        return value.get_config()
    # Of a class, or around a function, that was not made to be saved.
    except Exception:
        return None


def _kind(labels, outputs):
    """Which of Keras' accuracies fits, as ``compile(metrics=["accuracy"])`` decides.

    Args:
        labels: Shape of the labels.
        outputs: Shape of the outputs.
    """
    if outputs[-1] == 1:
        return "binary"
    if len(labels) == len(outputs) - 1 or labels[1:] == (*outputs[1:-1], 1):
        return "sparse"
    if labels[1:] == tuple(outputs[1:]):
        return "one-hot"
    raise ValueError(
        f"Expected labels for outputs of shape {tuple(outputs)}: classes, of one "
        f"dimension less, or one-hot. Received: labels of shape {tuple(labels)}."
    )
