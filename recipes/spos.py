"""The experiment that SPOS's Table 3 and Figures 1 and 2 share: settings and steps.

Section 4 of the paper, "Search Space: Building Blocks". ``paper`` is the paper's
experiment; ``small`` is the same on CIFAR-10 with a smaller network and shorter
schedules; ``smoke`` only shows that everything runs.

Other than in the authors' released code: images are standardised, there BGR of 0 to
255; calibration images are centre crops, there augmented; a retrained network is tested
with its moving averages, there with the statistics of one more epoch, at a rate of 0.
"""

import bisect
import dataclasses

import keras
import numpy as np

import keras_spos as ks
from keras_spos import callbacks, search, spaces
from keras_spos.spaces.shufflenet_v2 import BASELINE_SCALES
from recipes.common import markdown_table
from recipes.experiment import BaseExperiment
from recipes.progress import Progress


@dataclasses.dataclass(frozen=True)
class Settings:
    """One preset.

    Args:
        dataset: "imagenet", "cifar10" or "digits".
        space: Arguments of `spaces.shufflenet_v2`.
        train_per_class: Training images of each class to use; None is all.
        validation_per_class: Training images of each class held out for the search.
        batch_size: Images per step.
        supernet_epochs: Length of supernet training.
        retrain_epochs: Length of training of each found or baseline network.
        figure1_epochs: Length of each of Figure 1's supernet trainings.
        learning_rate: Falls linearly to 0.
        l2: Weight decay, in the gradient.
        label_smoothing: Label smoothing.
        calibration_images: Training images for batch norm statistics.
        flops_limit: Limit of the search; None is the quantile at which the paper's
            330M lies in the paper's space.
        population: Candidates per generation.
        generations: Generations of evolution.
        topk: Candidates kept.
        random_networks: How many random networks Table 3 averages over.
    """

    dataset: str
    space: dict
    validation_per_class: int
    batch_size: int
    supernet_epochs: int
    retrain_epochs: int
    figure1_epochs: int = 0
    train_per_class: int | None = None
    learning_rate: float = 0.5
    l2: float = 4e-5
    label_smoothing: float = 0.1
    calibration_images: int = 20_000
    flops_limit: float | None = None
    population: int = 50
    generations: int = 20
    topk: int = 10
    random_networks: int = 5


# The paper's 150,000 and 300,000 steps (section 4: 120 and 240 epochs of all images) at
# 1,202 steps an epoch: 50 images of each class are held out.
SUPERNET_EPOCHS, RETRAIN_EPOCHS = 125, 250
PRESETS = {
    "small": Settings(
        dataset="cifar10",
        space={
            "input_shape": (32, 32, 3),
            "num_classes": 10,
            "stem_stride": 2,
            "stage_channels": (32, 64, 128),
            "stage_blocks": (2, 3, 2),
            "head_channels": 256,
        },
        train_per_class=2_000,
        validation_per_class=200,
        batch_size=64,
        supernet_epochs=40,
        retrain_epochs=10,
        figure1_epochs=60,
        learning_rate=0.05,
        calibration_images=1_000,
        population=20,
        generations=10,
        random_networks=2,
    ),
    "smoke": Settings(
        dataset="digits",
        space={
            "input_shape": (16, 16, 3),
            "num_classes": 10,
            "stem_channels": 8,
            "stage_channels": (16, 32),
            "stage_blocks": (2, 2),
            "head_channels": 64,
        },
        validation_per_class=20,
        batch_size=64,
        supernet_epochs=1,
        retrain_epochs=1,
        figure1_epochs=1,
        learning_rate=0.05,
        calibration_images=100,
        population=6,
        generations=2,
        topk=3,
        random_networks=1,
    ),
    "paper": Settings(
        dataset="imagenet",
        space={"input_shape": (224, 224, 3), "num_classes": 1000},
        validation_per_class=50,
        batch_size=1024,
        supernet_epochs=SUPERNET_EPOCHS,
        retrain_epochs=RETRAIN_EPOCHS,
        figure1_epochs=SUPERNET_EPOCHS,
        flops_limit=330e6,
    ),
}
# The share of uniform paths that the paper's limit admits in the paper's space.
LIMIT_QUANTILE = 0.589


class Experiment(BaseExperiment):
    """Data, supernet and evaluator of one preset.

    Args:
        settings: The preset.
        output: The recipe's `Output`.
        args: The recipe's arguments.
        build: The space: makes a supernet of `settings.space`.
        splits: The data of another experiment, to load it once.
        name: Begins the names of the search checkpoints, where a recipe has several
            supernets.
    """

    def __init__(
        self,
        settings,
        output,
        args,
        build=spaces.shufflenet_v2,
        splits=None,
        name="",
    ):
        super().__init__(settings, output, args, splits)
        self.name = name
        keras.utils.set_random_seed(args.seed)
        self.net = build(**settings.space, l2=settings.l2, seed=args.seed)
        self.flops = ks.flops_table(self.net)
        self.params = ks.params_table(self.net)
        paths = self.net.space.sample(20_000, seed=1)
        self.uniform_flops = self.flops(paths)
        limit = settings.flops_limit
        if limit is None:
            limit = float(np.quantile(self.uniform_flops, LIMIT_QUANTILE))
        self.limit = self.flops <= limit

    def constraint_sampler(self):
        """Uniform constraint sampling: the paper's seven ranges, or as many here."""
        if self.settings.flops_limit is not None:
            return ks.CostRangeSampler(self.flops, np.arange(290e6, 361e6, 10e6))
        edges = np.quantile(self.uniform_flops, (0.01, 0.99))
        return ks.CostRangeSampler(self.flops, np.linspace(*edges, 8))

    def train(self, model, name, epochs, extra=(), learning_rate=None):
        """Trains a supernet or a subnet; goes on where an earlier run was stopped."""
        if isinstance(model, ks.Supernet):
            model.recompute = self.output.args.recompute
        s = self.settings
        batches = self.training_data()
        model.compile(
            keras.optimizers.SGD(
                keras.optimizers.schedules.PolynomialDecay(
                    learning_rate or s.learning_rate,
                    epochs * len(batches),
                    end_learning_rate=0.0,
                ),
                momentum=0.9,
            ),
            ks.SmoothedCrossentropy(s.label_smoothing),
            metrics=["accuracy"],
        )
        resume = callbacks.Resume(
            self.output.path("checkpoints", name), data=batches, also=extra
        )
        model.fit(
            batches,
            epochs=epochs,
            verbose=0,
            callbacks=[*extra, resume, Progress(name)],
        )
        return resume.history

    def evolve(self, score, limit=None, name="evolution"):
        """SPOS, Algorithm 1, under the preset's limit or another."""
        s = self.settings
        return search.evolve(
            self.net.space,
            score,
            limits=[limit or self.limit],
            population=s.population,
            generations=s.generations,
            topk=s.topk,
            seed=self.seed,
            checkpoint=self.output.path(f"{self.name}{name}.json"),
        )

    def random_search(self, score):
        """Random search with as many evaluations."""
        s = self.settings
        return search.random_search(
            self.net.space,
            score,
            limits=[self.limit],
            evaluations=s.population * s.generations,
            batch=s.population,
            seed=self.seed,
            checkpoint=self.output.path(f"{self.name}random_search.json"),
        )

    def fresh(self, path):
        """A function that makes a path's network with new weights."""
        return lambda: self.net.extract(path, fresh=True)

    def widened(self, option):
        """A function that makes the network of one option everywhere.

        Its mid-channels are the widest that meet the limit.
        """
        s = self.settings

        def network(scale):
            space = {**s.space, "options": (option,), "mid_scale": scale}
            return spaces.shufflenet_v2(**space, l2=s.l2)

        def meets_limit(hundredths):
            net = network(hundredths / 100)
            return ks.flops_table(net)(net.path)[0] <= self.limit.value

        def build():
            if s.flops_limit:
                scale = BASELINE_SCALES[option]
            else:
                # Bisection: FLOPs grow with the scale.
                scales = range(5, 400)
                above = bisect.bisect(scales, False, key=lambda h: not meets_limit(h))
                scale = scales[above - 1] / 100
            return network(scale).extract(fresh=True)

        return build

    def retrain(self, name, build):
        """Trains a network and tests it, once."""
        known = self.output.done(name)
        if known:
            return known
        keras.utils.set_random_seed(self.seed)
        model = build()
        self.train(model, name, self.settings.retrain_epochs)
        return self.output.finish(
            name,
            {
                "flops": ks.count_flops(model),
                "params": ks.count_params(model),
                "top1": self.test_accuracy(model),
            },
        )

    def retrain_all(self, networks):
        """Trains and tests networks of several kinds.

        Args:
            networks: A dict from a kind's name to functions that make its networks.

        Returns:
            A list of rows, each with the means over a kind.
        """
        rows = []
        for name, builders in networks.items():
            results = [
                self.retrain(f"{name} {number}".replace(" ", "_"), build)
                for number, build in enumerate(builders)
            ]
            rows.append(_summary(name, results))
            self.output.say(f"{name}: {rows[-1]}")
        return rows

    def test_accuracy(self, model):
        """Top-1 accuracy on the official test set."""
        result = model.evaluate(self.test_data(), verbose=0, return_dict=True)
        return result["accuracy"]


def _summary(name, results):
    n = len(results)
    return {
        "name": name,
        "networks": n,
        "flops": round(sum(r["flops"] for r in results) / n),
        "params": round(sum(r["params"] for r in results) / n),
        "top1": round(100 * sum(r["top1"] for r in results) / n, 2),
        "each": [round(100 * r["top1"], 2) for r in results],
    }


def range_sampler(table, limits):
    """Uniform constraint sampling over seven ranges that end at limits.

    The paper samples so "by default" (section 3) and gives its ranges for 330M FLOPs
    only, in its code: 10M wide. Here each is a sixth of what lies between the lowest
    and the highest limit, so that one ends at either; for one limit they have the same
    share of it as in the paper. What is out of reach is left out.

    Args:
        table: A `CostTable`.
        limits: Costs that the supernet will be searched under.

    Returns:
        A `CostRangeSampler`, or a `UniformSampler` if no range is within reach.
    """
    high, low = max(limits), min(limits)
    width = (high - low) / 6 if low < high else high / 33
    edges = np.clip(high - width * np.arange(7, -1, -1), *table.reachable_range())
    edges = np.unique(edges)
    if len(edges) < 2:
        return ks.UniformSampler()
    return ks.CostRangeSampler(table, edges)


def comparison(rows, paper, settings, preset, others=None):
    """A Markdown table of measured rows beside the paper's, and a note on both.

    Args:
        rows: What `Experiment.retrain_all` returned.
        paper: A dict from a row's name to the paper's FLOPs and top-1.
        settings: The preset.
        preset: Its name.
        others: The same for networks that only the paper has.
    """
    table = markdown_table(
        ["network", "MACs", "parameters", "top-1 %", "paper MACs", "paper top-1 %"],
        [
            [
                r["name"],
                f"{r['flops']:,}",
                f"{r['params']:,}",
                r["top1"],
                *paper[r["name"]],
            ]
            for r in rows
        ]
        + [[name, *[""] * 3, *cells] for name, cells in (others or {}).items()],
    )
    note = (
        f"Measured on {settings.dataset} with the {preset!r} preset (see "
        "report.json); the paper's figures are ImageNet's."
    )
    return f"{table}\n\n{note}"
