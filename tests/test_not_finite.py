"""A loss that is not finite stops training, and has changed nothing."""

import keras
import numpy as np
import pytest
from models import cross_entropy, data, randomize, small_net, values


def compiled(optimizer=None):
    net = randomize(small_net(blocks=1, l2=0.01, seed=3))
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
    net.compile(optimizer, cross_entropy(), metrics=["accuracy"])
    net.train_on_batch(*data(6))
    return net


def everything(net):
    return [*net.variables, *net.optimizer.variables, *net.metrics_variables]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_is_changed(bad):
    net = compiled()
    before = values(everything(net))
    x, y = data(6)
    weights = np.ones(6)
    (x if np.isnan(bad) else weights)[2] = bad
    message = rf"loss is {bad} at step 1, on path \[{int(net.draw(1)[0])}\]"
    # Not by train_on_batch, which begins by resetting metrics.
    with pytest.raises(FloatingPointError, match=message):
        net.train_step((x, y, weights))
    for variable, a, b in zip(
        everything(net), before, values(everything(net)), strict=True
    ):
        np.testing.assert_array_equal(a, b, variable.path)
    net.train_on_batch(*data(6))
    assert int(net.optimizer.iterations.value) == 2


def test_in_fit():
    net = compiled()
    weights = values(net.weights)
    x, y = data(18)
    x[3] = np.nan
    with pytest.raises(FloatingPointError, match="loss is nan at step 1"):
        net.fit(x, y, batch_size=6, shuffle=False, verbose=0)
    for a, b in zip(weights, values(net.weights), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [3, 9, 17])
def test_on_an_accelerator_one_step_late_but_not_later(monkeypatch, bad):
    net = compiled()
    backend = net.get_engine().backend
    monkeypatch.setattr(backend, "is_asynchronous", lambda: True)
    x, y = data(18)
    x[bad] = np.nan
    with pytest.raises(FloatingPointError, match=f"nan at step {1 + bad // 6}"):
        net.fit(x, y, batch_size=6, shuffle=False, verbose=0)
    assert int(net.optimizer.iterations.value) == 2 + bad // 6
    net.train_on_batch(x, y)
    with pytest.raises(FloatingPointError, match="The weights are those after"):
        net.train_on_batch(x, y)


def test_evaluation_may_be_infinite():
    net = compiled()
    x, y = data(6)
    x[0] = np.nan
    assert np.isnan(net.evaluate(x, y, verbose=0)[0])


def test_loss_scaling_skips_gradients_that_overflow():
    inner = keras.optimizers.SGD(0.1, momentum=0.9)
    net = compiled(keras.optimizers.LossScaleOptimizer(inner, initial_scale=1e38))
    trained = [*net.trainable_variables, *inner.variables]
    before = values(trained)
    x, y = data(6)
    drawn = []
    draw = net.draw
    net.draw = lambda step: drawn.append(step) or draw(step)
    net.train_on_batch(x * 1e3, y)
    for variable, a, b in zip(trained, before, values(trained), strict=True):
        np.testing.assert_array_equal(a, b, variable.path)
    net.train_on_batch(x * 1e3, y)
    # A step that was skipped is taken again, on the same path.
    assert drawn == [int(inner.iterations.value)] * 2
    assert float(net.optimizer.dynamic_scale.value) < 1e38
