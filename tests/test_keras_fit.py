"""With one path to draw, `fit` equals Keras' own `fit` of that path's stock model.

The same history and weights, whichever way data arrives and however it is compiled.
"""

import functools

import keras
import numpy as np
import pytest
from models import FromList, cross_entropy, data, dense_net, randomize, small_net

import keras_spos as ks

PATH = (1, 0)
SGD = keras.optimizers.SGD
X, Y = data(11, (3,))


def fit(x=X, y=Y, **arguments):
    """Two epochs of four batches, the last of two images."""

    def run(model):
        options = {"epochs": 2, "verbose": 0, "shuffle": False, **arguments}
        if isinstance(x, np.ndarray):
            return model.fit(x, y, batch_size=3, **options).history
        return model.fit(x(), **options).history

    return run


def compile_model(model, optimizer=None, **compiled):
    options = {"loss": cross_entropy(), "metrics": ["accuracy"], **compiled}
    model.compile(optimizer or SGD(0.1, momentum=0.9), **options)
    return model


def assert_equal_results(net, stock, histories, tolerance=1e-5):
    assert list(histories[0]) == list(histories[1])
    for key, values in histories[1].items():
        np.testing.assert_allclose(histories[0][key], values, tolerance, tolerance)
    for a, b in zip(net.extract(PATH).variables, stock.variables, strict=True):
        if "seed" not in a.path:
            a, b = (np.array(keras.ops.convert_to_numpy(v.value)) for v in (a, b))
            np.testing.assert_allclose(a, b, tolerance, tolerance)


def assert_fits_like_keras(run, compile_model=compile_model, net=None, **arguments):
    """Fits a net that draws one path, and the stock model; compares everything."""
    net = net or randomize(dense_net(sampler=FromList([PATH])))
    stock = net.extract(PATH)
    net.set_path(PATH)
    histories = [run(compile_model(model)) for model in (net, stock)]
    assert_equal_results(net, stock, histories, **arguments)
    return net


@functools.cache
def usual_result():
    """What Keras makes of arrays, without any option."""
    stock = randomize(dense_net()).extract(PATH)
    return stock, fit(validation_data=(X, Y))(compile_model(stock))


def assert_fits_as_usual(run, **compiled):
    net = randomize(dense_net(sampler=FromList([PATH])))
    net.set_path(PATH)
    stock, history = usual_result()
    mine = run(compile_model(net, **compiled))
    assert_equal_results(net, stock, [mine, {key: history[key] for key in mine}])


class Numbers(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        batch = slice(3 * index, 3 * index + 3)
        return X[batch], Y[batch]


def tensorflow_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)


def generator():
    while True:
        for index in range(4):
            yield *Numbers()[index], None


@pytest.mark.parametrize(
    "run",
    [
        fit(validation_data=(X, Y)),
        fit(X.astype("float64"), Y.astype("int64")),
        fit(Numbers),
        fit(tensorflow_dataset),
        fit(generator, steps_per_epoch=4),
    ],
    ids=["arrays", "float64", "py_dataset", "tf_data", "generator"],
)
def test_ways_in_which_data_arrives(run):
    assert_fits_as_usual(run)


@pytest.mark.parametrize("x", [X, tensorflow_dataset, Numbers], ids=["x", "tf", "py"])
def test_several_steps_per_execution(x):
    run = fit(x, Y, validation_data=(X, Y))
    assert_fits_as_usual(run, steps_per_execution=3)


@pytest.mark.parametrize(
    "compiled",
    [{"run_eagerly": True}, {"jit_compile": True}, {"jit_compile": False}],
    ids=str,
)
def test_ways_to_compile(compiled):
    assert_fits_as_usual(fit(), **compiled)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA always")
def test_xla_compiles_if_it_is_asked_to():
    class Length(keras.layers.Layer):
        """What XLA cannot compile."""

        def call(self, x):
            import tensorflow as tf

            return x + tf.cast(tf.strings.length(tf.strings.as_string(x)), x.dtype)

    inputs = keras.Input((4,))
    block = ks.ChoiceBlock([keras.layers.Dense(4), keras.layers.Dense(4)])
    net = ks.Supernet(inputs, Length()(block(inputs)))
    x = np.ones((2, 4), "float32")
    net.compile("sgd", "mse")
    net.train_on_batch(x, x)
    net.compile("sgd", "mse", jit_compile=True)
    with pytest.raises(Exception, match="AsString"):
        net.train_on_batch(x, x)


def test_weights_of_samples_and_validation_split():
    run = fit(sample_weight=np.linspace(0, 2, len(X)), validation_split=0.4)
    assert_fits_like_keras(
        run, lambda model: compile_model(model, weighted_metrics=["accuracy"])
    )


def test_weights_of_classes():
    assert_fits_like_keras(fit(class_weight={0: 0.5, 1: 1.0, 2: 2.0, 3: 0.1}))


def test_custom_metric_and_loss():
    class Confidence(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            best = keras.ops.max(keras.ops.softmax(y_pred), axis=-1)
            return super().update_state(best, sample_weight)

    def margin(y_true, y_pred):
        return keras.ops.sum(keras.ops.square(y_pred - 1.0), axis=-1)

    def compiled(model):
        metrics = [Confidence(), keras.metrics.SparseTopKCategoricalAccuracy(2)]
        return compile_model(model, loss=margin, metrics=metrics)

    assert_fits_like_keras(fit(), compiled)


def test_callbacks():
    def run(model):
        callbacks = [
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1)),
            keras.callbacks.EarlyStopping("loss", restore_best_weights=True),
        ]
        return fit(callbacks=callbacks)(model)

    assert_fits_like_keras(run)


def test_an_optimizer_that_changes_gradients_before_it_applies_them():
    class Halved(SGD):
        def apply_gradients(self, grads_and_vars):
            return super().apply_gradients([(g / 2, v) for g, v in grads_and_vars])

    losses = []
    for optimizer in (Halved(0.2), SGD(0.1)):
        net = randomize(dense_net(sampler=FromList([PATH])))
        losses.append(fit()(compile_model(net, optimizer))["loss"])
    np.testing.assert_allclose(*losses, 1e-5)


def test_weights_averaged_at_the_end_of_fit():
    def compiled(model):
        return compile_model(model, SGD(0.1, use_ema=True, ema_momentum=0.5))

    assert_fits_like_keras(fit(), compiled)


def test_batch_by_batch():
    def run(model):
        logs = {}
        for i in range(3):
            weights = np.linspace(0.5, 1, 3)
            out = model.train_on_batch(*Numbers()[i], weights, return_dict=True)
            logs |= {f"{i}_{k}": v for k, v in out.items()}
        logs |= model.test_on_batch(X, Y, return_dict=True)
        return logs | {"outputs": model.predict_on_batch(X)}

    assert_fits_like_keras(run)


def test_regularization_is_part_of_the_loss_in_evaluation_too():
    net = randomize(small_net(l2=0.1, sampler=FromList([PATH])))
    x, y = data(5)
    stock = net.extract(PATH)
    net.set_path(PATH)
    known = len(net.losses)
    losses = [compile_model(m).evaluate(x, y, verbose=0)[0] for m in (net, stock)]
    np.testing.assert_allclose(*losses, 1e-5)
    assert len(net.losses) == known > 1


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_predict_and_evaluate(steps_per_execution):
    def run(model):
        compile_model(model, steps_per_execution=steps_per_execution)
        return {
            "outputs": model.predict(X, batch_size=3, verbose=0),
            "scores": model.evaluate(X, Y, batch_size=3, verbose=0),
        }

    assert_fits_like_keras(run)


def test_callbacks_may_set_the_path_that_runs():
    class SetPath(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            self.model.set_path((1, 1))

        on_predict_begin = on_test_begin

        def on_test_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.set_path((0, 0))

    # Regularized, as the penalty is the path's.
    net = compile_model(randomize(small_net(l2=0.1)))
    x, y = data(8)
    net.set_path((0, 0))
    outputs = net.predict(x, verbose=0, callbacks=[SetPath()])
    np.testing.assert_allclose(outputs, net.extract((1, 1)).predict(x, verbose=0), 1e-4)
    loss, _ = net.evaluate(x, y, batch_size=2, verbose=0, callbacks=[SetPath()])
    halves = []
    for path, half in zip([(1, 1), (0, 0)], np.split(np.arange(8), 2), strict=True):
        net.set_path(path)
        halves.append(net.evaluate(x[half], y[half], verbose=0)[0])
    assert abs(halves[0] - halves[1]) > 1e-3
    np.testing.assert_allclose(loss, np.mean(halves), 1e-5)


def test_predict_needs_no_compilation():
    net = randomize(dense_net())
    np.testing.assert_allclose(
        net.predict(X, verbose=0), net.extract().predict(X, verbose=0), 1e-5, 1e-6
    )


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has it switched off")
def test_double_precision(mixed_precision):
    mixed_precision("float64")
    net = assert_fits_like_keras(fit())
    assert net.layers[-1].compute_dtype == "float64"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy, mixed_precision):
    mixed_precision(policy)
    net = assert_fits_like_keras(fit(), tolerance=0.02)
    scaled = isinstance(net.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert net.layers[-1].compute_dtype == policy.removeprefix("mixed_")


def test_compiled_again_an_optimizer_goes_on_with_its_loss_scale():
    def run(model):
        optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1), 4.0, 2)
        for _ in range(2):
            compile_model(model, optimizer)
            fit()(model)
        scales = float(optimizer.dynamic_scale.value), int(optimizer.step_counter.value)
        return {"variables": len(optimizer.variables), "scales": scales}

    net = randomize(dense_net(sampler=FromList([PATH])))
    stock = net.extract(PATH)
    # 16 steps, of which every other doubles the scale.
    assert run(stock) == run(net)
    assert net.optimizer.dynamic_scale == 4.0 * 2**8


def test_compiled_again_the_loss_is_another():
    def run(model):
        logs, optimizer = {}, SGD(0.1)
        for loss in (cross_entropy(), lambda y, p: keras.ops.mean(p * p, axis=-1)):
            logs = {f"first_{key}": value for key, value in logs.items()}
            logs |= fit()(compile_model(model, optimizer, loss=loss))
        return logs

    assert_fits_like_keras(run)


def test_a_list_of_one_output_is_that_output():
    inputs = keras.Input((3,))
    block = ks.ChoiceBlock([keras.layers.Dense(4), keras.layers.Dense(4)], "ab")
    net = ks.Supernet(inputs, [block(inputs)])
    expected = net.extract((0,)).predict(X, batch_size=3, verbose=0)
    outputs = net.predict(X, batch_size=3, verbose=0)
    np.testing.assert_allclose(outputs, expected, 1e-5, 1e-6)
    assert type(outputs) is type(expected)
    assert net.predict_on_batch(X).shape == expected.shape


def test_outputs_that_are_integers_have_no_gradient():
    inputs = keras.Input((3,))
    options = []
    for name in "ab":
        x = keras.layers.Dense(4, name=name)(inputs)
        options.append(keras.Model(inputs, [x, keras.ops.argmax(x, -1)]))
    x, label = ks.ChoiceBlock(options, "ab", name="block")(inputs)
    net = ks.Supernet(inputs, {"logits": x, "label": label, "again": label})
    net.sampler = FromList([(0,)])
    stock = net.extract((0,))
    losses = []
    for model in (net, stock):
        model.compile(SGD(0.1), {"logits": cross_entropy(), "label": None})
        y = {"logits": Y, "label": Y, "again": Y}
        losses.append([model.train_on_batch(X, y) for _ in range(3)])
    np.testing.assert_allclose(*losses, 1e-5)
    assert losses[0][2] < losses[0][0]
