"""How good a path is: exact batch norm statistics, then a metric on fixed data.

Example:
    >>> score = Evaluator(net, calibration=images, validation=(x, y))  # doctest: +SKIP
    >>> score(net.space.sample(10, seed=0))                            # doctest: +SKIP
"""

import collections
import zlib

import keras
import numpy as np
from keras import ops
from tqdm.auto import tqdm

from keras_spos.batches import (
    concatenated,
    count_of,
    images_and_labels_of,
    images_of,
    rows_of,
    shuffled,
    split,
)
from keras_spos.extraction import extract
from keras_spos.recalibration import State, combine, norms_of, tensors_of
from keras_spos.scores import check_metric, describe_metric, score_of


class Evaluator:
    """Scores paths with a supernet's inherited weights (SPOS, section 3).

    For each path, batch norm statistics are first computed anew on the calibration
    images, then the metric is taken on the validation set, the same images in the same
    order for every path. The supernet is not changed. Scores are cached, until the
    supernet's weights change, or its batch norms are frozen.

    The statistics are exact: mean and variance over all calibration images at once,
    so that every layer sees the inputs it will see in inference. Only if they do not
    fit into `memory` (or `calibration_batch_size`) they are shuffled and taken in
    batches, as in the authors' code; batches' statistics are combined to the total mean
    and variance, but each layer sees inputs that were normalized by their own batch.

    Frozen batch norms (``trainable=False``) keep their moving averages, with which they
    also train.

    Args:
        net: A `Supernet`.
        calibration: Training images: an array ``[n, ...]``, a dataset of batches, or a
            list of batches. The paper takes 20,000. For a net of several inputs,
            instead of one array a list, tuple or dict of arrays.
        validation: A pair (images, labels) of arrays, or a dataset of such batches. For
            a net of several inputs or outputs, images or labels are a list, tuple or
            dict of arrays. Sample weights that batches may have are not used.
        metric: "accuracy", "top5", "loss", or a Keras metric. Higher is better; for
            "loss" the score is its negative. What "accuracy" means follows from labels
            and outputs, as in ``compile(metrics=["accuracy"])``. A tuple of these gives
            several scores from one pass, ``[n, metrics]``. For a net of several
            outputs it is "loss", or a function from (labels, outputs), in their own
            structures and of all images, to a number.
        batch_size: Images per batch of the validation set; None is one batch.
        calibration_batch_size: Images per batch of the calibration set. By default as
            many as there are, up to `memory`.
        recalibrate: False uses the supernet's moving averages, for comparison.
        memory: Bytes that intermediate tensors of calibration and validation images may
            take. Within it, paths that begin alike share the computation of what they
            have in common.
        preprocess: Applied to each batch of images, such as a standardization of
            images that are kept as bytes.
        verbose: Whether to show progress when scoring more than one path.
    """

    def __init__(
        self,
        net,
        calibration,
        validation,
        metric="accuracy",
        batch_size=500,
        calibration_batch_size=None,
        recalibrate=True,
        memory=4e9,
        preprocess=None,
        verbose=False,
    ):
        self.net = net
        images = None
        if calibration is not None:
            images = images_of(calibration, net, "calibration")
        if recalibrate and (images is None or not count_of(images)):
            raise ValueError(
                "Recalibration needs training images. Received: an empty calibration "
                "set. (To score without it, pass recalibrate=False.)"
            )
        x, y = images_and_labels_of(validation, net)
        self.labels = y
        self.metric = metric
        for one in self._metrics():
            # The supernet may be compiled later, see `__call__`.
            if one != "loss":
                check_metric(one, net, y)
        self.recalibrate = recalibrate
        self.verbose = verbose
        self.preprocess = preprocess or (lambda images: images)
        self.cache = {}
        self._known = None
        per_image = _largest_bytes(net)
        total = per_image * (count_of(x) + (count_of(images) if recalibrate else 0))
        # A snapshot is kept for each choice that a later path changes.
        self._share = total * 4 <= memory
        self._validation = split(x, batch_size)
        self._calibration = []
        if recalibrate:
            fits = max(1, int(memory / 4 / per_image))
            self._calibration = shuffled(images, calibration_batch_size or fits)

    def __call__(self, paths):
        """Scores one path or many.

        Args:
            paths: A path, or an integer array ``[n, decisions]``.

        Returns:
            A float array ``[n]``, or ``[n, metrics]``.
        """
        paths = [tuple(int(v) for v in p) for p in self.net.space.validate(paths)]
        if "loss" in self._metrics():
            check_metric("loss", self.net, self.labels)
        frozen = _frozen_norms(self.net)
        known = _fingerprint(self.net), self._described_metrics(), frozen
        if known != self._known:
            self.cache.clear()
            self._known = known
        missing = sorted({p for p in paths if p not in self.cache})
        show = tqdm(
            total=len(missing),
            unit="path",
            disable=not self.verbose or len(missing) < 2,
        )
        with show:
            for path, _, predictions in self._run(missing):
                self.cache[path] = self._score(path, predictions)
                show.update()
        return np.array([self.cache[p] for p in paths])

    def identity(self):
        """What scores depend on: a text that changes with weights, images or metric."""
        batches = [*self._calibration, *self._validation]
        # That preprocessing is the same shows on an image.
        prepared = self.preprocess(rows_of(batches[0], slice(1)))
        prepared = keras.tree.map_structure(ops.convert_to_numpy, prepared)
        checksum = 0
        for array in keras.tree.flatten([batches, self.labels, prepared]):
            checksum = zlib.crc32(np.ascontiguousarray(array), checksum)
        counts = [count_of(batch) for batch in self._calibration]
        return (
            f"weights {_fingerprint(self.net):08x}, images "
            f"{checksum:08x}, metric {self._described_metrics()}, recalibrate "
            f"{counts or False}{_frozen_norms(self.net)}"
        )

    def _described_metrics(self):
        return ", ".join(describe_metric(m, self.net) for m in self._metrics())

    def predict(self, path):
        """Outputs for the validation images on a path, with its own statistics."""
        ((_, _, (predictions, _)),) = self._run([self.net.space.path(path)])
        return predictions

    def statistics(self, path):
        """The batch norm statistics of a path.

        Returns:
            A dict from variable path to array, for the variables on the path. Blocks
            whose layers have equal names give variables of equal paths: before those
            comes the block's name, as in "block_1/norm1/moving_mean".
        """
        path = self.net.space.path(path)
        ((_, statistics, _),) = self._run([path])
        engine = self.net.get_engine()
        measured = {}
        for step, units in zip(engine.steps, engine.units(path), strict=True):
            for variable in (v for unit in units for v in unit.non_trainable):
                if id(variable) in statistics:
                    measured[id(variable)] = variable.path, step.layer
        count = collections.Counter(name for name, _ in measured.values())
        named = {}
        for key, (name, layer) in measured.items():
            if count[name] > 1 and layer is not None:
                name = f"{layer.name}/{name}"
            if name in named:
                raise ValueError(
                    "Expected different names of the layers of a block. Received: "
                    f"several variables on path {path} that are {name!r}."
                )
            named[name] = ops.convert_to_numpy(statistics[key])
        return named

    def extract(self, path):
        """``net.extract(path)``, with the statistics that `path` was scored with."""
        path = self.net.space.path(path)
        ((_, statistics, _),) = self._run([path])
        return extract(self.net, self.net.space, path, overrides=statistics)

    def _metrics(self):
        return self.metric if isinstance(self.metric, tuple) else (self.metric,)

    def _score(self, path, predictions):
        if any(np.any(np.isnan(part)) for part in keras.tree.flatten(predictions)):
            raise ValueError(
                f"Expected outputs that are numbers. Received: NaN on path {path}. The "
                "supernet's weights or the images are not finite."
            )
        scores = [
            score_of(metric, self.net, self.labels, *predictions)
            for metric in self._metrics()
        ]
        return scores if isinstance(self.metric, tuple) else scores[0]

    def _run(self, paths):
        """Yields (path, statistics, predictions) for each of some sorted paths."""
        engine = self.net.get_engine()
        if not self._share:
            for path in paths:
                yield self._run_image_by_image(engine, path)
            return
        order = [d for step in engine.steps for d in step.decisions]
        paths = sorted(paths, key=lambda p: [p[d] for d in order])
        units = [engine.units(path) for path in paths]
        shared = [_common_prefix(a, b) for a, b in zip(units, units[1:], strict=False)]
        snapshots = {0: self._start(engine)}
        for number, path in enumerate(paths):
            begin = max(snapshots)
            state = snapshots[begin].copy()
            # Where a later path leaves this one, if no path between does so before.
            wanted = set(np.minimum.accumulate(shared[number:]).tolist())
            with engine.runner.queueing():
                for position in range(begin, len(engine.steps)):
                    if position in wanted:
                        snapshots[position] = state.copy()
                    active = units[number][position]
                    state.advance(engine, engine.steps[position], active)
            yield path, state.statistics, state.predictions(engine)
            if number < len(shared):
                snapshots = {k: s for k, s in snapshots.items() if k <= shared[number]}

    def _start(self, engine):
        return State(
            [self._tensors(engine, x) for x in self._calibration],
            [self._tensors(engine, x) for x in self._validation],
            {},
        )

    def _tensors(self, engine, images):
        return tensors_of(engine, self.preprocess(images))

    def _run_image_by_image(self, engine, path):
        """Batches one after the other through the whole network: little memory."""
        units = engine.units(path)
        measured = []
        for images in self._calibration:
            state = State([self._tensors(engine, images)], [], {})
            _run_through(engine, state, units)
            measured.append((count_of(images), state.measured))
        statistics = combine(measured) if measured else {}
        predictions = []
        for images in self._validation:
            state = State([], [self._tensors(engine, images)], statistics)
            _run_through(engine, state, units)
            predictions.append(state.predictions(engine))
        return path, statistics, concatenated(predictions)


def _run_through(engine, state, units):
    with engine.runner.queueing():
        for step, active in zip(engine.steps, units, strict=True):
            state.advance(engine, step, active)


def _common_prefix(a, b):
    """Number of steps that two lists of units have in common at their beginning."""
    for position, (x, y) in enumerate(zip(a, b, strict=True)):
        if x != y:
            return position
    return len(a)


def _largest_bytes(net):
    """Bytes per image of the largest tensor between layers."""
    shapes = [
        t.shape[1:]
        for op in net.operations
        for n in op._inbound_nodes
        for t in n.outputs
    ]
    return 4 * max(int(np.prod([d or 224 for d in s])) for s in shapes)


def _frozen_norms(net):
    """Which batch norms are not recalibrated, as text; "" if all are."""
    frozen = [norm.path for norm in norms_of(net) if not norm.trainable]
    if not frozen:
        return ""
    checksum = zlib.crc32("\n".join(frozen).encode())
    return f", {len(frozen)} batch norms frozen ({checksum:08x})"


def _fingerprint(net):
    """Changes when the weights change."""
    # Frozen weights too; not the current path.
    variables = [v for v in net.weights if keras.backend.is_float_dtype(v.dtype)]
    checksum = 0
    for value in net.get_engine().runner.read(variables):
        array = np.ascontiguousarray(ops.convert_to_numpy(value))
        checksum = zlib.crc32(array.view("uint8"), checksum)
    return checksum
