"""How much path dropout, when? More and more, as One-Shot trains its supernet."""

import keras


class GrowPathDropout(keras.callbacks.Callback):
    """Raises the rate of a `OneShotSampler` linearly (Bender et al., 2018).

        rate(step) = final_rate * min(1, step / steps)

    The rate follows from the step alone, so a resumed run goes on with it.

    Args:
        final_rate: The rate from step number `steps` on, in [0, 1].
        steps: Length of the growth.
    """

    def __init__(self, final_rate, steps):
        super().__init__()
        if not 0 <= final_rate <= 1 or steps < 1:
            raise ValueError(
                "Expected a final_rate between 0 and 1, and steps >= 1. "
                f"Received: final_rate={final_rate}, steps={steps}"
            )
        self.final_rate = final_rate
        self.steps = steps

    def on_train_begin(self, logs=None):
        """Checks that there is a rate to raise, and begins anew."""
        if not hasattr(self.model.sampler, "rate"):
            raise ValueError(
                "Path dropout needs a sampler with a rate, such as a OneShotSampler. "
                f"Received: {type(self.model.sampler).__name__}"
            )
        # `Resume` tells trainings apart by their samplers; the step sets the rate.
        self.model.sampler.rate = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the rate of the step to come."""
        step = self.model.count_steps()
        self.model.sampler.rate = self.final_rate * min(1.0, step / self.steps)
