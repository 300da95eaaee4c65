"""Quantizers equal values and gradients worked out by hand, and PyTorch's autograd."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_spos.quantizers import check_bits, dorefa, pact


def value_and_gradients(function, *arrays):
    """Value of a function of arrays, and the gradients of its sum."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(a, "float32") for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
        gradients = tape.gradient(
            y, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
    else:
        import jax

        tensors = [jax.numpy.asarray(a, "float32") for a in arrays]
        y = function(*tensors)
        gradients = jax.grad(
            lambda *t: function(*t).sum(), argnums=tuple(range(len(tensors)))
        )(*tensors)
    return ops.convert_to_numpy(y), [ops.convert_to_numpy(g) for g in gradients]


def test_two_bit_activations_by_hand():
    # alpha 3, 2 bits: the levels are 0, 1, 2, 3. Ties go to the even level.
    x = [-1.0, 0.0, 0.4, 0.6, 1.5, 2.5, 2.9, 3.0, 7.0]
    y, (dx, dalpha) = value_and_gradients(lambda x, a: pact(x, a, 2), x, 3.0)
    np.testing.assert_allclose(y, [0, 0, 0, 1, 2, 2, 3, 3, 3], rtol=1e-6)
    np.testing.assert_array_equal(dx, [0, 0, 1, 1, 1, 1, 1, 0, 0])
    # The clip begins at alpha itself.
    assert dalpha == 2
    # A range that training has closed.
    assert not np.any(ops.convert_to_numpy(pact(ops.array(x), 0.0, 2)))


def test_limits_of_activation_bits():
    x = np.linspace(-1, 8, 1000)
    one, _ = value_and_gradients(lambda x: pact(x, 6.0, 1), x)
    np.testing.assert_array_equal(np.unique(one), [0, 6])
    eight, _ = value_and_gradients(lambda x: pact(x, 6.0, 8), x)
    assert np.abs(eight - np.clip(x, 0, 6)).max() <= 6 / 255 / 2 + 1e-6
    assert len(np.unique(eight)) <= 256
    same, _ = value_and_gradients(lambda x: pact(x, 6.0, 32), x)
    np.testing.assert_array_equal(same, x.astype("float32"))


def test_one_bit_weights_by_hand():
    w = [[-1.0, 0.5], [0.0, 2.5]]  # mean size 1
    q, (dw,) = value_and_gradients(lambda w: dorefa(w, 1), w)
    np.testing.assert_allclose(q, [[-1, 1], [1, 1]], rtol=1e-6)
    np.testing.assert_array_equal(dw, np.ones((2, 2)))


def test_two_bit_weights_by_hand():
    # tanh gives -0.9, 0.45, 0.09; over the largest, and halved, plus a half:
    # u = 0, 0.75, 0.55. Times 3 and rounded: 0, 2, 2. q = -1, 1/3, 1/3.
    t = np.array([-0.9, 0.45, 0.09])
    q, (dw,) = value_and_gradients(lambda w: dorefa(w, 2), np.arctanh(t))
    np.testing.assert_allclose(q, [-1, 1 / 3, 1 / 3], atol=1e-6)
    # q = t / m, m = |t_0| = 0.9: dq_1/dt_1 = 1/m. t_0 is the maximum, so that q_0 is
    # constant, and moves the others: d(q_1 + q_2)/dt_0 = -(t_1 + t_2) sign(t_0) / m^2.
    dt = np.array([0.54 / 0.81, 1 / 0.9, 1 / 0.9])
    np.testing.assert_allclose(dw, dt * (1 - t**2), rtol=1e-4)


def test_limits_of_weight_bits():
    w = np.random.default_rng(0).normal(size=(3, 3, 4, 8))
    t = np.tanh(w)
    eight, _ = value_and_gradients(lambda w: dorefa(w, 8), w)
    assert np.abs(eight - t / np.abs(t).max()).max() <= 1 / 255 + 1e-6
    for bits in range(2, 9):
        q, _ = value_and_gradients(lambda w, bits=bits: dorefa(w, bits), w)
        assert len(np.unique(q)) <= 2**bits
        assert np.abs(q).max() == 1
    same, _ = value_and_gradients(lambda w: dorefa(w, 32), w)
    np.testing.assert_array_equal(same, w.astype("float32"))
    zeros, (dw,) = value_and_gradients(lambda w: dorefa(w, 4), np.zeros((2, 2)))
    assert np.all(np.isfinite(zeros)) and np.all(np.isfinite(dw))


@pytest.mark.parametrize("bits", [0, 9, 16, 2.5, -1, "4"])
def test_bit_widths_outside_1_to_8_are_refused(bits):
    with pytest.raises(ValueError, match=r"1 to 8, or 32 for float. Received"):
        check_bits(bits)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_pytorch_agrees(bits):
    """Written from the papers with autograd functions, which nothing here uses."""
    torch = pytest.importorskip("torch")

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, steps):
            return torch.round(x * steps) / steps

        @staticmethod
        def backward(ctx, gradient):
            return gradient, None

    class Pact(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, alpha):
            ctx.save_for_backward(x, alpha)
            steps = (2**bits - 1) / alpha
            return torch.round(torch.clamp(x, 0, alpha.item()) * steps) / steps

        @staticmethod
        def backward(ctx, gradient):
            x, alpha = ctx.saved_tensors
            inside = (x > 0) & (x < alpha)
            return gradient * inside, (gradient * (x >= alpha)).sum()

    rng = np.random.default_rng(bits)
    x, w = rng.normal(size=(4, 5, 6)) * 4, rng.normal(size=(3, 3, 4, 8))
    # Sums of different factors, so that gradients of elements differ.
    fx, fw = rng.normal(size=x.shape), rng.normal(size=w.shape)
    tx = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    alpha = torch.tensor(5.3, requires_grad=True)
    ty = Pact.apply(tx, alpha)
    (ty * torch.tensor(fx)).sum().backward()
    y, (dx, dalpha) = value_and_gradients(
        lambda x, a: pact(x, a, bits) * ops.cast(fx, "float32"), x, 5.3
    )
    np.testing.assert_allclose(y, ty.detach().numpy() * fx, atol=1e-5)
    np.testing.assert_allclose(dx, tx.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(dalpha, alpha.grad.numpy(), rtol=1e-4)

    tw = torch.tensor(w, dtype=torch.float32, requires_grad=True)
    if bits == 1:
        size = tw.abs().mean().detach()
        tq = tw + (torch.where(tw >= 0, size, -size) - tw).detach()
    else:
        t = torch.tanh(tw)
        tq = 2 * Round.apply(t / (2 * t.abs().max()) + 0.5, 2**bits - 1) - 1
    (tq * torch.tensor(fw)).sum().backward()
    q, (dw,) = value_and_gradients(
        lambda w: dorefa(w, bits) * ops.cast(fw, "float32"), w
    )
    np.testing.assert_allclose(q, tq.detach().numpy() * fw, atol=1e-5)
    np.testing.assert_allclose(dw, tw.grad.numpy(), atol=1e-5)
