"""How does a folder of images become `Splits`? One sub-folder per class.

Example:
    root/train/cat/1.jpg  root/train/dog/1.png  root/val/cat/2.jpg  ...

    >>> splits = image_folder("root", validation_per_class=50)
"""

import os
import pathlib

import numpy as np

from keras_spos.data.pixels import IMAGENET_MEAN, IMAGENET_STD
from keras_spos.data.sets import FileData, Splits
from keras_spos.data.split import hold_out

_ENDINGS = (".jpg", ".jpeg", ".png")


def image_folder(root, validation_per_class=50, test_per_class=50, seed=0, test=None):
    """Lists the images under `root`; they are decoded when they are read.

    With `root/train/<class>/*`, the test set is `root/test` or, as the paper uses
    ImageNet, `root/val` (or `root/validation`), and the validation set is held out of
    the training set. If both exist, `root/val` is the validation set. With
    `root/<class>/*`, both are held out.

    Classes are numbered by the sorted names of their folders. Left out are hidden
    folders and files, whose names begin with a dot, files that are not named ``.jpg``,
    ``.jpeg`` or ``.png``, and folders within those of classes.

    Args:
        root: The folder.
        validation_per_class: Training images of each class held out, where `root`
            has no validation set of its own.
        test_per_class: Test images of each class, where `root` has no sub-folder
            `train`. They do not depend on `seed`.
        seed: Which validation images.
        test: Name of the folder in `root` that is the test set, where `root` has a
            sub-folder `train`. Defaults to the first of those above.

    Returns:
        `Splits` of `FileData`, with ImageNet's mean and standard deviation.

    Raises:
        FileNotFoundError: If there is no such folder or no image in it.
        ValueError: If a class has no or too few images, or a class of the test set is
            not in the training set.
    """
    root = pathlib.Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}")
    if (root / "train").is_dir():
        classes = _folders(root / "train")
        train = _list_training_images(root / "train", classes)
        names = (test,) if test else ("test", "val", "validation")
        test = _first_folder(root, names)
        if test is None:
            raise FileNotFoundError(
                f"{root} has train but no {' or '.join(names)}. Found: {_folders(root)}"
            )
        validation = None
        if test.name == "test":
            validation = _first_folder(root, ("val", "validation"))
        test = _list_images(test, classes)
        if validation is None:
            _check_counts(train, classes, validation_per_class=validation_per_class)
    else:
        classes = _folders(root)
        train = _list_training_images(root, classes)
        _check_counts(
            train,
            classes,
            validation_per_class=validation_per_class,
            test_per_class=test_per_class,
        )
        train, test = hold_out(train, test_per_class, seed=0)
        validation = None
    if validation is None:
        train, validation = hold_out(train, validation_per_class, seed)
    else:
        validation = _list_images(validation, classes)
    return Splits(train, validation, test, len(classes), IMAGENET_MEAN, IMAGENET_STD)


def _folders(root):
    return sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _first_folder(root, names):
    return next((root / name for name in names if (root / name).is_dir()), None)


def _list_training_images(root, classes):
    data = _list_images(root, classes)
    empty = [classes[i] for i in set(range(len(classes))) - set(data.labels.tolist())]
    if empty:
        raise ValueError(
            f"Expected an image in each class folder in {root}. Received: none in "
            f"{sorted(empty)}. Remove these folders if they are no classes."
        )
    return data


def _check_counts(data, classes, **held):
    """Of all that is held out, before a part of it is, in the words of the folder."""
    counts = np.bincount(data.labels)
    fewest = counts.argmin()
    if sum(held.values()) >= counts[fewest]:
        arguments = " and ".join(f"{name}={value}" for name, value in held.items())
        raise ValueError(
            f"Expected more images in each class folder than are held out, {arguments}."
            f" Received: {counts[fewest]} in {classes[fewest]!r}."
        )


def _list_images(root, classes):
    unknown = sorted(set(_folders(root)) - set(classes))
    if unknown:
        raise ValueError(f"{root} has classes that the training set lacks: {unknown}")
    paths, labels = [], []
    for label, name in enumerate(classes):
        if not (root / name).is_dir():
            continue
        # Sorted: the listing order of a file system is no basis for a fixed split.
        files = sorted(
            entry.name
            for entry in os.scandir(root / name)
            if entry.name.lower().endswith(_ENDINGS)
            and not entry.name.startswith(".")
            and entry.is_file()
        )
        paths += [os.path.join(root, name, file) for file in files]
        labels += [label] * len(files)
    if not paths:
        raise FileNotFoundError(
            f"There is no image (<class>/*{', *'.join(_ENDINGS)}) in {root}"
        )
    return FileData(np.asarray(paths), labels)
