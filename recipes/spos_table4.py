"""SPOS, Table 4: channel search, alone and with the search of building blocks.

    python -m recipes.spos_table4 --preset small --data-dir DIR

Four supernets: building blocks; widths of all choice_3; widths of the network that the
first search found; blocks and widths together. Each is searched under one FLOPs limit,
and trained by uniform constraint sampling below it, but for the joint one: with its
small widths from the start it is reported not to converge, so they come in step by step
(`WideningSampler`), and paths are uniform.
What is found, the best building blocks, "all choice_3" widened to the limit, and random
networks near the limit are trained from scratch and tested.
"""

import dataclasses

import numpy as np

import keras_spos as ks
from recipes import spos
from recipes.common import Output, arguments, settings_dict

# FLOPs and top-1 on ImageNet, as printed in the paper's Table 4. The joint search has
# no row there: the text calls channel search on found blocks slightly better.
PAPER = {
    "all choice_3": ("324M", 73.4),
    "random channels": ("~323M", 73.1),
    "choice_3 + channel search": ("329M", 73.9),
    "random blocks + channels": ("~325M", 73.4),
    "block search": ("319M", 74.3),
    "block search + channel search": ("328M", 74.7),
    "joint search": ("not given", "not given"),
}
# The table's other networks; top-1 as retrained for SPOS (as first published).
OTHERS = {
    "MobileNet V1 (0.75x)": ("325M", 68.4),
    "MobileNet V2 (1.0x)": ("300M", 72.0),
    "ShuffleNet V2 (1.5x)": ("299M", 72.6),
    "NASNet-A": ("564M", 74.0),
    "PNASNet": ("588M", 74.2),
    "MnasNet": ("317M", 74.0),
    "DARTS": ("595M", 73.1),
    "Proxyless-R (mobile)": ("320M", "74.2 (74.6)"),
    "FBNet-B": ("295M", "74.1 (74.1)"),
}
# The paper's widths are 0.2x to 1.6x in steps of 0.2.
WIDTHS = {"small": (0.4, 0.8, 1.2, 1.6), "smoke": (0.5, 1.5), "paper": True}
PRESETS = {
    "small": dataclasses.replace(
        spos.PRESETS["small"],
        space={
            **spos.PRESETS["small"].space,
            "stage_channels": (32, 64),
            "stage_blocks": (2, 3),
            "head_channels": 128,
        },
        train_per_class=500,
        validation_per_class=100,
        supernet_epochs=6,
        retrain_epochs=3,
        calibration_images=500,
        population=12,
        generations=6,
        topk=6,
    ),
    "smoke": dataclasses.replace(
        spos.PRESETS["smoke"],
        space={
            **spos.PRESETS["smoke"].space,
            "options": ("choice_3", "choice_5"),
            "stage_channels": (16,),
            "stage_blocks": (1,),
        },
        population=4,
        topk=2,
    ),
    "paper": spos.PRESETS["paper"],
}
# In the joint supernet, widths below the largest two are admitted over this share of
# training.
WIDENING = 0.25
# Random networks have between this share of the limit and the limit.
NEAR = 0.95


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(PRESETS))
    recipe = _Recipe(args)
    blocks, found_blocks = recipe.search("blocks", {})
    choice_3, found_3 = recipe.search("choice_3_widths", recipe.widths("all_choice_3"))
    on_found, found_on = recipe.search(
        "found_widths", recipe.widths(found_blocks.best.path)
    )
    joint, found_joint = recipe.search("joint", recipe.widths(None))

    rows = blocks.retrain_all(
        {
            "all choice_3": [blocks.widened("choice_3")],
            "random channels": recipe.random(choice_3),
            "choice_3 + channel search": [choice_3.fresh(found_3.best.path)],
            "random blocks + channels": recipe.random(joint),
            "block search": [blocks.fresh(found_blocks.best.path)],
            "block search + channel search": [on_found.fresh(found_on.best.path)],
            "joint search": [joint.fresh(found_joint.best.path)],
        }
    )
    results = {
        "block search": found_blocks,
        "choice_3 + channel search": found_3,
        "block search + channel search": found_on,
        "joint search": found_joint,
    }
    n = blocks.net.space.num_decisions
    paths = {
        "choice_3 + channel search": _joined((0,) * n, found_3.best.path),
        "block search + channel search": _joined(
            found_blocks.best.path, found_on.best.path
        ),
        "joint search": found_joint.best.path,
    }
    recipe.report(rows, results, joint.net.space, paths)


class _Recipe:
    """The settings, and the limit, that all supernets share."""

    def __init__(self, args):
        self.args = args
        self.settings = PRESETS[args.preset]
        self.output = Output("spos_table4", args)
        self.first = None
        self.histories = {}

    def widths(self, blocks):
        """Arguments of a space with widths."""
        return {"blocks": blocks, "widths": WIDTHS[self.args.preset]}

    def search(self, name, space):
        """Trains a supernet and searches it; the first one sets the limit."""
        s = dataclasses.replace(self.settings, space={**self.settings.space, **space})
        experiment = spos.Experiment(
            s,
            self.output,
            self.args,
            splits=self.first and self.first.splits,
            name=f"{name}_",
        )
        net = experiment.net
        if self.first is None:
            self.first = experiment
            net.sampler = experiment.constraint_sampler()
        else:
            experiment.limit = experiment.flops <= self.first.limit.value
            net.sampler = self._sampler(experiment)
        limit = experiment.limit.value
        self.output.say(f"{name}: {net.space}, {experiment.flops}, limit {limit:,.0f}")
        self.histories[name] = experiment.train(net, name, s.supernet_epochs)
        self.output.save(net, name)
        result = experiment.evolve(experiment.evaluator(net))
        self.output.say(f"{name}: {result.best}")
        return experiment, result

    def _sampler(self, experiment):
        """Widening for blocks and widths together, else ranges of FLOPs."""
        s = experiment.settings
        if s.space["blocks"] is not None:
            return spos.range_sampler(experiment.flops, [experiment.limit.value])
        steps = s.supernet_epochs * len(experiment.training_data())
        return ks.WideningSampler(max(1, int(steps * WIDENING)))

    def random(self, experiment):
        """Functions that make random networks near the limit."""
        limit = self.first.limit.value
        candidates = experiment.net.space.sample(100_000, seed=2)
        flops = experiment.flops(candidates)
        # In a tiny space there may be none so near; then the nearest.
        low = min(NEAR * limit, flops[flops <= limit].max())
        near = candidates[(flops <= limit) & (flops >= low)]
        return [experiment.fresh(p) for p in near[: self.settings.random_networks]]

    def report(self, rows, results, space, paths):
        """Writes the table, the pictures and report.json."""
        from keras_spos import plots

        output, args = self.output, self.args
        table = spos.comparison(rows, PAPER, self.settings, args.preset, OTHERS)
        plots.plot_history(results, path=output.path("search.png"))
        plots.plot_architecture(space, paths, path=output.path("widths.png"))
        output.report(
            {**settings_dict(self.settings), "widths": WIDTHS[args.preset]},
            {
                "limit": self.first.limit.value,
                "rows": rows,
                "best": {name: r.best.__dict__ for name, r in results.items()},
                "descriptions": {n: space.describe(p) for n, p in paths.items()},
                "supernet_histories": self.histories,
            },
        )
        output.write_table(table)


def _joined(options, widths):
    """A path of (option, width) pairs."""
    return tuple(int(i) for i in np.stack([options, widths], axis=1).ravel())


if __name__ == "__main__":
    main()
