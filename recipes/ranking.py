"""How well do supernets rank? What the recipes on tabulated benchmarks share.

Supernets are trained, every architecture (or the same sample of them) is scored, and
only when all scores are final are the benchmark's accuracies read: batch norms are
calibrated on training images, scores are taken on held-out training images, and the
truth is the table's test accuracy.

Beside each tau stand the taus of FLOPs and of parameters alone, and the tau that is
left among architectures of about equal FLOPs.
"""

import dataclasses

import keras
import numpy as np

import keras_spos as ks
from keras_spos import callbacks, data
from recipes.common import parser_for
from recipes.progress import Progress

# How supernets are trained: the sampler, and how many times the epochs.
TRAININGS = {
    "plain SPOS": (ks.UniformSampler, 1),
    "fair sampling": (ks.FairSampler, 1),
    "twice the epochs": (ks.UniformSampler, 2),
}
# How a trained supernet scores: arguments of `Evaluator`, and how many times the
# calibration images. The first is the paper's. Each gives an accuracy and, from the
# same pass, a loss, which tells apart what accuracy on few images does not.
SCORINGS = {
    "recalibrated": ({}, 1),
    "moving averages": ({"recalibrate": False}, 1),
    "recalibrated on 4x the images": ({}, 4),
}
METRICS = {"accuracy": "", "loss": ", by loss"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One preset.

    Args:
        dataset: "cifar10" or "digits".
        space: Arguments of the space.
        validation_per_class: Training images of each class held out for scoring.
        batch_size: Images per step.
        epochs: Length of supernet training.
        train_per_class: Training images of each class to use; None is all.
        learning_rate: Falls to `final_learning_rate` along a cosine.
        final_learning_rate: See there.
        l2: Weight decay, in the gradient.
        augment: See `data.training`.
        calibration_images: Training images for batch norm statistics.
        architectures: Size of the sample to rank; None is all.
        tracked: Size of the sample that is scored during training; 0 for none.
        tracked_every: Score it after every so many epochs.
        seeds: Number of plain supernets.
        option_seeds: Number of supernets for each other training.
        resamples: For the bootstrap intervals.
        memory: Bytes for intermediate tensors; see `Evaluator`.
    """

    dataset: str
    space: dict
    validation_per_class: int
    batch_size: int
    epochs: int
    train_per_class: int | None = None
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    l2: float = 5e-4
    augment: str | None = "cifar"
    calibration_images: int = 20_000
    architectures: int | None = None
    tracked: int = 0
    tracked_every: int = 1
    seeds: int = 3
    option_seeds: int = 1
    resamples: int = 200
    memory: float = 4e9


def arguments(description, presets):
    """The parser of a recipe that needs a table."""
    parser = parser_for(description, presets)
    parser.add_argument(
        "--tables", help="folder with the benchmark's table (default: --data-dir)"
    )
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
        self.splits = _load(settings, args.data_dir)

    def compare(self, label):
        """Every training beside plain SPOS, every scoring on the first plain supernet.

        Args:
            label: The space's label.

        Returns:
            A list of what `run` returns.
        """
        runs = []
        for training in self.args.trainings:
            plain = training == "plain SPOS"
            s = self.settings
            for seed in range(s.seeds if plain else s.option_seeds):
                more = len(SCORINGS) if seed == 0 else 2
                scorings = list(SCORINGS)[: more if plain else 1]
                runs.append(self.run(label, training, seed, scorings))
        return runs

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
        name = f"{label} {training} {seed}".replace(" ", "_")
        known = self.output.done(name)
        if known:
            return known
        s = self.settings
        sampler, times = TRAININGS[training]
        keras.utils.set_random_seed(1000 * self.args.seed + seed)
        net = self.build(
            **s.space,
            l2=s.l2,
            sampler=sampler(),
            seed=1000 * self.args.seed + seed,
            **arguments,
        )
        sample = _sample(net.space, s.architectures, seed=7)
        tracker = None
        if s.tracked and training == "plain SPOS" and seed == 0:
            scorer = self.evaluator(net, scorings[0])
            paths = _sample(net.space, s.tracked, 8)
            tracker = callbacks.SampledTau(scorer, paths, every=s.tracked_every)
        history = self.train(net, name, s.epochs * times, seed, tracker)
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
            recalibrated = SCORINGS[scoring][0].get("recalibrate", True)
            checkpoint = self.output.path("scores", f"{name}_{scoring}.npz")
            scores = ks.score_all(
                self.evaluator(net, scoring, tuple(METRICS)),
                sample,
                checkpoint=checkpoint.replace(" ", "_"),
                merge=self._merge(net) if recalibrated else None,
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

    def train(self, net, name, epochs, seed, tracker=None):
        """Trains as the paper does, with momentum and a cosine schedule."""
        s = self.settings
        batches = data.training(
            self.splits.train,
            s.batch_size,
            seed=seed,
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
        options, times = SCORINGS[scoring]
        calibration = data.balanced_subset(
            self.splits.train, n=times * self.settings.calibration_images, seed=0
        )
        validation = self.splits.validation
        return ks.Evaluator(
            net,
            calibration.images,
            (validation.images, validation.labels),
            metric=metric,
            preprocess=self.standardise,
            memory=self.settings.memory,
            **options,
        )

    def standardise(self, images):
        """Images as the model takes them."""
        return data.standardise(images, self.splits.mean, self.splits.std)

    def _merge(self, net):
        if self.merge is None:
            return None
        return lambda paths: self.merge(net.space, paths)


def _sample(space, n, seed):
    """Different paths, drawn from a space that can be listed, or all of it."""
    paths = np.array(list(space.enumerate()))
    if n is None or n >= len(paths):
        return paths
    chosen = np.random.default_rng(seed).choice(len(paths), n, replace=False)
    return paths[np.sort(chosen)]


def _load(settings, data_dir):
    size = settings.space["input_shape"][0]
    if settings.dataset == "digits":
        return data.digits(size, settings.validation_per_class)
    splits = data.cifar10(data_dir, settings.validation_per_class)
    if settings.train_per_class:
        train = data.balanced_subset(
            splits.train, per_class=settings.train_per_class, seed=0
        )
        splits = dataclasses.replace(splits, train=train)
    if size == 32:
        return splits
    return dataclasses.replace(
        splits,
        train=_shrunk(splits.train, 32 // size),
        validation=_shrunk(splits.validation, 32 // size),
    )


def _shrunk(images, factor):
    """Images of a fraction of the size: means over squares of pixels."""
    n, height, width, channels = images.images.shape
    squares = images.images.reshape(
        n, height // factor, factor, width // factor, factor, channels
    )
    means = np.rint(squares.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8)
    return data.ArrayData(means, images.labels)
