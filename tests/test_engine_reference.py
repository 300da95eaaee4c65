"""Training equals the simple implementation: losses, weights, slots and statistics."""

import keras
import numpy as np
import pytest
from models import FromList, cross_entropy, data, dense_net, small_net
from reference import assert_trains_like_reference

from keras_spos import ChoiceBlock, Supernet

SGD = keras.optimizers.SGD


def batches(count, n=6, **arguments):
    return [data(n, seed=i, **arguments) for i in range(count)]


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1, momentum=0.9),
        SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01, clipnorm=0.3),
        keras.optimizers.AdamW(0.01, weight_decay=0.1),
        keras.optimizers.Adam(0.01, amsgrad=True, clipvalue=0.01),
        SGD(0.1, momentum=0.9, global_clipnorm=0.1),
        SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
        SGD(0.1, use_ema=True, ema_momentum=0.7),
        SGD(0.1, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=2),
        keras.optimizers.Nadam(0.01),
        keras.optimizers.RMSprop(keras.optimizers.schedules.CosineDecay(0.01, 5)),
        keras.optimizers.LossScaleOptimizer(SGD(0.1, momentum=0.9), 1024.0, 2),
        keras.optimizers.LossScaleOptimizer(SGD(0.1, use_ema=True), 1024.0, 2),
    ],
    ids=[
        "momentum",
        "nesterov_decay_clipnorm",
        "adamw",
        "amsgrad_clipvalue",
        "global_clipnorm",
        "accumulation",
        "average",
        "average_overwrites",
        "nadam",
        "schedule",
        "loss_scale",
        "loss_scale_average",
    ],
)
def test_optimizers(optimizer):
    assert_trains_like_reference(
        lambda: dense_net(seed=1), optimizer, batches(6, shape=(3,))
    )


def test_two_weights_are_all():
    """Lists of two then hold what belongs to no weight: iterations, learning rate."""

    def build():
        inputs = keras.Input((3,))
        options = [
            keras.layers.Dense(4, name, use_bias=False, name=name)
            for name in ("tanh", "relu")
        ]
        return Supernet(inputs, ChoiceBlock(options, "ab")(inputs), seed=1)

    assert_trains_like_reference(build, SGD(0.1), batches(4, shape=(3,)))


@pytest.mark.parametrize("what", ["decay", "constraint", "optimizer"])
@pytest.mark.parametrize("first", [0, 1])
def test_weights_of_equal_shape_that_are_not_updated_alike(first, what):
    net = dense_net()
    kernels = [layer.kernel for layer in net.get_layer("block_0").options]
    before = [np.array(v) for v in kernels]
    decayed = [x * (1 - 0.5 * 0.1) for x in before]
    expected = {
        "decay": before[1],
        "constraint": np.maximum(decayed[1], 0),
        "optimizer": before[1] * (1 - 0.5 * 0.02),
    }
    optimizer = SGD(0.5, momentum=0.9, weight_decay=0.1)
    if what == "optimizer":
        options = {"adam_weight_decay": 0.02, "exclude_layers": ["sigmoid"]}
        optimizer = keras.optimizers.Muon(0.5, weight_decay=0.1, **options)
    if what == "decay":
        optimizer.exclude_from_weight_decay([kernels[1]])
    if what == "constraint":
        kernels[1].constraint = keras.constraints.NonNeg()
    net.compile(optimizer, cross_entropy())
    x, y = data(4, (3,))
    for option in (first, 1 - first):
        net.sampler = FromList([(option, 0)])
        # Without a gradient: decay alone moves weights.
        net.train_on_batch(x, y, sample_weight=np.zeros(4))
    np.testing.assert_allclose(kernels[0], decayed[0], 1e-6)
    np.testing.assert_allclose(kernels[1], expected[what], 1e-6)


@pytest.mark.parametrize("l2", [None, 0.05])
def test_options_of_differing_structure(l2):
    net, _ = assert_trains_like_reference(
        lambda: small_net(seed=4, l2=l2), SGD(0.05, momentum=0.9), batches(5)
    )
    assert {0, 1, 2, 3} == {int(i) for s in range(5) for i in net.draw(s)}


def test_dropout_and_sample_weight():
    weights = np.linspace(0.2, 2.0, 6).astype("float32")
    assert_trains_like_reference(
        lambda: small_net(seed=2, dropout=0.4, blocks=1),
        SGD(0.05, momentum=0.9),
        [(*batch, weights) for batch in batches(4)],
    )
