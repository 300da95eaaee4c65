"""Where does CIFAR-10 come from? A file at hand, or TensorFlow Datasets.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import numpy as np

from keras_spos.data.locate import TFDS_PACKAGES, announce_tfds, data_directory
from keras_spos.data.npz_file import read_npz
from keras_spos.data.sets import ArrayData, Splits
from keras_spos.data.split import hold_out
from keras_spos.optional import require

# Of the 50,000 training images.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def cifar10(data_dir=None, validation_per_class=50, seed=0):
    """Loads CIFAR-10: 50,000 training and 10,000 test images, 32 x 32, 10 classes.

    Args:
        data_dir: A folder with `cifar10.npz` (see `npz` for its arrays), or one that
            TensorFlow Datasets prepares its data in. Default: the environment
            variable `KERAS_SPOS_DATA`.
        validation_per_class: Training images of each class held out. The paper's 50
            for ImageNet is 500 images here: a standard error near 1 point; 500 gives
            0.3.
        seed: Which ones.

    Returns:
        `Splits` of `ArrayData`.

    Raises:
        FileNotFoundError: If neither source has the data.
        ValueError: If a class has too few images, or `cifar10.npz` holds something
            else (see `npz`).
    """
    directory = data_directory(data_dir)
    path = directory / "cifar10.npz" if directory else None
    if path is not None and path.is_file():
        train, test = read_npz(path)
        most = max(train.labels.max(), test.labels.max())
        if most > 9:
            raise ValueError(
                f"Expected CIFAR-10's labels, 0 to 9, in {path}. Received: {most}"
            )
    else:
        try:
            train, test = _from_tensorflow_datasets(directory)
        except Exception as error:  # Whatever a download can fail with.
            looked_at = path or "no folder (data_dir and KERAS_SPOS_DATA are not set)"
            raise FileNotFoundError(
                "CIFAR-10 was found in neither place. Either put cifar10.npz (x_train, "
                "y_train, x_test, y_test) in data_dir or $KERAS_SPOS_DATA; looked at: "
                f"{looked_at}. Or let tensorflow-datasets load 'cifar10' (pip install "
                f"tensorflow {TFDS_PACKAGES}; needs the network once); it said: "
                f"{type(error).__name__}: {error}"
            ) from error
    train, validation = hold_out(train, validation_per_class, seed)
    return Splits(train, validation, test, 10, MEAN, STD)


def _from_tensorflow_datasets(directory):
    require("tensorflow")
    tfds = require("tensorflow_datasets", TFDS_PACKAGES)
    announce_tfds("cifar10", directory)
    sets = []
    for split in ("train", "test"):
        records = tfds.load("cifar10", split=split, data_dir=directory)
        batches = list(tfds.as_numpy(records.batch(1000)))
        images = np.concatenate([batch["image"] for batch in batches])
        labels = np.concatenate([batch["label"] for batch in batches])
        sets.append(ArrayData(images, labels))
    return sets
