"""Cross-entropy with label smoothing for integer labels."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_spos")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits with smoothed labels (SPOS trains with 0.1).

    The target gives ``1 - smoothing`` to the label and spreads ``smoothing`` evenly
    over all classes.

    Args:
        smoothing: In [0, 1).
        name: The loss's name.
        **kwargs: Of `keras.losses.Loss`.
    """

    def __init__(self, smoothing=0.1, name="smoothed_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        if not 0 <= smoothing < 1:
            raise ValueError(
                f"Label smoothing is in [0, 1). Received: smoothing={smoothing}"
            )
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        """Loss of each example; labels ``[n]``, logits ``[n, classes]``."""
        target = ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1])
        target = ops.reshape(target, ops.shape(y_pred))
        return keras.losses.categorical_crossentropy(
            target, y_pred, from_logits=True, label_smoothing=self.smoothing
        )

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "smoothing": self.smoothing}
