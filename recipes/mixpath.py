"""The experiment that MixPath's tables and figures on S1 share: settings and steps.

Section 4.1 of the paper, "Search on CIFAR10". ``paper`` is the paper's experiment;
``small`` is the same on fewer images, with a smaller network of the same kind and
shorter schedules; ``smoke`` only shows that everything runs.

Other than in the paper's released code, supernets do not train on all training images
and are not scored on test images: some training images are held out for that, and the
steps are as many. Not taken over from that code, as the paper names neither: gradients
clipped to a norm of 5, and squares of 16 pixels cut out. NSGA-II has SPOS's
numbers, and calibration 5,000 images: the paper gives none.
"""

import dataclasses

import keras
import numpy as np

import keras_spos as ks
from keras_spos import callbacks, search, spaces
from recipes.common import Output, checksum, existing_file, parser_for
from recipes.experiment import BaseExperiment
from recipes.progress import Progress

# The paper's 600 epochs of all 50,000 images, 117,600 steps, at 175 steps an epoch: 500
# images of each class are held out.
EPOCHS = 672


@dataclasses.dataclass(frozen=True)
class Settings:
    """One preset.

    Args:
        dataset: "cifar10" or "digits".
        space: Arguments of the space.
        validation_per_class: Training images of each class held out.
        batch_size: Images per step.
        epochs: Length of each supernet's training.
        train_per_class: Training images of each class to use; None is all.
        learning_rate: Falls to 0 along half a cosine.
        l2: Weight decay, in the gradient.
        calibration_images: Training images for batch norm statistics.
        most_paths: The values of m to compare.
        sampled_paths: How many random paths the histograms show.
        population: Candidates per generation of NSGA-II.
        generations: Generations of NSGA-II.
        retrain_epochs: Length of training of a found network.
        match_flops: Whether the network to train is the front's most accurate with at
            most the published network's multiply-adds, rather than with any.
    """

    dataset: str
    space: dict
    validation_per_class: int
    batch_size: int
    epochs: int
    train_per_class: int | None = None
    learning_rate: float = 0.06
    l2: float = 1e-4
    calibration_images: int = 5_000
    most_paths: tuple[int, ...] = (1, 2, 3, 4)
    sampled_paths: int = 1_000
    population: int = 50
    generations: int = 20
    retrain_epochs: int = EPOCHS
    match_flops: bool = False


PRESETS = {
    "small": Settings(
        dataset="cifar10",
        space={
            "input_shape": (32, 32, 3),
            "stem_channels": 8,
            "stem_stride": 2,
            "channels": (12, 24, 24, 24),
            "strides": (2, 2, 1, 1),
            "head_channels": 128,
        },
        train_per_class=1_000,
        validation_per_class=40,
        batch_size=64,
        epochs=20,
        calibration_images=1_000,
        sampled_paths=80,
        population=20,
        generations=10,
        retrain_epochs=20,
    ),
    "smoke": Settings(
        dataset="digits",
        space={
            "input_shape": (16, 16, 3),
            "stem_channels": 8,
            "stem_stride": 2,
            "channels": (8, 16),
            "strides": (1, 2),
            "head_channels": 16,
            "expansions": (1, 2),
            "kernel_sizes": (3, 5),
        },
        validation_per_class=20,
        batch_size=64,
        epochs=1,
        calibration_images=50,
        most_paths=(1, 2),
        sampled_paths=4,
        population=4,
        generations=2,
        retrain_epochs=1,
    ),
    "paper": Settings(
        dataset="cifar10",
        space={"input_shape": (32, 32, 3)},
        validation_per_class=500,
        batch_size=256,
        epochs=EPOCHS,
        match_flops=True,
    ),
}


class Experiment(BaseExperiment):
    """Data and supernets of one preset.

    Args:
        settings: The preset.
        output: The recipe's `Output`.
        args: The recipe's arguments.
    """

    build = staticmethod(spaces.mixpath_s1)
    compile_found = None  # `compile`'s like for found networks, where it is another
    prefix = ""  # of a supernet's files, where a recipe has several spaces

    def new_supernet(self, max_paths, shadow=True):
        """An untrained supernet; equal arguments give equal weights."""
        keras.utils.set_random_seed(self.seed)
        s = self.settings
        return self.build(
            **s.space, max_paths=max_paths, shadow=shadow, l2=s.l2, seed=self.seed
        )

    def supernet(self, max_paths, shadow=True, file=None):
        """A trained supernet: from a file, or trained now, as far as it was not."""
        net = self.new_supernet(max_paths, shadow)
        name = f"{self.prefix}{supernet_name(max_paths, shadow)}"
        if self.seed != self.output.args.seed:
            name += f"_seed{self.seed}"
        if file:
            net.load_weights(file)
            net.compile(loss=ks.SmoothedCrossentropy(0.0))  # To score by.
        else:
            # Its checkpoint, not <name>.keras, tells whose settings and seed it has.
            self.train(net, name, self.settings.epochs)
        # An earlier run may have had one from a file, or from another, or from none.
        self.output.agree(f"{name} of weights", checksum(net))
        if not file:
            self.output.save(net, name)
            self.output.say(f"{name}: trained")
        return net

    def compile(self, model, steps, batch_size):
        """How supernets are trained, and found networks on CIFAR-10."""
        schedule = keras.optimizers.schedules.CosineDecay(
            self.settings.learning_rate, steps
        )
        model.compile(
            keras.optimizers.SGD(schedule, momentum=0.9),
            ks.SmoothedCrossentropy(0.0),
            metrics=["accuracy"],
        )

    def train(self, model, name, epochs, extra=(), compile=None):
        """Trains a supernet or a subnet; goes on where an earlier run was stopped."""
        if isinstance(model, ks.Supernet):
            model.recompute = self.output.args.recompute
        batches = self.training_data()
        compile = compile or self.compile
        compile(model, epochs * len(batches), self.settings.batch_size)
        resume = callbacks.Resume(
            self.output.path("checkpoints", name),
            data=batches,
            also=[c for c in extra if hasattr(c, "get_state")],
        )
        model.fit(
            batches,
            epochs=epochs,
            verbose=0,
            callbacks=[*extra, resume, Progress(name)],
        )
        return resume.history

    def sampled(self, net, n=None, seed=1):
        """Random paths, drawn as in training: first their number, then the paths."""
        sampler = ks.MultiPathSampler.of(net.searchable_layers)
        rng = np.random.default_rng(seed)
        n = n or self.settings.sampled_paths
        return np.array([sampler.draw(net.space, rng) for _ in range(n)])

    def nsga2(self, net, score, flops, name="nsga2"):
        """NSGA-II: accuracy up, multiply-adds down."""
        s = self.settings
        return search.nsga2(
            net.space,
            score,
            minimize=[flops],
            population=s.population,
            generations=s.generations,
            reference=(0.0, flops.reachable_range()[1]),
            seed=self.seed,
            checkpoint=self.output.path(f"{name}.json"),
        )

    def to_train(self, found, published):
        """The network of a front to train from scratch.

        Args:
            found: What `nsga2` returned.
            published: Multiply-adds of the published network, in millions.

        Returns:
            The most accurate `Candidate`, of those with at most `published` if the
            preset asks for it and the front has any.
        """
        if not self.settings.match_flops:
            return found.best
        below = [c for c in found.front if c.costs["flops"] <= 1e6 * published]
        # The front's cheapest is first, so its most accurate is last.
        return below[-1] if below else found.best

    def random_search(self, net, score, flops):
        """Random search with as many evaluations as NSGA-II."""
        s = self.settings
        return search.random_search(
            net.space,
            score,
            costs=[flops],
            evaluations=s.population * s.generations,
            batch=s.population,
            seed=self.seed,
            checkpoint=self.output.path("random_search.json"),
        )

    def retrain(self, net, path, name):
        """Trains a path's network from scratch and tests it, once.

        The network stays in the output folder as <name>.keras.
        """
        known = self.output.done(name)
        if known:
            return known
        keras.utils.set_random_seed(self.seed)
        model = net.extract(path, fresh=True)
        epochs = self.settings.retrain_epochs
        self.train(model, name, epochs, compile=self.compile_found)
        self.output.save(model, name)
        return self.output.finish(
            name,
            {
                "path": [int(choice) for choice in path],
                "description": net.space.describe(path),
                "flops": ks.count_flops(model),
                "params": ks.count_params(model),
                **self.test(model),
            },
        )

    def test(self, model):
        """Top-1 and top-5 accuracy on the official test set."""
        metrics = [
            keras.metrics.SparseCategoricalAccuracy(name="top1"),
            keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5"),
        ]
        model.compile(loss=ks.SmoothedCrossentropy(0.0), metrics=metrics)
        result = model.evaluate(self.test_data(), verbose=0, return_dict=True)
        return {"top1": float(result["top1"]), "top5": float(result["top5"])}


def begin(recipe, description, **files):
    """Begins a recipe on one supernet with m = 2, trained now or read from a file.

    Args:
        recipe: The recipe's name.
        description: Its docstring.
        **files: Further arguments that name files, with their help texts.

    Returns:
        A tuple (arguments, `Experiment`, supernet).
    """
    parser = parser_for(description.splitlines()[0], list(PRESETS))
    files = {"supernet": "a trained supernet with m = 2", **files}
    for name, text in files.items():
        parser.add_argument(f"--{name}", type=existing_file, help=text)
    args = parser.parse_args()
    experiment = Experiment(PRESETS[args.preset], Output(recipe, args), args)
    return args, experiment, experiment.supernet(2, file=args.supernet)


def supernet_name(max_paths, shadow=True):
    """Name of a supernet's files."""
    return f"m{max_paths}_{'sbn' if shadow else 'bn'}"


def hypervolumes(result, table, reference):
    """Hypervolume of what a search had found after each of its generations."""
    history = result.history
    objectives = np.column_stack([-history.scores, table(history.paths)])
    return [
        search.result.hypervolume(objectives[: row["evaluations"]], reference)
        for row in history.by_generation()
    ]
