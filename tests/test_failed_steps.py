"""What fails in a step, or between two, is raised, and has changed nothing."""

import keras
import numpy as np
import pytest
from keras.optimizers import SGD
from models import cross_entropy, data, dense_net

import keras_spos as ks


def test_what_fails_between_steps_of_an_execution_is_raised():
    x, y = data(3, (3,))

    def broken():
        yield from ((x, y), (x, y))
        raise RuntimeError("no third batch")

    net = dense_net()
    net.compile("sgd", cross_entropy(), steps_per_execution=3)
    with pytest.raises(Exception, match="no third batch"):
        net.fit(broken(), steps_per_epoch=3, shuffle=False, verbose=0)
    assert int(net.optimizer.iterations.value) == 2


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of its queue")
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_fails_in_a_queued_step_is_raised_and_forgotten(where):
    import tensorflow as tf

    class Small(keras.layers.Layer):
        """Fails on numbers of ten and more."""

        def call(self, x):
            def check(y, when):
                small = tf.debugging.assert_less(x, 10.0) if when == where else None
                with tf.control_dependencies([small] if small is not None else []):
                    return tf.identity(y)

            @tf.custom_gradient
            def identity(y):
                return check(y, "forward"), lambda dy: check(dy, "backward")

            return identity(x)

    inputs = keras.Input((4,))
    options = [keras.layers.Dense(4, kernel_initializer="identity") for _ in "ab"]
    net = ks.Supernet(inputs, Small()(ks.ChoiceBlock(options)(inputs)))
    net.compile(SGD(0.01), "mse")
    x = np.ones((2, 4), "float32")
    for _ in range(2):
        net.train_on_batch(x, x)
        with pytest.raises(tf.errors.InvalidArgumentError, match="less"):
            net.train_on_batch(10 * x, x)
    np.testing.assert_array_equal(options[0].kernel, np.eye(4))
    np.testing.assert_array_equal(options[1].kernel, np.eye(4))
    assert net.train_on_batch(2 * x, x) > 0


def test_a_step_whose_backward_pass_fails_has_changed_nothing():
    class Fails(keras.layers.Layer):
        """Without a gradient."""

        def call(self, x):
            @keras.ops.custom_gradient
            def identity(x):
                def gradient(*args, upstream=None):
                    raise RuntimeError("no gradient")

                return x, gradient

            return identity(x)

    inputs = keras.Input((4,))
    blocks = [
        ks.ChoiceBlock([keras.layers.Dense(4), keras.layers.Dense(4)], name=name)
        for name in "ab"
    ]
    # Of the three units, the first to go back through is the second block.
    net = ks.Supernet(inputs, blocks[1](Fails()(blocks[0](inputs))))
    net.compile(SGD(0.1, momentum=0.9), "mse")
    net.optimizer.build(net.trainable_variables)
    variables = [*net.variables, *net.optimizer.variables]
    before = [np.array(v.value) for v in variables]
    with pytest.raises(RuntimeError, match="no gradient"):
        net.train_on_batch(np.ones((2, 4), "float32"), np.zeros((2, 4), "float32"))
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, value, err_msg=variable.path)
