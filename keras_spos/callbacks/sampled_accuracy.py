"""How good are random paths while a supernet trains?"""

import keras
import numpy as np


class SampledAccuracy(keras.callbacks.Callback):
    """Scores the same random paths at the ends of epochs (SPOS, Figure 1).

    Adds "sampled_accuracy_mean", "sampled_accuracy_min" and "sampled_accuracy_max" to
    the logs; put it before callbacks that use them, `Resume` among them.

    Args:
        evaluator: An `Evaluator` of the supernet that is trained, with one metric.
        paths: Paths, an integer array ``[n, decisions]``, or how many to draw.
        every: Score after every so many epochs.
        seed: Seed of the paths that are drawn.

    Attributes:
        paths: Integer array ``[n, decisions]``.
        epochs: The epochs after which paths were scored, counted from 0.
        scores: For each of these a list of the `n` scores.
    """

    def __init__(self, evaluator, paths=10, every=1, seed=0):
        super().__init__()
        if every < 1:
            raise ValueError(f"Expected every >= 1. Received: every={every}")
        if isinstance(evaluator.metric, tuple):
            raise ValueError(
                "Expected an evaluator of one metric. "
                f"Received: metric={evaluator.metric}"
            )
        space = evaluator.net.space
        drawn = isinstance(paths, (int, np.integer))
        self.paths = space.sample(paths, seed) if drawn else space.validate(paths)
        if not len(self.paths):
            raise ValueError("Expected at least one path. Received: none.")
        self.evaluator = evaluator
        self.every = every
        self.epochs = []
        self.scores = []

    def on_train_begin(self, logs=None):
        """Checks that the evaluator scores what is trained."""
        if self.evaluator.net is not self.model:
            raise ValueError(
                f"The evaluator scores {self.evaluator.net.name!r}, which is not the "
                f"model that is trained, {self.model.name!r}."
            )

    def on_epoch_end(self, epoch, logs=None):
        """Scores the paths."""
        if (epoch + 1) % self.every:
            return
        scores = self.evaluator(self.paths)
        self.epochs.append(epoch)
        self.scores.append([float(s) for s in scores])
        if logs is not None:
            logs["sampled_accuracy_mean"] = float(np.mean(scores))
            logs["sampled_accuracy_min"] = float(np.min(scores))
            logs["sampled_accuracy_max"] = float(np.max(scores))

    def get_state(self):
        """What `Resume` saves."""
        paths = self.paths.tolist()
        return {"paths": paths, "epochs": self.epochs, "scores": self.scores}

    def set_state(self, state):
        """Takes what `get_state` returned."""
        if state["paths"] != self.paths.tolist():
            raise ValueError(
                f"The checkpoint's {len(state['paths'])} sampled paths are others than "
                f"these {len(self.paths)}. Use the same paths and seed."
            )
        self.epochs, self.scores = list(state["epochs"]), list(state["scores"])
