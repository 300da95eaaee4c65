"""ShadowBatchNormalization: a batch norm for each number of summed paths.

The outputs of k paths that resemble each other sum to about k times one of them:

    E[x + y] = 2 E[x],  Var[x + y] = 4 Var[x]          (MixPath, Equations 3 and 4)

One pair of statistics cannot fit all sums, but one for each k can.

Example:
    >>> norm = ShadowBatchNormalization(max_paths=2)
    >>> y = norm(a + b, num_paths=2)                               # doctest: +SKIP
"""

import keras
from keras import layers


@keras.saving.register_keras_serializable("keras_spos")
class ShadowBatchNormalization(layers.Layer):
    """Holds a stock batch norm for each number of paths (MixPath, section 3.3).

    Statistics, scale and offset of a number of paths that is not used stay as they are.
    With ``max_paths=1`` this is batch normalization.

    Args:
        max_paths: The paper's m, the largest number of paths.
        shadow: False gives all numbers of paths one batch norm, for comparison.
        momentum: Momentum of the moving averages.
        epsilon: Added to the variance.
        center: Whether to add an offset.
        scale: Whether to multiply by a scale.
        name: The layer's name.

    Call arguments:
        inputs: A tensor, the channels last.
        num_paths: How many paths it is the sum of, a Python integer.
        training: Whether to use the batch's statistics and to update the averages.
    """

    def __init__(
        self,
        max_paths,
        shadow=True,
        momentum=0.9,
        epsilon=1e-5,
        center=True,
        scale=True,
        name=None,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if max_paths < 1:
            raise ValueError(
                f"max_paths is at least 1. Received: max_paths={max_paths}"
            )
        self.max_paths = max_paths
        self.shadow = shadow
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.norms = [
            layers.BatchNormalization(
                momentum=momentum,
                epsilon=epsilon,
                center=center,
                scale=scale,
                dtype=self.dtype_policy,
                name=f"norm_{count}",
            )
            for count in range(1, (max_paths if shadow else 1) + 1)
        ]

    def norm(self, num_paths):
        """The stock `BatchNormalization` for a number of paths."""
        if not 1 <= num_paths <= self.max_paths:
            raise ValueError(
                f"{self.name!r} is for 1 to {self.max_paths} paths. "
                f"Received: num_paths={num_paths}"
            )
        return self.norms[num_paths - 1 if self.shadow else 0]

    def build(self, input_shape):
        """Builds every batch norm for the same channels."""
        for norm in self.norms:
            if not norm.built:
                norm.build(input_shape)

    def call(self, inputs, num_paths=1, training=None):
        """Applies the batch norm for `num_paths`."""
        return self.norm(num_paths)(inputs, training=training)

    def compute_output_shape(self, input_shape):
        """That of the input."""
        return input_shape

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "max_paths": self.max_paths,
            "shadow": self.shadow,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
        }
