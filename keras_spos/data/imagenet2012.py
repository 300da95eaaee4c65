"""Where does ImageNet come from? A folder of images, or TensorFlow Datasets.

Neither downloads it: register at https://image-net.org and fetch
`ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`.

Example:
    >>> splits = imagenet()                           # 50 a class held out
    >>> train = training(splits.train, 256, augment="imagenet",
    ...                  mean=splits.mean, std=splits.std)
"""

from keras_spos.data.folder import image_folder
from keras_spos.data.locate import (
    TFDS_PACKAGES,
    announce_tfds,
    cache_directory,
    data_directory,
)
from keras_spos.data.pixels import IMAGENET_MEAN, IMAGENET_STD
from keras_spos.data.sets import Splits
from keras_spos.data.split import hold_out
from keras_spos.optional import require


def imagenet(data_dir=None, validation_per_class=50, seed=0, cache_dir=None):
    """Opens ImageNet (ILSVRC 2012): 1,000 classes, 1.28 million training images.

    Both sources give the same split: it is drawn over the sorted file names.

    The paper's sets (SPOS, section 4): validation is 50 training images of each
    class, test is the official validation set.

    Args:
        data_dir: A folder with `train/<class>/*` and `val/<class>/*`, or one where
            TensorFlow Datasets keeps (or prepares) `imagenet2012`. Default: the
            environment variable `KERAS_SPOS_DATA`, else the default of TensorFlow
            Datasets.
        validation_per_class: Training images of each class held out.
        seed: Which ones.
        cache_dir: Where the index of names and labels of the prepared data set is
            kept; the first call reads the whole data set once for it. Default:
            `keras_spos` in the user's cache directory.

    Returns:
        `Splits` of `FileData` or `StreamData`, none of it in memory.

    Raises:
        FileNotFoundError: If neither source has the data.
        ImportError: If TensorFlow Datasets is needed and not installed.
    """
    directory = data_directory(data_dir)
    if directory and (directory / "train").is_dir() and (directory / "val").is_dir():
        # Beside them often lie the official test images, which have no labels.
        return image_folder(directory, validation_per_class, seed=seed, test="val")
    require("tensorflow")
    tfds = require("tensorflow_datasets", TFDS_PACKAGES)
    from keras_spos.data.tfds_stream import open_stream

    announce_tfds("imagenet2012", directory)
    builder = tfds.builder("imagenet2012", data_dir=directory)
    try:
        builder.download_and_prepare()  # Nothing to do where it is prepared.
    except (AssertionError, ImportError, OSError, ValueError) as error:
        raise FileNotFoundError(
            "ImageNet was found in neither place. Either put train/<class>/* and "
            "val/<class>/* in data_dir or $KERAS_SPOS_DATA; looked at: "
            f"{directory}. Or prepare 'imagenet2012' with tensorflow-datasets in "
            f"{builder.data_dir}; it said: {error}"
        ) from error
    cache = cache_directory(cache_dir)
    train = open_stream(builder, "train", cache)
    test = open_stream(builder, "validation", cache)
    train, validation = hold_out(train, validation_per_class, seed)
    return Splits(train, validation, test, 1000, IMAGENET_MEAN, IMAGENET_STD)
