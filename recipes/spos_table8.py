"""SPOS, Table 8: how well supernets rank NAS-Bench-201.

    python -m recipes.spos_table8 --preset small --data-dir DIR --tables DIR

For the original space and the three reduced ones supernets are trained on CIFAR-10 and
rank architectures, whose tabulated test accuracy (200 epochs) is the truth. On the
original space, each way to train or to score differently is measured beside it.

SPOS does not say how it trained these supernets. `paper` trains them as NAS-Bench-201's
authors train theirs (their released code: 250 epochs of batches of 64, a rate of 0.025
to 0.001), but on 45,000 images, 175,750 steps; they take half of the training images,
97,500 steps. The 20,000 images for batch norm statistics are SPOS's for ImageNet.

`--tables` holds nasbench201.npz (see `keras_spos.tabular`).

The table's other rows are `--dataset cifar100` and `--dataset imagenet16_120`, whose
images are read from cifar100.npz and imagenet16_120.npz in `--data-dir` (see
`keras_spos.data.npz`). Not run yet.
"""

import dataclasses

from keras_spos import spaces, tabular
from keras_spos.spaces.nasbench201 import live_edges
from recipes.common import Output
from recipes.ranking import Settings, Study, arguments
from recipes.ranking_report import finish, judge

SPACES = {"Original": 0, "Reduce-1": 1, "Reduce-2": 2, "Reduce-3": 3}
# Kendall's tau in each space, as printed.
PAPER = {
    "cifar10": (0.55, 0.55, 0.58, 0.64),
    "cifar100": (0.56, 0.54, 0.53, 0.59),
    "imagenet16_120": (0.54, 0.42, 0.55, 0.53),
}
# Classes, and height and width in pixels.
DATASETS = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet16_120": (120, 16)}
PRESETS = {
    "small": Settings(
        dataset="cifar10",
        space={"input_shape": (16, 16, 3), "cells": 1},
        train_per_class=2500,
        validation_per_class=100,
        more_validation_per_class=400,
        batch_size=64,
        epochs=50,
        learning_rate=0.05,
        calibration_images=500,
        architectures=400,
        tracked=60,
        tracked_every=5,
        seeds=3,
    ),
    "smoke": Settings(
        dataset="digits",
        space={"input_shape": (8, 8, 3), "cells": 1, "channels": 4},
        validation_per_class=10,
        batch_size=64,
        epochs=1,
        augment=None,
        calibration_images=50,
        architectures=8,
        resamples=10,
        tracked=4,
        seeds=1,
    ),
    "paper": Settings(
        dataset="cifar10",
        space={"input_shape": (32, 32, 3)},
        validation_per_class=500,
        batch_size=64,
        epochs=250,
        tracked=200,
        tracked_every=10,
        memory=64e9,
    ),
}
# The reduced spaces of each preset.
REDUCED = {
    "small": ("Reduce-1", "Reduce-2", "Reduce-3"),
    "smoke": ("Reduce-3",),
    "paper": ("Reduce-1", "Reduce-2", "Reduce-3"),
}


def main():
    """Runs the recipe."""
    parser = arguments(__doc__.splitlines()[0], list(PRESETS))
    parser.add_argument(
        "--spaces",
        nargs="+",
        choices=list(SPACES),
        help="which spaces; a later run with --resume may add the rest",
    )
    parser.add_argument(
        "--dataset",
        choices=list(DATASETS),
        default="cifar10",
        help="the images, if they are not digits, and the table's accuracies",
    )
    args = parser.parse_args()
    settings = _with_images_of(args.dataset, PRESETS[args.preset])
    table = tabular.nasbench201(args.tables or args.data_dir)
    output = Output("spos_table8", args)
    output.agree("dataset", args.dataset)
    study = Study(settings, output, args, spaces.nasbench201, table, live_edges)
    wanted = args.spaces or ["Original", *REDUCED[args.preset]]
    # What an earlier run has of other spaces is reported with them.
    runs = study.compare("Original", args.trainings if "Original" in wanted else [])
    for space, reduction in SPACES.items():
        plain = space, "plain SPOS", 0
        if reduction and (space in wanted or study.known(*plain)):
            runs.append(study.run(*plain, ["recalibrated"], reduction=reduction))
    truth, flops = f"{args.dataset}_test_200", f"{args.dataset}_flops"
    rows = judge(study, runs, truth, flops, f"{args.dataset}_params")
    size = settings.space["input_shape"][0]
    note = (
        f"Supernets with N = {settings.space.get('cells', 5)} cells a stage, "
        f"{settings.epochs} epochs on {settings.dataset} at {size} px, "
        f"{settings.architectures or 'all'} architectures. The paper does not say how "
        "its supernets were trained; NAS-Bench-201's authors train theirs with N = 5 "
        f"for 250 epochs at {DATASETS[args.dataset][1]} px. Truth: test accuracy on "
        f"{args.dataset} after 200 epochs, from the table."
    )
    paper = {
        (space, "plain SPOS", "recalibrated"): tau
        for space, tau in zip(SPACES, PAPER[args.dataset], strict=True)
    }
    finish(study, runs, rows, truth, flops, paper, note)


def _with_images_of(dataset, settings):
    """A preset on another data set: as many images in all, of its classes."""
    if settings.dataset == "digits" or dataset == "cifar10":
        return settings
    classes, most = DATASETS[dataset]
    size = min(settings.space["input_shape"][0], most)
    space = {"input_shape": (size, size, 3), "num_classes": classes}
    counts = {
        name: getattr(settings, name) and getattr(settings, name) * 10 // classes
        for name in (
            "train_per_class",
            "validation_per_class",
            "more_validation_per_class",
        )
    }
    return dataclasses.replace(
        settings, dataset=dataset, space={**settings.space, **space}, **counts
    )


if __name__ == "__main__":
    main()
