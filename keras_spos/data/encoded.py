"""How do encoded images become batches with `tf.data`? Repeatable by epoch.

The first element of each pass reads the epoch from a variable; order and augmentation
are then stateless functions of (seed, epoch, position). It works with `fit` on every
backend, as long as TensorFlow is installed.
"""

import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from keras_spos.data import photo_tf
from keras_spos.data.pixels import affine
from keras_spos.data.stream import count_batches

# There is no Python control flow to convert; trying takes half of the start-up time.
_as_it_is = tf.autograph.experimental.do_not_convert


# A DataAdapter, as `fit` warns about shuffle=True, its default, for a plain Dataset.
class TensorFlowStream(DataAdapter):
    """Batches from a `tf.data.Dataset`; counts epochs like `stream.Stream`.

    Args:
        dataset: A `tf.data.Dataset` of (images, labels) that knows its length.
        n: The number of images.
        batch_size: Images in a full batch.
        next_epoch: The int64 variable that a pass reads and increments when it begins;
            None if epochs do not differ.
    """

    def __init__(self, dataset, n, batch_size, next_epoch=None):
        """Stores the arguments."""
        self.dataset = dataset
        self.n = n
        self._batch_size = batch_size
        self._next_epoch = next_epoch

    def set_epoch(self, epoch):
        """Says which epoch the next pass is.

        Args:
            epoch: Integer, counted from 0 as `fit` counts.
        """
        if self._next_epoch is not None:
            self._next_epoch.assign(epoch)

    def __len__(self):
        """Returns the number of batches of an epoch."""
        return int(self.dataset.cardinality())

    def __iter__(self):
        """Begins a pass; yields numpy arrays."""
        return self.dataset.as_numpy_iterator()

    def get_numpy_iterator(self):
        """Begins a pass; see `__iter__`."""
        return iter(self)

    def get_jax_iterator(self):
        """Begins a pass; see `__iter__`."""
        return iter(self)

    def get_tf_dataset(self):
        """Returns the dataset."""
        return self.dataset

    @property
    def num_batches(self):
        """The number of batches of an epoch."""
        return len(self)

    @property
    def batch_size(self):
        """Images in a full batch."""
        return self._batch_size

    @property
    def has_partial_batch(self):
        """Whether the last batch is smaller."""
        return len(self) * self._batch_size > self.n

    @property
    def partial_batch_size(self):
        """Images in the last batch if it is smaller, else None."""
        return self.n % self._batch_size if self.has_partial_batch else None


def training_stream(
    data, batch_size, seed, size, mean=None, std=None, batches_per_epoch=None
):
    """Builds the training pipeline.

    Args:
        data: `FileData` or `StreamData`.
        batch_size: Images in a batch; a last one that is not full is dropped.
        seed: Non-negative integer.
        size: Height and width in pixels.
        mean: Three channel means as fractions of 255, or None.
        std: Three standard deviations, likewise.
        batches_per_epoch: How many batches an epoch has; None is all.

    Returns:
        A `TensorFlowStream` of (float32 ``[batch_size, size, size, 3]``,
        int32 ``[batch_size]``).

    Raises:
        ValueError: If there is not one full batch.
    """
    length = count_batches(len(data), batch_size, True, batches_per_epoch)
    with tf.device("CPU:0"):  # Where pipelines run; a GPU's variable fails there.
        next_epoch = tf.Variable(0, dtype=tf.int64, trainable=False)

    @_as_it_is
    def begin(_):
        epoch = next_epoch.read_value()
        next_epoch.assign(epoch + 1)
        return epoch

    @_as_it_is
    def read(epoch):
        key = tf.random.fold_in(tf.constant([0, seed], tf.int64), epoch)
        examples = data.encoded(shuffle_seed=tf.random.fold_in(key, 0))
        key = tf.random.fold_in(key, 1)
        return examples.enumerate().map(
            lambda i, example: (tf.random.fold_in(key, i), *example)
        )

    @_as_it_is
    def augment(key, image, label):
        pixels = photo_tf.training_photo(image, key, size)
        return _standardise(pixels, mean, std), tf.cast(label, tf.int32)

    # Decoding stays outside flat_map, where tf.data tunes the parallelism best.
    dataset = tf.data.Dataset.range(1).map(begin).flat_map(read)
    dataset = dataset.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size, drop_remainder=True).take(length)
    dataset = _finish(dataset, length)
    return TensorFlowStream(dataset, len(data), batch_size, next_epoch)


def evaluation_stream(data, batch_size, size, short_side, mean=None, std=None):
    """Builds the evaluation pipeline: every image once, in order.

    Args:
        data: `FileData` or `StreamData`.
        batch_size: Images in a batch; the last one may be smaller.
        size: Height and width in pixels.
        short_side: What the short side becomes before the centre is cropped.
        mean: Three channel means as fractions of 255, or None.
        std: Three standard deviations, likewise.

    Returns:
        A `TensorFlowStream` of (float32 ``[b, size, size, 3]``, int32 ``[b]``).
    """

    @_as_it_is
    def prepare(image, label):
        pixels = photo_tf.evaluation_photo(image, size, short_side)
        pixels = _standardise(tf.cast(pixels, tf.float32), mean, std)
        return pixels, tf.cast(label, tf.int32)

    dataset = data.encoded().map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    length = count_batches(len(data), batch_size, False)
    dataset = _finish(dataset.batch(batch_size), length)
    return TensorFlowStream(dataset, len(data), batch_size)


def _standardise(pixels, mean, std):
    scale, shift = affine(mean, std)
    return pixels * scale + shift


def _finish(dataset, length):
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length))
    options = tf.data.Options()
    options.deterministic = True
    # A pass must begin, and read its epoch, when its first batch is asked for: Keras
    # makes the next epoch's iterator before the callbacks have named that epoch.
    options.experimental_warm_start = False
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
