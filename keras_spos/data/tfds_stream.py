"""How is a data set that can only be read in order split exactly?

TensorFlow Datasets stores ImageNet as a stream of records. One pass over it, with the
images left encoded, lists the file name and label of every record; this index is kept
on disk. A subset is then a set of names, and reading it is filtering the stream.

Example:
    >>> train = open_stream(tfds.builder("imagenet2012"), "train", cache_dir)
    >>> train, validation = hold_out(train, per_class=50)
"""

import dataclasses
import functools
import os
import pathlib

import numpy as np

from keras_spos.data.npz_file import open_npz

# Encoded images, 110 kB each on average: 0.9 GB. Records are stored in an order that
# is shuffled already, and the order of the files is drawn anew each epoch.
SHUFFLE_BUFFER = 8192


@dataclasses.dataclass(frozen=True, eq=False)
class StreamData:
    """Labelled images in a prepared data set of TensorFlow Datasets.

    Args:
        builder: The `tfds.core.DatasetBuilder`. Its records have `image`, `label` and
            `file_name`.
        split: The name of its split.
        all_names: Every file name of the split, bytes ``[m]``, sorted, distinct.
        all_labels: Their labels, int64 ``[m]``.
        indices: Which of them belong to this set, int64 ``[n]``, ascending.
    """

    builder: object
    split: str
    all_names: np.ndarray
    all_labels: np.ndarray
    indices: np.ndarray

    def __len__(self):
        """Returns the number of images."""
        return len(self.indices)

    @property
    def labels(self):
        """The labels, int64 ``[n]``, in the order of the sorted file names."""
        return self.all_labels[self.indices]

    @property
    def names(self):
        """The file names, bytes ``[n]``, sorted."""
        return self.all_names[self.indices]

    def subset(self, indices):
        """Returns the images at `indices` (int ``[m]``) of the sorted file names.

        Their order is lost: a stream is read as it is stored.
        """
        indices = np.sort(self.indices[np.asarray(indices, np.int64)])
        return dataclasses.replace(self, indices=indices)

    def encoded(self, shuffle_seed=None):
        """Streams the encoded images.

        Args:
            shuffle_seed: Integer tensor ``[2]``; the order of the files and the draws
                of the shuffle buffer depend on it and on TensorFlow's global seed.
                None keeps the stored order.

        Returns:
            A `tf.data.Dataset` of (bytes, label int64).
        """
        import tensorflow as tf

        seed = None
        if shuffle_seed is not None:
            seed = tf.random.stateless_uniform(
                [], shuffle_seed, minval=1, maxval=2**62, dtype=tf.int64
            )
        dataset = _records(self.builder, self.split, seed)
        if len(self) < len(self.all_names):
            dataset = dataset.filter(self._contains)
        dataset = dataset.map(lambda record: (record["image"], record["label"]))
        if seed is not None:
            dataset = dataset.shuffle(
                max(1, min(SHUFFLE_BUFFER, len(self))),
                seed=seed,
                reshuffle_each_iteration=False,
            )
        return dataset

    def _contains(self, record):
        """Whether a record belongs to this set, as a boolean tensor."""
        return self._table.lookup(record["file_name"]) == 1

    @functools.cached_property
    def _table(self):
        """Maps file names to 1 (in the set) or 0; lists the smaller side only."""
        import tensorflow as tf

        few = 2 * len(self) <= len(self.all_names)
        rest = np.setdiff1d(np.arange(len(self.all_names)), self.indices)
        names = self.all_names[self.indices if few else rest]
        # Asked for while a pipeline is traced, but it has to outlive the trace.
        with tf.init_scope(), tf.device("CPU:0"):
            keys = tf.constant(names.tolist(), tf.string, shape=[len(names)])
            values = tf.fill([len(names)], 1 if few else 0)
            return tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(keys, values),
                default_value=0 if few else 1,
            )


def open_stream(builder, split, cache_dir):
    """Opens a split of a prepared data set, reading or writing its index.

    Args:
        builder: The `tfds.core.DatasetBuilder`.
        split: The name of the split.
        cache_dir: The folder where the index is kept, created where needed; one file
            for each data set, version and split.

    Returns:
        `StreamData` of the whole split.

    Raises:
        ValueError: If two records share a file name, so that names cannot split it.
    """
    version = str(builder.info.version)
    path = pathlib.Path(cache_dir) / f"{builder.name}-{version}-{split}.npz"
    if path.is_file():
        with open_npz(path) as index:
            names, labels = index["names"], index["labels"]
    else:
        names, labels = _read_index(builder, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes may do this at once; a rename leaves no half-written file.
        partial = path.with_name(f"{path.stem}-{os.getpid()}.partial.npz")
        np.savez_compressed(partial, names=names, labels=labels)
        partial.replace(path)
    return StreamData(builder, split, names, labels, np.arange(len(names)))


def _read_index(builder, split):
    names, labels = [], []
    for record in _records(builder, split).batch(1024).as_numpy_iterator():
        names.append(record["file_name"].astype(bytes))
        labels.append(record["label"])
    names, labels = np.concatenate(names), np.concatenate(labels)
    order = np.argsort(names, kind="stable")
    names, labels = names[order], labels[order].astype(np.int64)
    twice = names[1:][names[1:] == names[:-1]]
    if len(twice):
        raise ValueError(
            f"File names must tell the records of {builder.name}/{split} apart. "
            f"Received {len(twice)} of them twice, first: {twice[0].decode()}"
        )
    return names, labels


def _records(builder, split, seed=None):
    """The split's records, images undecoded; `seed` shuffles the files."""
    import tensorflow_datasets as tfds

    return builder.as_dataset(
        split=split,
        shuffle_files=seed is not None,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(
            shuffle_seed=seed,
            shuffle_reshuffle_each_iteration=False,
            try_autocache=False,
        ),
    )
