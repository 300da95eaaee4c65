"""`recompute`: the same training, from less memory."""

import keras
import numpy as np
import pytest
from models import FromList, cross_entropy, data, small_net
from reference import assert_close, assert_trains_like_reference

from keras_spos import ChoiceBlock, PathDropoutSampler, Supernet

SGD = keras.optimizers.SGD


def recomputing(net):
    net.recompute = True
    return net


def test_random_layers_and_penalties():
    net, _ = assert_trains_like_reference(
        lambda: recomputing(small_net(seed=4, dropout=0.4, l2=0.05)),
        SGD(0.05, momentum=0.9),
        [data(6, seed=i) for i in range(5)],
    )
    assert {0, 1, 2, 3} == {int(i) for s in range(5) for i in net.draw(s)}


# XLA draws other numbers than TensorFlow, and the same numbers twice.
@pytest.mark.parametrize(
    "jit_compile, sampler",
    [("auto", PathDropoutSampler(0.5)), (True, FromList([(0, 3)]))],
)
def test_it_may_be_switched_on_and_off(jit_compile, sampler):
    nets = [small_net(sampler, dropout=0.4) for _ in range(2)]
    nets[1].set_weights(nets[0].get_weights())
    for net in nets:
        optimizer = SGD(0.05, momentum=0.9)
        net.compile(optimizer, cross_entropy(), jit_compile=jit_compile)
    for step in range(6):
        nets[1].recompute = step % 3 == 1
        losses = [net.train_on_batch(*data(6, seed=step)) for net in nets]
        np.testing.assert_allclose(losses[1], losses[0], 1e-5)
    assert_close(nets[1].weights, nets[0].weights, 1e-5)


def kept_images(net):
    """Shapes of the images that a forward pass keeps, for each unit of a path."""
    x, y = data(5)
    net.compile("sgd", cross_entropy())
    net.build_head((x, y))
    _, _, tape = net.get_engine().forward(x, (0, 2), (0, 0))
    if keras.backend.backend() == "jax":
        import jax

        leaves = [jax.tree.leaves(record[-1]) for record in tape.records]
    else:
        leaves = [keras.tree.flatten(record[-1]) for record in tape.records]
    return [
        [
            x.shape
            for x in own
            if hasattr(x, "shape") and len(x.shape) == 4 and len(x) == 5
        ]
        for own in leaves
    ]


def test_of_images_the_inputs_alone_are_kept():
    kept = kept_images(recomputing(small_net()))
    assert [[tuple(s) for s in own] for own in kept] == [
        [(5, 6, 6, 3)],
        [(5, 6, 6, 4)],
        [(5, 6, 6, 4)],
        [(5, 6, 6, 4)],
    ]
    assert sum(map(len, kept_images(small_net()))) > 4


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="no such numbers")
@pytest.mark.parametrize(
    "draw, operation",
    [
        (lambda random: random.normal, "RandomStandardNormal"),
        (lambda random: random.truncated_normal, "TruncatedNormal"),
        (lambda random: random.Generator.from_seed(1).normal, "RngReadAndSkip"),
    ],
    ids=["normal", "truncated", "generator"],
)
def test_numbers_that_are_drawn_anew_are_refused(draw, operation):
    import tensorflow as tf

    normal = draw(tf.random)

    class Noise(keras.layers.Layer):
        def call(self, x):
            return x + normal(tf.shape(x))

    inputs = keras.Input((3,))
    block = ChoiceBlock([keras.layers.Dense(4), keras.layers.Dense(4)])
    net = Supernet(inputs, Noise(name="noise")(block(inputs)))
    net.compile("sgd", "mse")
    x, y = np.ones((2, 3)), np.ones((2, 4))
    net.train_on_batch(x, y)
    net.recompute = True
    with pytest.raises(ValueError, match=f"same numbers twice.*{operation}"):
        net.train_on_batch(x, y)


def test_it_is_saved(tmp_path):
    net = recomputing(small_net(FromList([(0, 1)])))
    net.save(tmp_path / "net.keras")
    assert keras.saving.load_model(tmp_path / "net.keras").recompute is True
    config = net.get_config()
    # As written before there was such an argument.
    del config["recompute"]
    assert Supernet.from_config(config).recompute is False
