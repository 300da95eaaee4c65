"""Images of four kinds, and networks to quantize that tell them apart."""

import keras
import numpy as np
from keras import layers

from keras_spos import spaces

SHAPE = (8, 8, 3)


def network():
    """Slices, both paddings, depthwise convolutions and batch norms."""
    net = spaces.shufflenet_v2(
        SHAPE,
        4,
        stem_channels=8,
        stage_channels=(16,),
        stage_blocks=(2,),
        head_channels=32,
        dropout=0.0,
    )
    return net.extract((1, 0), fresh=True)


def colours(n=120, seed=0):
    """Images of four kinds that differ in their mean colour, and their labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    means = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [-2, -2, -2]])
    x = rng.normal(size=(n, *SHAPE)) * 0.3 + means[y][:, None, None]
    return x.astype("float32"), y


def images_of_labels():
    """A model whose outputs are images: a class for each pixel, by its colour."""
    inputs = keras.Input(SHAPE)
    conv = layers.Conv2D(4, 1, name="classes")
    model = keras.Model(inputs, conv(inputs))
    kernel = np.zeros((1, 1, 3, 4))
    kernel[0, 0, :, :3] = np.eye(3)
    kernel[..., 3] = -1
    # Logits that would be no probabilities.
    conv.set_weights([kernel, np.full(4, -3.0)])
    return model
