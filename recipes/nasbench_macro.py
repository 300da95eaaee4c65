"""How well supernets rank NAS-Bench-Macro: single-path chains, like SPOS's own space.

    python -m recipes.nasbench_macro --preset small --data-dir DIR --tables DIR

As `recipes.spos_table8`, on the 6,561 networks of NAS-Bench-Macro, which neither paper
has. `paper` has the rate (0.1 to 0), batch size and weight decay of the benchmark's own
trainings, and a length of this project's. `--tables` holds nasbench_macro.npz (see
`keras_spos.tabular`).
"""

from keras_spos import spaces, tabular
from recipes import ranking
from recipes.common import Output
from recipes.ranking import Settings, arguments
from recipes.ranking_report import finish, judge

TRUTH, FLOPS, PARAMS = "mean_acc", "flops", "params"
PRESETS = {
    "small": Settings(
        dataset="cifar10",
        space={
            "input_shape": (16, 16, 3),
            "stem_channels": 16,
            "stage_channels": (16, 32, 64),
            "head_channels": 256,
        },
        train_per_class=2500,
        validation_per_class=100,
        more_validation_per_class=400,
        batch_size=64,
        epochs=30,
        learning_rate=0.05,
        calibration_images=500,
        architectures=400,
        tracked=60,
        tracked_every=5,
        seeds=3,
        longer_seeds=3,
    ),
    "smoke": Settings(
        dataset="digits",
        space={
            "input_shape": (8, 8, 3),
            "stem_channels": 4,
            "stage_channels": (4, 8, 8),
            "head_channels": 16,
        },
        validation_per_class=10,
        batch_size=64,
        epochs=1,
        augment=None,
        calibration_images=50,
        architectures=8,
        resamples=10,
        seeds=1,
    ),
    "paper": Settings(
        dataset="cifar10",
        space={"input_shape": (32, 32, 3)},
        validation_per_class=500,
        batch_size=256,
        epochs=40,
        learning_rate=0.1,
        final_learning_rate=0.0,
        tracked=200,
        tracked_every=5,
        memory=64e9,
    ),
}


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(PRESETS)).parse_args()
    settings = PRESETS[args.preset]
    table = tabular.nasbench_macro(args.tables or args.data_dir)
    output = Output("nasbench_macro", args)
    study = ranking.Study(settings, output, args, spaces.nasbench_macro, table)
    runs = study.compare("Macro", args.trainings)
    rows = judge(study, runs, TRUTH, FLOPS, PARAMS)
    size = settings.space["input_shape"][0]
    note = (
        f"Supernets trained for {settings.epochs} epochs on {settings.dataset} at "
        f"{size} px, {settings.architectures or 'all'} architectures. Truth: the mean "
        "CIFAR-10 test accuracy of three trainings at 32 px for 50 epochs, from the "
        "table; two of the three trainings rank each other with a tau of 0.882."
    )
    finish(study, runs, rows, TRUTH, FLOPS, {}, note)


if __name__ == "__main__":
    main()
