"""How is one number made of predictions and labels? By a metric, or by the loss."""

import json

import keras
import numpy as np
from keras import ops

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
        metric: "accuracy", "top5", "loss", or a Keras metric or its name.
        net: A model of one output.
        labels: The array of all labels.
    """
    if metric == "loss":
        if not isinstance(net.loss, str) and not callable(net.loss):
            raise ValueError(
                'metric="loss" is the loss of a compiled supernet. Received: '
                f"loss={net.loss!r}. Call compile(loss=...) with one loss, or pass a "
                "Keras metric."
            )
    elif isinstance(metric, str) and metric in _METRICS:
        kind = _kind(labels.shape, net.outputs[0].shape)
        if kind not in _METRICS[metric]:
            raise ValueError(
                f"Metric {metric!r} needs labels ``[n]`` or one-hot labels. Received: "
                f"labels of shape {labels.shape} for outputs {net.outputs[0].shape}."
            )
    else:
        keras.metrics.get(metric)


def score_of(metric, net, labels, predictions):
    """A metric's value; the loss with the opposite sign. Higher is better."""
    if metric == "loss":
        loss = net.loss if callable(net.loss) else keras.losses.get(net.loss)
        # A loss that is a function gives a value for each example.
        return -float(np.mean(ops.convert_to_numpy(loss(labels, predictions))))
    if isinstance(metric, str) and metric in _METRICS:
        metric = _METRICS[metric][_kind(labels.shape, predictions.shape)]()
    metric = keras.metrics.get(metric)
    metric.reset_state()
    metric.update_state(labels, predictions)
    return float(ops.convert_to_numpy(metric.result()))


def describe_metric(metric, net):
    """A text that differs between metrics, and between losses."""
    if isinstance(metric, str) and metric != "loss":
        return metric
    what = net.loss if metric == "loss" else metric
    if isinstance(what, str):
        return f"{metric} {what}"
    config = what.get_config() if hasattr(what, "get_config") else {}
    name = getattr(what, "__name__", type(what).__name__)
    return f"{name} {json.dumps(config, sort_keys=True, default=str)}"


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
