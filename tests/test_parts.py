"""What spaces are built of."""

import keras
import numpy as np
import pytest

from keras_spos.spaces.parts import deal


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("size", [4, None], ids=["fixed", "open"])
def test_channels_are_dealt_out_in_turn(size, parts):
    inputs = keras.Input((size, size, 6))
    model = keras.Model(inputs, deal(inputs, parts))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype("float32")
    for i, part in enumerate(model(x)):
        np.testing.assert_array_equal(part, x[..., i::parts])
