import concurrent.futures
import threading

import keras
import numpy as np
import pytest

from keras_spos import data
from keras_spos.data.look_ahead import LookAhead
from keras_spos.data.sets import ArrayData


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, [50, 8, 8, 3], dtype=np.uint8)
    return ArrayData(images, np.arange(50) % 5)


def epoch(stream, number):
    stream.set_epoch(number)
    return [(np.array(x), np.array(y)) for x, y in stream]


def assert_same(one, other):
    assert len(one) == len(other)
    for (x, y), (x_other, y_other) in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, x_other)
        np.testing.assert_array_equal(y, y_other)


def test_epochs_repeat_in_any_order(arrays):
    train = data.training(arrays, 8, seed=3)
    forward = [epoch(train, e) for e in range(3)]
    for e in (2, 0, 1):
        assert_same(epoch(data.training(arrays, 8, seed=3), e), forward[e])
        assert_same(epoch(train, e), forward[e])
    assert any((a[0] != b[0]).any() for a, b in zip(*forward[:2], strict=True))
    other = epoch(data.training(arrays, 8, seed=4), 0)
    assert any((a[0] != b[0]).any() for a, b in zip(forward[0], other, strict=True))


def test_each_batch_has_an_augmentation_of_its_own():
    # Of equal images the order does not matter.
    image = np.random.default_rng(0).integers(0, 256, [1, 8, 8, 3], dtype=np.uint8)
    equal = ArrayData(image.repeat(16, axis=0), np.zeros(16, int))
    batches = [
        x.tobytes()
        for seed in range(2)
        for e in range(2)
        for x, _ in epoch(data.training(equal, 8, seed), e)
    ]
    assert len(set(batches)) == 8
    # Of 8 pixels an eighth is one, which is what may be black.
    white = ArrayData(np.full((16, 8, 8, 3), 255, np.uint8), np.zeros(16, int))
    x = epoch(data.training(white, 16), 0)[0][0]
    assert (x[:, 1:-1, 1:-1] == 1).all() and (x == 0).any()


def test_batches_may_be_asked_for_in_any_order(arrays):
    train = data.training(arrays, 8, workers=3)
    expected = epoch(data.training(arrays, 8), 0)
    for index in (5, 0, 3, 3, 1, 4, 2):
        np.testing.assert_array_equal(train[index][0], expected[index][0])


def test_an_epoch_is_every_image_once(arrays):
    train = data.training(arrays, 10, augment=None)
    x, y = (np.concatenate(parts) for parts in zip(*epoch(train, 1), strict=True))
    assert (x.dtype, x.shape) == (np.float32, (50, 8, 8, 3))
    assert (y.dtype, y.shape) == (np.int32, (50,))
    # A pixel row identifies an image; its label has to be the image's own.
    key = {
        image.tobytes(): label
        for image, label in zip(arrays.images, arrays.labels, strict=True)
    }
    seen = [np.rint(image * 255).astype(np.uint8).tobytes() for image in x]
    assert len(set(seen)) == 50
    assert [key[image] for image in seen] == y.tolist()


def test_training_batches_are_full_and_standardised(arrays):
    mean, std = data.channel_statistics(arrays.images)
    train = data.training(arrays, 8, augment=None, mean=mean, std=std)
    assert len(train) == 6
    assert (train.has_partial_batch, train.partial_batch_size) == (False, None)
    x = np.concatenate([x for x, _ in epoch(train, 0)])
    assert x.shape == (48, 8, 8, 3)
    np.testing.assert_allclose(x.mean(axis=(0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(x.std(axis=(0, 1, 2)), 1, atol=0.05)


def test_a_shorter_epoch_is_the_start_of_the_order(arrays):
    whole = epoch(data.training(arrays, 8), 2)
    assert_same(epoch(data.training(arrays, 8, batches_per_epoch=4), 2), whole[:4])


def test_evaluation_keeps_every_image_in_order(arrays):
    batches = list(data.evaluation(arrays, 16, mean=(0.5,) * 3, std=(0.25,) * 3))
    assert [len(y) for _, y in batches] == [16, 16, 16, 2]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_allclose(x, (arrays.images / 255 - 0.5) / 0.25, atol=1e-5)
    np.testing.assert_array_equal(y, arrays.labels)


def test_errors(arrays):
    with pytest.raises(ValueError, match="full batch. Received: 50 images"):
        data.training(arrays, 51)
    for size in (0, -3, 8.0):
        for feed in (data.training, data.evaluation):
            with pytest.raises(ValueError, match=f">= 1. Received: batch_size={size}"):
                feed(arrays, size)
    for batches in (0, 7):
        with pytest.raises(ValueError, match=f"batches_per_epoch={batches}"):
            data.training(arrays, 8, batches_per_epoch=batches)
    with pytest.raises(ValueError, match="Received: 'cutout'"):
        data.training(arrays, 8, augment="cutout")
    with pytest.raises(ValueError, match="seed=-1"):
        data.training(arrays, 8, seed=-1)
    with pytest.raises(ValueError, match="engine='tf.data'"):
        data.training(arrays, 8, engine="tf.data")
    with pytest.raises(IndexError, match="index < 6"):
        data.training(arrays, 8)[6]


def test_epochs_are_counted_without_a_callback(arrays):
    train = data.training(arrays, 8)
    seen = []

    def read(batches):
        train.on_epoch_begin()
        seen.append(train.epoch)
        # Which asks for no more after the last batch.
        for _ in zip(range(batches), train, strict=False):
            pass
        train.on_epoch_end()

    read(1)  # As `fit` does to build a model.
    for _ in range(3):
        read(6)
    train.set_epoch(7)
    for _ in range(2):
        read(6)
    assert seen == [0, 0, 1, 2, 7, 8]
    # A pass that has begun is of one epoch to its end.
    expected = epoch(train, 3)
    train.set_epoch(3)
    begun = iter(train)
    first = next(begun)
    train.set_epoch(5)
    assert_same([first, *begun], expected)


def test_look_ahead_never_mixes_epochs_and_repeats_failures():
    failing, most = {(1, 1)}, []

    def make(epoch, index):
        most.append(index)
        if (epoch, index) in failing:
            raise OSError("unreadable")
        return epoch, index

    ahead = LookAhead(make, depth=3, workers=2)
    for key in [(0, 0), (0, 1), (1, 0), (0, 2), (0, 9), (2, 0)]:
        assert ahead.get(*key, length=10) == key
        assert len(ahead._futures) <= 3  # What was made for others is not kept.
    for _ in range(2):
        with pytest.raises(OSError, match="unreadable"):
            ahead.get(1, 1, length=10)
    failing.clear()
    assert ahead.get(1, 1, length=10) == (1, 1)
    assert max(most) == 9


@pytest.mark.parametrize("batches", [2, 6])
def test_threads_end_with_the_pass_that_they_read_for(arrays, batches):
    train = data.training(arrays, 8, workers=2)
    for number in range(2):
        others = threading.enumerate()
        train.set_epoch(number)
        batch = iter(train)
        read = [next(batch) for _ in range(batches)]
        mine = set(threading.enumerate()) - set(others)
        assert mine
        if batches == 6:
            assert next(batch, None) is None
        del batch  # As one that is left half way is.
        for thread in mine:
            thread.join(10)
            assert not thread.is_alive()
        assert_same(epoch(train, number)[:batches], read)


def test_what_was_made_ahead_of_a_failure_is_made_again():
    broken = threading.Event()
    broken.set()

    def make(epoch, index):
        if broken.is_set() and index:
            raise OSError("a worker was killed")
        return epoch, index

    ahead = LookAhead(make, depth=3, workers=2)
    assert ahead.get(0, 0, length=4) == (0, 0)
    concurrent.futures.wait(list(ahead._futures.values()))
    with pytest.raises(OSError, match="killed"):
        ahead.get(0, 1, length=4)
    broken.clear()
    assert [ahead.get(0, i, length=4) for i in range(4)] == [(0, i) for i in range(4)]


class SetEpoch(keras.callbacks.Callback):
    def __init__(self, stream):
        super().__init__()
        self.stream = stream

    def on_epoch_begin(self, epoch, logs=None):
        self.stream.set_epoch(epoch)


class Recorder(keras.layers.Layer):
    """Writes a number that identifies each batch into a variable."""

    def build(self, shape):
        def add(name, shape, dtype):
            return self.add_weight(
                name=name,
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
            )

        self.count = add("count", (), "int32")
        self.log = add("log", (100,), "float32")

    def call(self, x, training=False):
        if training:
            here = keras.ops.arange(100) == keras.ops.convert_to_tensor(self.count)
            mark = signature(keras.ops, x)
            self.log.assign(keras.ops.where(here, mark, 1.0 * self.log))
            self.count.assign(self.count + 1)
        return keras.ops.mean(x, axis=(1, 2))


def signature(ops, x):
    # Sensitive to the order of the images and to their mirroring.
    weights = np.random.default_rng(0).random([8, 8, 8, 3], np.float32)
    return ops.sum(x * weights)


def value(variable):
    return np.asarray(keras.ops.convert_to_tensor(variable))


def recorded_fit(train, initial_epoch, epochs, callback=True, **options):
    recorder = Recorder()
    # Neither model nor metrics are built, so that `fit` reads a batch in advance.
    model = keras.Sequential([recorder, keras.layers.Dense(5)])
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        train,
        initial_epoch=initial_epoch,
        epochs=epochs,
        verbose=0,
        callbacks=[SetEpoch(train)] if callback else [],
        **options,
    )
    count = int(value(recorder.count))
    return value(recorder.log)[:count]


@pytest.mark.parametrize("workers", [1, 3])
def test_fit_resumed_reads_the_same_batches(arrays, workers):
    def fresh():
        return data.training(arrays, 8, seed=5, workers=workers)

    expected = [signature(np, x) for e in range(3) for x, _ in epoch(fresh(), e)]
    never_killed = recorded_fit(fresh(), 0, 3)
    resumed = recorded_fit(fresh(), 2, 3)
    np.testing.assert_allclose(never_killed, expected, rtol=1e-4)
    np.testing.assert_array_equal(resumed, never_killed[12:])


def test_fit_without_a_callback_counts_epochs(arrays):
    def fresh():
        return data.training(arrays, 8, seed=5)

    counted = recorded_fit(fresh(), 0, 3, callback=False)
    np.testing.assert_array_equal(counted, recorded_fit(fresh(), 0, 3))


def test_fit_in_parts_of_an_epoch(arrays):
    train = data.training(arrays, 8, seed=5)
    whole = [signature(np, x) for e in range(2) for x, _ in epoch(train, e)]
    train.set_epoch(0)
    recorded = recorded_fit(train, 0, 4, callback=False, steps_per_epoch=3)
    np.testing.assert_allclose(recorded, whole, rtol=1e-4)


def test_predict_and_evaluate_see_every_image(arrays):
    inputs = keras.Input([8, 8, 3])
    outputs = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = data.evaluation(arrays, 16)
    logits = model.predict(batches, verbose=0)
    x = data.standardise(arrays.images).mean(axis=(1, 2))
    kernel, bias = (value(weight) for weight in model.weights)
    np.testing.assert_allclose(logits, x @ kernel + bias, atol=1e-5)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    chosen = shifted[np.arange(50), arrays.labels] / shifted.sum(axis=1)
    loss = model.evaluate(batches, verbose=0)
    assert loss == pytest.approx(-np.log(chosen).mean(), rel=1e-4)


def test_tensorflow_tunes_nothing(arrays):
    """The end of an epoch may wait for the thread that does, for as long as it took."""
    pytest.importorskip("tensorflow")
    options = data.training(arrays, 8).get_tf_dataset().options()
    assert options.autotune.enabled is False
