"""Data: where the images come from, how they are split, and how they are fed.

A source returns `Splits`; `training` and `evaluation` turn one of its sets into
batches that `fit`, `evaluate` and `predict` take on every backend. Nothing here
imports TensorFlow or Keras before it is used.

Example:
    >>> from keras_spos import data
    >>> cifar = data.cifar10(validation_per_class=500)
    >>> train = data.training(cifar.train, 128, augment="cifar",
    ...                       mean=cifar.mean, std=cifar.std)
    >>> validation = data.evaluation(cifar.validation, 500,
    ...                              mean=cifar.mean, std=cifar.std)
    >>> calibration = data.balanced_subset(cifar.train, per_class=200, seed=0)

An own source is three lines: arrays or file paths go into `ArrayData` or `FileData`,
and `hold_out` makes the validation set.
"""

from keras_spos.data.cifar import cifar10
from keras_spos.data.feed import evaluation, training
from keras_spos.data.folder import image_folder
from keras_spos.data.imagenet2012 import imagenet
from keras_spos.data.memory import in_memory
from keras_spos.data.npz_file import npz
from keras_spos.data.pixels import channel_statistics, standardise
from keras_spos.data.scans import digits
from keras_spos.data.sets import ArrayData, FileData, Splits
from keras_spos.data.split import balanced_subset, hold_out

__all__ = [
    "ArrayData",
    "FileData",
    "Splits",
    "balanced_subset",
    "channel_statistics",
    "cifar10",
    "digits",
    "evaluation",
    "hold_out",
    "image_folder",
    "imagenet",
    "in_memory",
    "npz",
    "standardise",
    "training",
]
