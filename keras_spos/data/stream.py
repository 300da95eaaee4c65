"""In which order do batches come? One that depends on the seed and the epoch alone.

Order of epoch e: a permutation drawn from (seed, e). Augmentation of its batch i:
drawn from (seed, e, i). So a run that was killed in epoch 7 and resumed there reads
epoch 7 again, exactly, if it says which epoch that is: Keras' `fit` does not tell.
"""

import keras
import numpy as np
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from keras_spos.data.look_ahead import LookAhead

_ORDER, _AUGMENTATION = 0, 1


# `fit` shuffles the batches of a plain PyDataset with Python's global random numbers
# (its default is shuffle=True), starts its workers before it says that an epoch begins,
# and hands out what an interrupted pass left over. It takes a DataAdapter as it is.
class Stream(keras.utils.PyDataset, DataAdapter):
    """Batches of a set of images; a `keras.utils.PyDataset` that knows its epoch.

    Call `set_epoch` where an epoch begins (`keras.callbacks.Callback.on_epoch_begin`
    comes before the first batch is read). Without it, `fit` goes on to the next epoch
    whenever one has been read to its end.

    Leave `steps_per_epoch` of `fit` alone, as Keras then continues one pass over
    several epochs; a shorter epoch is `batches_per_epoch` here.

    Args:
        make_batch: A function of (indices int ``[b]``, `numpy.random.Generator`) that
            returns (images, labels). It may run in another thread.
        image_shape: Shape of an image in a batch.
        n: The number of images.
        batch_size: Images in a batch.
        seed: Non-negative integer.
        training: Whether to shuffle and to drop a last batch that is not full.
        batches_per_epoch: How many batches of the order an epoch has; None is all.
        depth: How many batches to make ahead.
        workers: How many threads make them.

    Raises:
        ValueError: If there is not one (full) batch, or fewer than
            `batches_per_epoch`.
    """

    def __init__(
        self,
        make_batch,
        image_shape,
        n,
        batch_size,
        seed=0,
        training=False,
        batches_per_epoch=None,
        depth=2,
        workers=1,
    ):
        """Makes the stream; nothing is read yet."""
        super().__init__()
        self.make_batch = make_batch
        self.image_shape = tuple(image_shape)
        self.n = n
        self.seed = seed
        self.training = training
        self.epoch = 0
        self._batch_size = batch_size
        self._finished = False
        self._length = count_batches(n, batch_size, training, batches_per_epoch)
        self._order = (None, None)
        self._ahead = LookAhead(self._make, depth, workers)

    def set_epoch(self, epoch):
        """Says which epoch the next pass is.

        Args:
            epoch: Integer, counted from 0 as `fit` counts.
        """
        self.epoch = int(epoch)
        self._finished = False

    def on_epoch_begin(self):
        """Called by Keras when a pass begins, after the callbacks' hook."""
        # Not every pass is an epoch: `fit` may read one batch to build the model.
        if self._finished:
            self.set_epoch(self.epoch + 1)

    def __len__(self):
        """Returns the number of batches of an epoch."""
        return self._length

    def __getitem__(self, index):
        """Returns batch `index` of the current epoch: (images, labels)."""
        if not 0 <= index < self._length:
            raise IndexError(f"Expected 0 <= index < {self._length}. Received: {index}")
        return self._ahead.get(self.epoch, index, self._length)

    def __iter__(self):
        """Iterates over the epoch that is current when the first batch is read."""
        epoch = self.epoch
        try:
            for index in range(self._length):
                batch = self._ahead.get(epoch, index, self._length)
                if index == self._length - 1 and epoch == self.epoch:
                    self._finished = True
                yield batch
        finally:
            # TensorFlow keeps streams that it has read.
            self._ahead.close()

    # What the trainers of the backends ask a DataAdapter for.

    def get_numpy_iterator(self):
        """Iterates over the epoch; see `__iter__`."""
        return iter(self)

    def get_jax_iterator(self):
        """Iterates over the epoch; see `__iter__`."""
        return iter(self)

    def get_tf_dataset(self):
        """Returns a `tf.data.Dataset` that reads the epoch in the background."""
        import tensorflow as tf

        full = self._batch_size if self.training else None
        signature = (
            tf.TensorSpec([full, *self.image_shape], tf.float32),
            tf.TensorSpec([full], tf.int32),
        )
        dataset = tf.data.Dataset.from_generator(
            self.__iter__, output_signature=signature
        )
        # There is nothing to tune, and on a busy machine the end of an epoch would wait
        # for the thread that does, which may sleep for as long as the epoch took.
        options = tf.data.Options()
        options.autotune.enabled = False
        return dataset.prefetch(2).with_options(options)

    @property
    def num_batches(self):
        """The number of batches of an epoch."""
        return self._length

    @property
    def batch_size(self):
        """Images in a full batch."""
        return self._batch_size

    @property
    def has_partial_batch(self):
        """Whether the last batch is smaller."""
        return not self.training and self.n % self._batch_size > 0

    @property
    def partial_batch_size(self):
        """Images in the last batch if it is smaller, else None."""
        return self.n % self._batch_size if self.has_partial_batch else None

    def _make(self, epoch, index):
        start = index * self._batch_size
        indices = self._epoch_order(epoch)[start : start + self._batch_size]
        generator = np.random.default_rng([_AUGMENTATION, self.seed, epoch, index])
        return self.make_batch(indices, generator)

    def _epoch_order(self, epoch):
        if not self.training:
            return np.arange(self.n)
        known, order = self._order
        if known != epoch:
            generator = np.random.default_rng([_ORDER, self.seed, epoch])
            order = generator.permutation(self.n)
            self._order = (epoch, order)
        return order


def count_batches(n, batch_size, training, batches_per_epoch=None):
    """Returns the number of batches of an epoch; only full ones in training.

    Raises:
        ValueError: If there is none, or fewer than `batches_per_epoch`.
    """
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(
            f"Expected an integer batch_size >= 1. Received: batch_size={batch_size!r}"
        )
    length = n // batch_size if training else -(-n // batch_size)
    if not length:
        raise ValueError(
            f"Expected at least one {'full ' if training else ''}batch. Received: "
            f"{n} images, batch_size={batch_size}"
        )
    if batches_per_epoch is None:
        return length
    if not 0 < batches_per_epoch <= length:
        raise ValueError(
            f"Expected 0 < batches_per_epoch <= {length}. Received: "
            f"batches_per_epoch={batches_per_epoch}"
        )
    return batches_per_epoch
