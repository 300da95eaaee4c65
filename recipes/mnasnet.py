"""How MnasNet's networks are trained: RMSProp, and a rate that rises, then decays.

MixPath retrains its ImageNet networks with "the same training tricks as MnasNet"
(section 4.2) and states none of them. MnasNet (Tan et al., CVPR 2019, section 5): decay
and momentum 0.9, weight decay 1e-5, dropout 0.2; the learning rate rises from 0 to
0.256 in 5 epochs of batches of 4096 images, then decays by 0.97 every 2.4 epochs. From
MnasNet's released code: 350 epochs, label smoothing 0.1, RMSProp's epsilon 0.001. Not
taken over: its batch norms' momentum of 0.99 and the moving average of the weights.
"""

import keras
from keras import ops

import keras_spos as ks

DROPOUT = 0.2
L2 = 1e-5
EPOCHS = 350
# For 4096 images; the rate is proportional to the batch.
PEAK, BATCH_SIZE = 0.256, 4096
# As shares of the whole training, so that shorter ones have the same shape.
WARM_UP = 5 / EPOCHS
DECAY = 2.4 / EPOCHS


def compile_network(model, steps, batch_size):
    """Compiles a network to be trained from scratch.

    Dropout and weight decay are those that the model was built with.

    Args:
        model: A Keras model.
        steps: Length of the training.
        batch_size: Images per step.
    """
    schedule = RisingThenDecaying(
        PEAK * batch_size / BATCH_SIZE, WARM_UP * steps, DECAY * steps
    )
    model.compile(
        keras.optimizers.RMSprop(schedule, rho=0.9, momentum=0.9, epsilon=1e-3),
        ks.SmoothedCrossentropy(0.1),
        metrics=["accuracy"],
    )


@keras.saving.register_keras_serializable("keras_spos_recipes")
class RisingThenDecaying(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises linearly, then falls in steps.

        rate(t) = peak t / warm_up                                  for t < warm_up
                  peak decay_rate^floor((t - warm_up) / decay)      else

    Args:
        peak: The highest rate.
        warm_up: Steps until then.
        decay: Steps between two decays.
        decay_rate: What each decay multiplies by.
    """

    def __init__(self, peak, warm_up, decay, decay_rate=0.97):
        super().__init__()
        if peak <= 0 or warm_up <= 0 or decay <= 0 or decay_rate <= 0:
            raise ValueError(
                "Expected positive arguments. "
                f"Received: {peak=}, {warm_up=}, {decay=}, {decay_rate=}"
            )
        self.peak = peak
        self.warm_up = warm_up
        self.decay = decay
        self.decay_rate = decay_rate

    def __call__(self, step):
        """The rate of a step."""
        step = ops.cast(step, "float32")
        decays = ops.floor((step - self.warm_up) / self.decay)
        falling = self.peak * ops.power(self.decay_rate, decays)
        rising = self.peak * step / self.warm_up
        return ops.where(step < self.warm_up, rising, falling)

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            "peak": self.peak,
            "warm_up": self.warm_up,
            "decay": self.decay,
            "decay_rate": self.decay_rate,
        }
