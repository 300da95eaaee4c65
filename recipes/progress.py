"""How far a training is, and how long it will take."""

import sys

import keras
from tqdm import tqdm


class Progress(keras.callbacks.Callback):
    """One bar for all epochs, with the metrics of the last.

    Args:
        name: What is trained.
    """

    def __init__(self, name):
        super().__init__()
        self.name = name

    def on_train_begin(self, logs=None):
        """Opens the bar."""
        # A log file gets a line now and then.
        pause = 0.5 if sys.stderr.isatty() else 30
        steps = self.params["steps"] or 0
        total = steps * self.params["epochs"]
        self.bar = tqdm(total=total, desc=self.name, unit="step", mininterval=pause)

    def on_epoch_begin(self, epoch, logs=None):
        """Goes to where a resumed training is."""
        done = epoch * (self.params["steps"] or 0)
        if self.bar.n < done:
            self.bar.initial = self.bar.n = done

    def on_train_batch_end(self, batch, logs=None):
        """One step further."""
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        """Shows the epoch's metrics."""
        numbers = {k: f"{v:.4g}" for k, v in (logs or {}).items() if _is_number(v)}
        self.bar.set_postfix(numbers, refresh=False)

    def on_train_end(self, logs=None):
        """Closes the bar."""
        self.bar.close()


def _is_number(value):
    return isinstance(value, (int, float)) or getattr(value, "ndim", None) == 0
