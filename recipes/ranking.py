"""How well do supernets rank? What the recipes on tabulated benchmarks share.

Supernets are trained, every architecture (or the same sample of them) is scored, and
only when all scores are final are the benchmark's accuracies read: batch norms are
calibrated on training images, scores are taken on held-out training images, and the
truth is the table's test accuracy.

Beside each tau stand the taus of FLOPs and of parameters alone, and the tau that is
left among architectures of about equal FLOPs.
"""

import dataclasses
import os

import keras
import numpy as np

import keras_spos as ks
from keras_spos import callbacks, data
from recipes.common import parser_for
from recipes.experiment import agree_on_data
from recipes.progress import Progress

# How supernets are trained: the sampler, and how many times the epochs.
TRAININGS = {
    "plain SPOS": (ks.UniformSampler, 1),
    "fair sampling": (ks.FairSampler, 1),
    "twice the epochs": (ks.UniformSampler, 2),
    "fair sampling, twice the epochs": (ks.FairSampler, 2),
}


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How a trained supernet scores.

    Args:
        recalibrate: See `Evaluator`.
        calibration: How many times the preset's calibration images.
        more: Whether to score on the preset's further validation images too.
    """

    recalibrate: bool = True
    calibration: int = 1
    more: bool = False


# The first is the paper's. Each gives an accuracy and, from the same pass, a loss,
# which tells apart what accuracy on few images does not.
SCORINGS = {
    "recalibrated": Scoring(),
    "recalibrated, more validation images": Scoring(more=True),
    "moving averages": Scoring(recalibrate=False),
    "recalibrated on 4x the images": Scoring(calibration=4),
}
METRICS = {"accuracy": "", "loss": ", by loss"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One preset.

    Args:
        dataset: "cifar10", "digits", or the name of an .npz file in the data folder
            (see `data.npz`).
        space: Arguments of the space.
        validation_per_class: Training images of each class held out for scoring.
        batch_size: Images per step.
        epochs: Length of supernet training.
        train_per_class: Training images of each class to use; None is all.
        more_validation_per_class: Of those that are left, images of each class to
            score on beside the others, as an option.
        learning_rate: Falls to `final_learning_rate` along a cosine.
        final_learning_rate: See there.
        l2: Weight decay, in the gradient.
        augment: See `data.training`.
        calibration_images: Training images for batch norm statistics.
        architectures: Size of the sample to rank; None is all.
        tracked: Size of the sample that is scored during training; 0 for none.
        tracked_every: Score it after every so many epochs.
        seeds: Number of supernets for each training of the plain length.
        longer_seeds: Number of supernets for each longer training.
        resamples: For the bootstrap intervals.
        memory: Bytes for intermediate tensors; see `Evaluator`.
    """

    dataset: str
    space: dict
    validation_per_class: int
    batch_size: int
    epochs: int
    train_per_class: int | None = None
    more_validation_per_class: int = 0
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    l2: float = 5e-4
    augment: str | None = "cifar"
    calibration_images: int = 20_000
    architectures: int | None = None
    tracked: int = 0
    tracked_every: int = 1
    seeds: int = 3
    longer_seeds: int = 1
    resamples: int = 200
    memory: float = 4e9


def parser_with_tables(description, presets):
    """The parser of a recipe that needs a table."""
    parser = parser_for(description, presets)
    parser.add_argument(
        "--tables", help="folder with the benchmark's table (default: --data-dir)"
    )
    return parser


def arguments(description, presets):
    """The parser of a recipe that compares trainings."""
    parser = parser_with_tables(description, presets)
    parser.add_argument(
        "--trainings",
        nargs="+",
        choices=list(TRAININGS),
        default=list(TRAININGS),
        help="what to compare; a later run with --resume may add the rest",
    )
    return parser


class Study:
    """Supernets of one space against one table.

    Args:
        settings: The preset.
        output: The recipe's `Output`.
        args: The recipe's arguments.
        build: The space, a function of its arguments to a `Supernet`.
        table: The `PathTable`.
        merge: A function from (space, paths) to paths that compute the same once batch
            norms are recalibrated, or None.
    """

    def __init__(self, settings, output, args, build, table, merge=None):
        self.settings = settings
        self.output = output
        self.args = args
        self.build = build
        self.table = table
        self.merge = merge
        self.splits, self.more_validation = _load(settings, args.data_dir)
        agree_on_data(output, self.splits)

    def compare(self, label, trainings):
        """Every training beside plain SPOS, every scoring on the first plain supernet.

        Args:
            label: The space's label.
            trainings: Keys of `TRAININGS`. What an earlier run has of others is
                reported with them.

        Returns:
            A list of what `run` returns.
        """
        s = self.settings
        usual, more, averages, larger = SCORINGS
        runs = []
        for training, (_, times) in TRAININGS.items():
            for seed in range(s.seeds if times == 1 else s.longer_seeds):
                if training not in trainings and not self.known(label, training, seed):
                    continue
                scorings = [usual, more] if s.more_validation_per_class else [usual]
                if training == "plain SPOS":
                    scorings += [averages]
                    # The paper's 20,000 are half of CIFAR-10 already.
                    wanted = SCORINGS[larger].calibration * s.calibration_images
                    if seed == 0 and wanted <= len(self.splits.train):
                        scorings += [larger]
                runs.append(self.run(label, training, seed, scorings))
        return runs

    def known(self, label, training, seed):
        """What `run` returned for a supernet in this run or an earlier one, or None."""
        return self.output.done(_name(label, training, seed))

    def run(self, label, training, seed, scorings, **arguments):
        """Trains one supernet and scores the sample.

        Args:
            label: The space's label.
            training: A key of `TRAININGS`.
            seed: Number of the seed.
            scorings: Keys of `SCORINGS`.
            **arguments: More arguments of the space.

        Returns:
            A dict of final scores, without any truth.
        """
        name = _name(label, training, seed)
        known = self.known(label, training, seed)
        if known:
            return known
        s = self.settings
        net = self.supernet(training, seed, **arguments)
        sample = _sample(net.space, s.architectures, seed=7)
        tracker = None
        if s.tracked and training == "plain SPOS" and seed == 0:
            scorer = self.evaluator(net, scorings[0])
            paths = _sample(net.space, s.tracked, 8)
            tracker = callbacks.SampledTau(scorer, paths, every=s.tracked_every)
        history = self.train(net, name, training, seed, tracker)
        self.output.say(f"{name} trained")
        result = {
            "label": label,
            "training": training,
            "seed": seed,
            "loss": history["loss"],
            "rows": self.table.rows(net.space, sample).tolist(),
            "scores": {},
        }
        for scoring in scorings:
            checkpoint = self.output.path("scores", f"{name}_{scoring}.npz")
            scores = ks.score_all(
                self.evaluator(net, scoring, tuple(METRICS)),
                sample,
                checkpoint=checkpoint.replace(" ", "_"),
                merge=self._merge(net) if SCORINGS[scoring].recalibrate else None,
                verbose=False,
            )
            for suffix, column in zip(METRICS.values(), scores.T, strict=True):
                result["scores"][scoring + suffix] = column.tolist()
            self.output.say(f"{name}: scored, {scoring}")
        if tracker is not None:
            rows = self.table.rows(net.space, tracker.paths)
            result["tracked"] = {
                "rows": rows.tolist(),
                "epochs": tracker.epochs,
                "scores": tracker.scores,
            }
        return self.output.finish(name, result)

    def supernet(self, training, seed, **arguments):
        """A supernet that is not trained yet; see `run`."""
        sampler, _ = TRAININGS[training]
        keras.utils.set_random_seed(1000 * self.args.seed + seed)
        net = self.build(
            **self.settings.space,
            l2=self.settings.l2,
            sampler=sampler(),
            seed=1000 * self.args.seed + seed,
            **arguments,
        )
        net.recompute = self.args.recompute
        return net

    def train(self, net, name, training, seed, tracker=None):
        """Trains with momentum and a cosine schedule, as NAS-Bench-201's authors do."""
        s = self.settings
        epochs = s.epochs * TRAININGS[training][1]
        batches = data.training(
            self.splits.train,
            s.batch_size,
            seed=1000 * self.args.seed + seed,
            augment=s.augment,
            mean=self.splits.mean,
            std=self.splits.std,
        )
        schedule = keras.optimizers.schedules.CosineDecay(
            s.learning_rate,
            epochs * len(batches),
            alpha=s.final_learning_rate / s.learning_rate,
        )
        net.compile(
            keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        also = [] if tracker is None else [tracker]
        resume = callbacks.Resume(
            self.output.path("checkpoints", name), data=batches, also=also
        )
        net.fit(
            batches, epochs=epochs, verbose=0, callbacks=[*also, resume, Progress(name)]
        )
        return resume.history

    def evaluator(self, net, scoring, metric="accuracy"):
        """Calibration on training images, scores on held-out training images."""
        how = SCORINGS[scoring]
        images = how.calibration * self.settings.calibration_images
        calibration = data.balanced_subset(self.splits.train, n=images, seed=0)
        validation = self.more_validation if how.more else self.splits.validation
        return ks.Evaluator(
            net,
            calibration.images,
            (validation.images, validation.labels),
            metric=metric,
            preprocess=self.standardise,
            memory=self.settings.memory,
            recalibrate=how.recalibrate,
        )

    def standardise(self, images):
        """Images as the model takes them."""
        return data.standardise(images, self.splits.mean, self.splits.std)

    def _merge(self, net):
        if self.merge is None:
            return None
        return lambda paths: self.merge(net.space, paths)


def _name(label, training, seed):
    return f"{label} {training} {seed}".replace(" ", "_").replace(",", "")


def _sample(space, n, seed):
    """Different paths, drawn from a space that can be listed, or all of it."""
    paths = np.array(list(space.enumerate()))
    if n is None or n >= len(paths):
        return paths
    chosen = np.random.default_rng(seed).choice(len(paths), n, replace=False)
    return paths[np.sort(chosen)]


def _load(settings, data_dir):
    """The splits, and the validation images with those that are an option."""
    size = settings.space["input_shape"][0]
    if settings.dataset == "digits":
        return data.digits(size, settings.validation_per_class), None
    if settings.dataset == "cifar10":
        splits = data.cifar10(data_dir, settings.validation_per_class)
    else:
        file = os.path.join(data_dir or "", f"{settings.dataset}.npz")
        splits = data.npz(file, settings.validation_per_class)
    more = splits.validation
    if settings.train_per_class:
        known = _Numbers.of(splits.train)
        train = data.balanced_subset(known, per_class=settings.train_per_class, seed=0)
        rest = known.subset(np.setdiff1d(known.numbers, train.numbers))
        rest = data.balanced_subset(rest, per_class=settings.more_validation_per_class)
        more = _together(more, splits.train.subset(rest.numbers))
        splits = dataclasses.replace(splits, train=splits.train.subset(train.numbers))
    factor = splits.train.images.shape[1] // size
    smaller = {k: _shrunk(getattr(splits, k), factor) for k in ("train", "validation")}
    return dataclasses.replace(splits, **smaller), _shrunk(more, factor)


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """A set of images as their numbers in another set."""

    labels: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(cls, images):
        return cls(images.labels, np.arange(len(images)))

    def __len__(self):
        return len(self.labels)

    def subset(self, indices):
        return _Numbers(self.labels[indices], self.numbers[indices])


def _together(*sets):
    return data.ArrayData(
        np.concatenate([s.images for s in sets]),
        np.concatenate([s.labels for s in sets]),
    )


def _shrunk(images, factor):
    """Images of a fraction of the size: means over squares of pixels."""
    if factor == 1:
        return images
    n, height, width, channels = images.images.shape
    squares = images.images.reshape(
        n, height // factor, factor, width // factor, factor, channels
    )
    means = np.rint(squares.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8)
    return data.ArrayData(means, images.labels)
