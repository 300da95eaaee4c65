"""MixPath, Table 2: networks for ImageNet from the spaces S2 and S3.

    python -m recipes.mixpath_table2 --preset small --data-dir DIR

For each space and m = 1 and 2 a supernet is trained and NSGA-II looks for networks. The
most accurate of its front (`paper`: the most accurate with at most the multiply-adds of
the published network of that space) is trained from scratch with MnasNet's settings
(`recipes.mnasnet`, which says which of them MixPath leaves open) and tested. How each
differs from MixPath-A (S3) and MixPath-B (S2), whose blocks were not published, is
printed too. Dropout, which the paper does not mention, is MnasNet's in supernets too.
"""

import dataclasses

import keras

import keras_spos as ks
from keras_spos import spaces
from recipes import mixpath, mnasnet, spos
from recipes.common import Output, arguments, markdown_table, settings_dict

SMALL_SKELETON = (
    (1, 2, 3, 16, 0, 1, 1),
    (2, 1, 3, 24, 0.5, 2, 2),
    (1, 2, 3, 32, 0.5, 1, 1),
)
PRESETS = {
    "small": dataclasses.replace(
        mixpath.PRESETS["small"],
        space={
            "input_shape": (32, 32, 3),
            "num_classes": 10,
            "skeleton": SMALL_SKELETON,
            "stem_channels": 8,
            "head_channels": 128,
            "dropout": mnasnet.DROPOUT,
        },
        l2=mnasnet.L2,
        most_paths=(1, 2),
    ),
    "smoke": dataclasses.replace(
        mixpath.PRESETS["smoke"],
        space={
            "input_shape": (16, 16, 3),
            "num_classes": 10,
            "skeleton": ((1, 1, 3, 24, 0.5, 2, 2),),
            "stem_channels": 8,
            "head_channels": 16,
            "kernel_sizes": (3, 5),
            "dropout": mnasnet.DROPOUT,
        },
        l2=mnasnet.L2,
        most_paths=(2,),
    ),
    "paper": mixpath.Settings(
        dataset="imagenet",
        space={"input_shape": (224, 224, 3), "dropout": mnasnet.DROPOUT},
        validation_per_class=50,
        batch_size=1024,
        epochs=spos.SUPERNET_EPOCHS,  # Here too 120 epochs of all images.
        learning_rate=0.1,
        l2=mnasnet.L2,  # The paper's for supernets, too.
        most_paths=(1, 2),
        retrain_epochs=mnasnet.EPOCHS,
        match_flops=True,
    ),
}
SPACES = {"S2": spaces.mixpath_s2, "S3": spaces.mixpath_s3}
# Multiply-adds and parameters in millions, top-1 and top-5, as printed in Table 2.
PAPER = {
    "MixPath-A": (349, 5.0, 76.9, 93.4),
    "MixPath-B": (378, 5.1, 76.7, 93.3),
}
# The table's other networks; MixNet-M as trained for MixPath (as first published).
OTHERS = {
    "MobileNetV2": (300, 3.4, 72.0, 91.0),
    "DARTS (2nd order)": (595, 4.9, 73.1, "-"),
    "PDARTS (CIFAR-10)": (557, 4.9, 75.6, 92.6),
    "PCDARTS": (586, 5.3, 74.9, 92.2),
    "FairDARTS-C": (380, 4.2, 75.1, 92.4),
    "FBNet-B": (295, 4.5, 74.1, "-"),
    "MnasNet-A2": (340, 4.8, 75.6, 92.7),
    "MobileNetV3": (219, 5.4, 75.2, 92.2),
    "Proxyless-R": (320, 4.0, 74.6, 92.2),
    "FairNAS-A": (388, 4.6, 75.3, 92.4),
    "Single-Path": (365, 4.3, 75.0, 92.2),
    "SPOS": (328, 3.4, 74.9, 92.0),
    "MixNet-M": (360, 5.0, "76.6 (77)", 93.2),
    "AtomNAS-B": (326, 4.4, 75.5, 92.6),
    "EfficientNet B0": (390, 5.3, 76.3, 93.2),
    "SCARLET-A": (365, 6.7, 76.9, 93.4),
}
PUBLISHED = {"S2": "MixPath-B", "S3": "MixPath-A"}


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(PRESETS))
    settings = PRESETS[args.preset]
    output = Output("mixpath_table2", args)
    experiment = mixpath.Experiment(settings, output, args)
    experiment.compile_found = mnasnet.compile_network
    results = {}
    for space, build in SPACES.items():
        experiment.build = build
        experiment.prefix = f"{space}_"
        for m in settings.most_paths:
            name = f"{space}_m{m}"
            published = PAPER[PUBLISHED[space]][0]
            results[name] = output.done(name) or _found(experiment, name, m, published)
            output.say(f"{name}: {results[name]}")
    for name, result in results.items():
        model = keras.saving.load_model(output.path(f"{name}.keras"))
        which = PUBLISHED[name.split("_")[0]]
        result["differences"] = spaces.mixpath_differences(model, which)
    table = markdown_table(
        ["network", "MACs, M", "parameters, M", "top-1, %", "top-5, %"],
        [
            *(
                [
                    name,
                    *(f"{r[part] / 1e6:.3g}" for part in ("flops", "params")),
                    *(f"{100 * r[part]:.2f}" for part in ("top1", "top5")),
                ]
                for name, r in results.items()
            ),
            *(
                [f"{name} (paper)", *cells]
                for name, cells in {**PAPER, **OTHERS}.items()
            ),
        ],
    )
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset; the paper's "
        "figures are ImageNet's. Networks are trained with MnasNet's settings for "
        f"{settings.retrain_epochs} epochs. Differences from the published networks: "
        + "; ".join(f"{n}: {r['differences'] or 'none'}" for n, r in results.items())
    )
    output.report(settings_dict(settings), results)
    output.write_table(table, note)


def _found(experiment, name, m, published):
    """Searches one space, and trains what it finds."""
    net = experiment.supernet(m)
    score = experiment.evaluator(net)
    found = experiment.nsga2(net, score, ks.flops_table(net), f"{name}_nsga2")
    best = experiment.to_train(found, published)
    return experiment.retrain(net, best.path, name)


if __name__ == "__main__":
    main()
