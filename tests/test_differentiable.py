"""Table 7's training steps: their gates' gradients, and what they run and move."""

import keras
import numpy as np
import pytest
from models import FromList, cross_entropy, data, dense_net, randomize, values

from recipes.differentiable import FBNet, ProxylessNAS, SinglePath


def net(**arguments):
    model = randomize(dense_net(**arguments))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), cross_entropy())
    return model


def batch():
    return data(6, shape=(3,))


def test_an_open_gate_is_single_path_training():
    path = (0, 1)
    nets = net(sampler=FromList([path])), net()
    expected = nets[0].train_on_batch(*batch())
    gates = [{i: 1.0} for i in path]
    loss, _ = SinglePath(nets[1])._step(*batch(), gates, weights=True)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(*(values(n.trainable_variables) for n in nets), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_weights_decay_as_in_single_path_training():
    path = (0, 1)
    nets = net(sampler=FromList([path])), net()
    for each in nets:
        for variable in each.trainable_variables:
            variable.regularizer = keras.regularizers.L2(0.1)
    before = values(nets[1].trainable_variables)
    nets[0].train_on_batch(*batch())
    SinglePath(nets[1])._step(*batch(), [{i: 1.0} for i in path], weights=True)
    after = values(nets[1].trainable_variables)
    expected = values(nets[0].trainable_variables)
    assert sum((a != b).any() for a, b in zip(before, after, strict=True)) == 6
    for a, b in zip(after, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_slopes_of_gates_are_finite_differences():
    trainer = FBNet(net())
    gates = [{0: 0.3, 1: 0.7}, {0: 0.6, 1: 0.4}]
    _, slopes = trainer._step(*batch(), gates, weights=False)
    for decision in range(2):
        for option in range(2):
            losses = []
            for change in (1e-2, -1e-2):
                moved = [dict(g) for g in gates]
                moved[decision][option] += change
                losses.append(trainer._step(*batch(), moved, weights=False)[0])
            difference = (losses[0] - losses[1]) / 2e-2
            assert slopes[decision][option] == pytest.approx(difference, rel=0.02)


def test_fbnet_gradient_by_finite_differences():
    """dL/da of L = sum s_i g_i with g = softmax(a / T), noise aside."""
    trainer = FBNet(net(), temperature=2.0)
    a, s = np.array([0.5, -0.2]), np.array([1.0, 3.0])

    def gates(a):
        e = np.exp(a / 2.0)
        return e / e.sum()

    (found, _) = trainer.gradients(
        [dict(enumerate(gates(a))), {0: 0.5, 1: 0.5}],
        {0: dict(enumerate(s)), 1: {0: 0, 1: 0}},
    )
    expected = [(s @ gates(a + d) - s @ gates(a - d)) / 2e-4 for d in 1e-4 * np.eye(2)]
    np.testing.assert_allclose(found, expected, 1e-5)


def test_fbnet_moves_every_option_and_learns_gates():
    model = net()
    trainer = FBNet(model)
    before = values(model.trainable_variables)
    losses = [trainer.train_step(*batch()) for _ in range(8)]
    assert losses[-1] < losses[0]
    for a, b in zip(before, values(model.trainable_variables), strict=True):
        assert np.any(a != b)
    assert all(np.any(p != 0) for p in trainer.parameters)


def test_proxyless_runs_two_options_and_moves_one():
    model = net()
    trainer = ProxylessNAS(model)
    for gates in (trainer.architecture_gates() for _ in range(10)):
        for g in gates:
            assert sorted(g.values()) == [0.0, 1.0]
    gates = [{0: 1.0, 1: 0.0}, {1: 1.0, 0: 0.0}]
    first, second = model.searchable_layers
    still = [*first.options[1].variables, *second.options[0].variables]
    before = values(still)
    _, slopes = trainer._step(*batch(), gates, weights=True)
    # The closed option was run: its gate has a slope; but nothing of it moved.
    assert sorted(slopes[0]) == sorted(slopes[1]) == [0, 1]
    for a, b in zip(before, values(still), strict=True):
        np.testing.assert_array_equal(a, b)
    # a = 0: p = (1/2, 1/2), dL/da = (s_0 - s_1) / 4 (1, -1).
    found = trainer.gradients(gates, slopes)
    for gradient, s in zip(found, (slopes[0], slopes[1]), strict=True):
        expected = np.array([1, -1]) * (s[0] - s[1]) / 4
        np.testing.assert_allclose(gradient, expected, 1e-6)
