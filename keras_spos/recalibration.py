"""Exact batch norm statistics: those of given images, layer by layer.

Each layer sees the inputs it will see in inference, which one pass in training mode
would not give it. Of several batches, statistics are combined to the total mean and
variance; then it sees inputs that were normalized by their own batch.

Example:
    >>> recalibrate(net.extract(path), images)  # doctest: +SKIP
"""

import keras
from keras import ops

from keras_spos.batches import concatenated, count_of, images_of, shuffled
from keras_spos.engine import Engine
from keras_spos.engine.units import APPLIED_TWICE
from keras_spos.graph import functional


def recalibrate(model, images, batch_size=None):
    """Gives a stock model the batch norm statistics of some images, exactly.

    Args:
        model: A Functional or Sequential model, such as ``net.extract(path)``. Changed
            in place, but for frozen batch norms.
        images: Training images, an array ``[n, ...]`` (for several inputs a list, tuple
            or dict of arrays), or a dataset of batches.
        batch_size: Images per batch; all at once by default, which alone is exact. See
            `Evaluator`.

    Returns:
        The model.
    """
    images = images_of(images, model, "training")
    if not count_of(images):
        raise ValueError("Recalibration needs training images. Received: none.")
    norms = norms_of(model)
    if norms and not any(norm.trainable for norm in norms):
        raise ValueError(
            "Frozen batch norms are not recalibrated: they train and run with the "
            "statistics that they have. Received: a model all of whose "
            f"{len(norms)} batch norms have trainable=False."
        )
    engine = Engine(functional(model))
    batches = [tensors_of(engine, x) for x in shuffled(images, batch_size)]
    state = State(batches, [], {})
    for step in engine.steps:
        state.advance(engine, step, (step.unit,))
    for variable in model.non_trainable_variables:
        if id(variable) in state.statistics:
            variable.assign(ops.copy(state.statistics[id(variable)]))
    return model


def norms_of(model):
    """The batch norms of a model, with those of options that no path picks."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


class State:
    """Tensors of all calibration and validation batches at one point of the network."""

    def __init__(self, calibration, validation, statistics):
        self.calibration = calibration
        self.validation = validation
        self.statistics = statistics
        self.measured = {}

    def copy(self):
        """What may advance without this one."""
        return State(
            [dict(t) for t in self.calibration],
            [dict(t) for t in self.validation],
            dict(self.statistics),
        )

    def advance(self, engine, step, units):
        """Runs one step on every batch: calibration first, then validation with it."""
        measured = []
        for tensors in self.calibration:
            statistics = {}

            def measure(unit, inputs, statistics=statistics):
                outputs, new = engine.calibrate(unit, inputs)
                statistics.update(new)
                return outputs

            count = engine.backend.shape_of(tensors[step.inputs[0]])[0]
            engine.run(step, tensors, measure, units)
            measured.append((count, statistics))
        if measured:
            new = combine(measured)
            if new.keys() & self.statistics.keys():
                raise ValueError(APPLIED_TWICE)
            self.statistics.update(new)
            self.measured.update(measured[0][1])
        for tensors in self.validation:
            engine.run(
                step, tensors, lambda u, x: engine.infer(u, x, self.statistics), units
            )

    def predictions(self, engine):
        """The network's outputs for all validation images, at its end.

        And what they are the softmax or sigmoid of, see `engine.logits`.
        """
        packed = [
            (
                engine.pack(t),
                {i: t[key] for i, key in enumerate(engine.logits) if key in t},
            )
            for t in self.validation
        ]
        return concatenated(keras.tree.map_structure(ops.convert_to_numpy, packed))


def combine(measured):
    """Total mean and variance from those of batches.

    mean = sum n_i mean_i / N; variance = sum n_i (variance_i + mean_i^2) / N - mean^2.

    Args:
        measured: For each batch its size and a dict from the ids of a batch norm's
            variables (mean, variance) to their values.

    Returns:
        A dict from variable id to value.
    """
    total = sum(count for count, _ in measured)
    result = {}
    for ids in measured[0][1]:
        if len(measured) == 1:
            result.update(zip(ids, measured[0][1][ids], strict=True))
            continue
        values = [
            (n, *(ops.convert_to_numpy(v).astype("float64") for v in batch[ids]))
            for n, batch in measured
        ]
        mean = sum(n * m for n, m, _ in values) / total
        variance = sum(n * (v + m * m) for n, m, v in values) / total - mean * mean
        for key, value, like in zip(
            ids, (mean, variance), measured[0][1][ids], strict=True
        ):
            result[key] = ops.convert_to_tensor(value, like.dtype)
    return result


def tensors_of(engine, images):
    """What a network's first step takes: a dict from input to tensor."""
    return dict(zip(engine.inputs, engine.convert(images), strict=True))
