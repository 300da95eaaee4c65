"""Smoothed labels by hand, and against Keras's loss of integer labels."""

import keras
import numpy as np
import pytest
from models import cross_entropy, data

import keras_spos as ks

LOGITS = np.array([[0.0, np.log(3)]], "float32")  # Probabilities 1/4 and 3/4.
# Of two classes, a smoothing of 0.2 gives 0.9 to the label and 0.1 to the other.
BY_HAND = -(0.9 * np.log(0.75) + 0.1 * np.log(0.25))


def value(loss, *arguments):
    return keras.ops.convert_to_numpy(loss(*arguments))


@pytest.mark.parametrize("labels", [[1], [[1]]])
def test_by_hand(labels):
    found = value(ks.SmoothedCrossentropy(0.2), np.array(labels), LOGITS)
    np.testing.assert_allclose(found, BY_HAND, rtol=1e-6)
    assert ks.SmoothedCrossentropy().smoothing == 0.1  # SPOS's.


def test_of_each_example_whatever_the_labels_shape():
    _, labels = data(5)
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    loss = ks.SmoothedCrossentropy(0.3, reduction=None)
    each = value(loss, labels, logits)
    assert each.shape == (5,)
    np.testing.assert_array_equal(value(loss, labels[:, None], logits), each)
    target = 0.7 * np.eye(4)[labels] + 0.3 / 4
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(each, -(target * log_p).sum(1), rtol=1e-5)


def test_sample_weights():
    labels, logits = np.array([1, 0]), np.repeat(LOGITS, 2, axis=0)
    loss = ks.SmoothedCrossentropy(0.2, reduction="sum")
    found = value(loss, labels, logits, np.array([3.0, 0.0], "float32"))
    np.testing.assert_allclose(found, 3 * BY_HAND, rtol=1e-6)


def test_without_smoothing_it_is_the_cross_entropy():
    _, labels = data(8)
    logits = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    found = value(ks.SmoothedCrossentropy(0.0), labels, logits)
    np.testing.assert_allclose(found, value(cross_entropy(), labels, logits), 1e-6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=rf"\[0, 1\)\. Received: .*{smoothing}"):
        ks.SmoothedCrossentropy(smoothing)


def test_configuration_round_trip():
    loss = ks.SmoothedCrossentropy(0.2, name="mine", reduction="sum")
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is ks.SmoothedCrossentropy
    assert again.get_config() == loss.get_config()
    assert (again.smoothing, again.name, again.reduction) == (0.2, "mine", "sum")
