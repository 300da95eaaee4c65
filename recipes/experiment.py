"""What the papers' experiments share: the data, and how paths are scored on it."""

import dataclasses
import functools

import keras_spos as ks
from keras_spos import data
from recipes.common import checksum_of


class BaseExperiment:
    """Data and evaluators of one preset.

    Args:
        settings: The preset: `dataset`, `space`, `train_per_class`,
            `validation_per_class`, `batch_size` and `calibration_images`.
        output: The recipe's `Output`.
        args: The recipe's arguments.
        splits: The data of another experiment, to load it once.
    """

    def __init__(self, settings, output, args, splits=None):
        self.settings = settings
        self.output = output
        self.seed = args.seed
        self.splits = splits or load(settings, args.data_dir)
        agree_on_data(output, self.splits)

    def training_data(self):
        """Augmented training batches."""
        s = self.settings
        return data.training(
            self.splits.train,
            s.batch_size,
            seed=self.seed,
            augment={"imagenet": "imagenet", "cifar10": "cifar", "digits": None}[
                s.dataset
            ],
            mean=self.splits.mean,
            std=self.splits.std,
        )

    def test_data(self):
        """Batches of the official test set."""
        return data.evaluation(
            self.splits.test, 500, mean=self.splits.mean, std=self.splits.std
        )

    def evaluator(self, net, **options):
        """Scores paths: calibration on training images, validation on held-out ones."""
        validation = _in_memory(self.splits.validation)
        return ks.Evaluator(
            net,
            _in_memory(self.calibration()).images,
            (validation.images, validation.labels),
            preprocess=self.standardise,
            **options,
        )

    def calibration(self):
        """The fixed, class-balanced, unaugmented training images for batch norms."""
        return data.balanced_subset(
            self.splits.train, n=self.settings.calibration_images, seed=self.seed
        )

    def standardise(self, images):
        """Images as the model takes them."""
        return data.standardise(images, self.splits.mean, self.splits.std)


def agree_on_data(output, splits):
    """Refuses to go on with parts that were made from other images.

    Photographs, which would have to be read, are known by their labels alone.
    """
    parts = {}
    for name in ("train", "validation", "test"):
        part = getattr(splits, name)
        images = [part.images] if isinstance(part, data.ArrayData) else []
        parts[name] = f"{len(part)} images, {checksum_of([part.labels, *images])}"
    output.agree("data", parts)


def load(settings, data_dir):
    """The splits of a preset's data set."""
    source = {
        "imagenet": functools.partial(data.imagenet, data_dir),
        "cifar10": functools.partial(data.cifar10, data_dir),
        "digits": functools.partial(data.digits, settings.space["input_shape"][0]),
    }[settings.dataset]
    splits = source(validation_per_class=settings.validation_per_class)
    if settings.train_per_class:
        splits = dataclasses.replace(
            splits,
            train=data.balanced_subset(
                splits.train, per_class=settings.train_per_class
            ),
        )
    return splits


def _in_memory(images):
    return images if isinstance(images, data.ArrayData) else data.in_memory(images)
