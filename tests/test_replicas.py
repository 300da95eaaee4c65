"""Two replicas take the same path and end with the weights that one would have."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_spos as ks

SCRIPT = """
import contextlib, json, sys, keras
replicas = int(sys.argv[1])
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, logical)
    devices = [f"CPU:{i}" for i in range(replicas)]
    scope = tf.distribute.MirroredStrategy(devices).scope
else:
    scope = contextlib.nullcontext
    distribution = keras.distribution
    if sys.argv[2] == "model":
        devices = distribution.list_devices()
        mesh = distribution.DeviceMesh((1, replicas), ["batch", "model"], devices)
        layouts = distribution.LayoutMap(mesh)
        # Output channels of convolutions are spread over the devices.
        layouts[".*conv.*kernel"] = (None, None, None, "model")
        layouts[".*conv.*bias"] = ("model",)
        distribution.set_distribution(
            distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
        )
    elif replicas > 1:
        distribution.set_distribution(distribution.DataParallel())
import numpy as np
import keras_spos as ks

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x, y = rng.random((32, 6, 6, 2), dtype="float32"), rng.integers(0, 3, 32)
with scope():
    inputs = keras.Input((6, 6, 2))
    h = inputs
    for i in range(2):
        options = [
            keras.layers.Conv2D(
                4, k, padding="same", activation="tanh", kernel_regularizer="l2",
                kernel_initializer=keras.initializers.RandomNormal(seed=10 * i + k),
            )
            for k in (1, 3)
        ]
        h = ks.ChoiceBlock(options, labels=("k1", "k3"), name=f"b{i}")(h)
    inner = z = keras.Input(h.shape[1:])
    for i, widths in enumerate([(2, 8), (4, 4)]):
        z = ks.layers.SliceableConv2D(
            widths, 1, activation="tanh",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.5, seed=i),
        )(z)
    h = ks.ElasticBlock([keras.Model(inner, z)], widths=("narrow", "wide"))(h)
    h = keras.layers.GlobalAveragePooling2D()(h)
    # What replicas normalize differs: of a batch norm, its average of means alone
    # is that of one replica.
    norm = keras.layers.BatchNormalization(momentum=0.5)
    h = h + 0.0 * keras.ops.mean(norm(inputs), (1, 2, 3))[:, None]
    # Its seed is no statistic, of which replicas take the mean.
    h = keras.layers.GaussianNoise(1e-8)(h)
    last = keras.initializers.RandomNormal(seed=99)
    net = ks.Supernet(inputs, keras.layers.Dense(3, kernel_initializer=last)(h))
around = scope if sys.argv[2] == "inside" else contextlib.nullcontext
# Unit by unit, then all at once.
for average in ({}, {"use_ema": True, "ema_momentum": 0.7}):
    with scope():
        net.compile(
            keras.optimizers.SGD(0.1, momentum=0.9, **average),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    with around():
        logs = net.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
with around():
    evaluated = net.evaluate(x, y, batch_size=8, verbose=0)
    predictions = net.predict(x, batch_size=8, verbose=0).tolist()
weights = [*net.trainable_variables, norm.moving_mean]
copies = [getattr(v.value, "values", [v.value]) for v in weights]
print(json.dumps({
    "weights": [[np.ravel(w).tolist() for w in each] for each in copies],
    "history": logs.history,
    "evaluated": evaluated,
    "predictions": predictions,
}))
"""


def train(replicas, kind="data"):
    flags = os.environ["XLA_FLAGS"]
    flags += f" --xla_force_host_platform_device_count={replicas}"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(replicas), kind],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def one():
    return train(1)


def test_two_replicas_train_as_one(one):
    assert_equal(train(2), one)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")
def test_weights_spread_over_devices_train_as_on_one(one):
    assert_equal(train(2, "model"), one)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="of TensorFlow alone")
@pytest.mark.parametrize("replicas", [1, 2])
def test_all_may_be_inside_the_scope(one, replicas):
    assert_equal(train(replicas, "inside"), one)


def assert_equal(two, one):
    for (a,), copies in zip(one["weights"], two["weights"], strict=True):
        for b in copies:
            np.testing.assert_allclose(a, b, atol=1e-6)
    for name, values in one["history"].items():
        np.testing.assert_allclose(values, two["history"][name], atol=1e-5)
    np.testing.assert_allclose(one["evaluated"], two["evaluated"], atol=1e-5)
    np.testing.assert_allclose(one["predictions"], two["predictions"], atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="of TensorFlow alone")
def test_synchronized_norms_are_refused(monkeypatch):
    inputs = keras.Input((4, 4, 2))
    norm = keras.layers.BatchNormalization(synchronized=True, name="both")
    net = ks.Supernet(inputs, ks.ChoiceBlock([norm, keras.layers.ReLU()])(inputs))
    engine = net.get_engine()
    x = np.zeros((2, 4, 4, 2), "float32")
    engine.forward(x, (0,), (0, 0))
    engine.runner._cache.clear()
    monkeypatch.setattr(engine.backend, "is_replicated", lambda: True)
    engine.forward(x, (1,), (0, 0))
    with pytest.raises(ValueError, match="synchronized=False.*both"):
        engine.forward(x, (0,), (0, 0))
