"""SPOS, Table 6: mixed-precision search on a ResNet, under the BitOps of kWkA.

    python -m recipes.spos_table6 --preset small --data-dir DIR
    python -m recipes.spos_table6 --preset paper --depth 34

A float network is trained; a supernet of bit widths and bottleneck widths starts from
its weights. It is trained once, by uniform constraint sampling over BitOps, and
searched under three limits, the BitOps of 2W2A, 3W3A and 4W4A. What is found and the
kWkA networks are tuned alike, all from the supernet's weights, and tested.
"""

import dataclasses
import functools

import keras

import keras_spos as ks
from keras_spos import spaces
from keras_spos.spaces.resnet_quantized import STAGE_BLOCKS
from recipes import spos
from recipes.common import Output, markdown_table, parser_for, settings_dict

# BitOps in G and top-1 on ImageNet, as printed in the paper's Table 6, by depth. DNAS
# (Wu et al., 2018) is printed there for comparison.
PAPER = {
    18: {
        "float": (None, 70.9),
        "2W2A": (6.32, 65.6),
        "found under 2W2A": (6.21, 66.4),
        "3W3A": (14.21, 68.3),
        "DNAS near 3W3A": (15.62, 68.7),
        "found under 3W3A": (13.49, 69.4),
        "4W4A": (25.27, 69.3),
        "DNAS near 4W4A": (25.70, 70.6),
        "found under 4W4A": (24.31, 70.5),
    },
    34: {
        "float": (None, 75.0),
        "2W2A": (13.21, 70.8),
        "found under 2W2A": (13.11, 71.5),
        "3W3A": (29.72, 72.5),
        "DNAS near 3W3A": (38.64, 73.2),
        "found under 3W3A": (28.78, 73.9),
        "4W4A": (52.83, 73.5),
        "DNAS near 4W4A": (57.31, 74.0),
        "found under 4W4A": (51.92, 74.6),
    },
}
# What a network of the same bits everywhere does not take from a preset's space.
SEARCHED = ("stage_blocks", "bits", "widths")


@dataclasses.dataclass(frozen=True)
class Settings(spos.Settings):
    """One preset.

    Args:
        float_epochs: Length of training of the float network.
        tuning_rate: Learning rate of supernet and networks, which start trained.
        alpha_l2: Weight decay of the activations' clipping ranges, in the gradient.
        budgets: The k of the kWkA networks whose BitOps are the limits.
    """

    float_epochs: int = 90
    tuning_rate: float = 0.05
    alpha_l2: float = 4e-5
    budgets: tuple[int, ...] = (2, 3, 4)


PRESETS = {
    "small": Settings(
        dataset="cifar10",
        space={
            "input_shape": (32, 32, 3),
            "num_classes": 10,
            "stage_blocks": (1, 2, 1),
            "stage_channels": (16, 32, 64),
            "stem_stride": 2,
        },
        train_per_class=500,
        validation_per_class=100,
        batch_size=64,
        float_epochs=8,
        supernet_epochs=8,
        retrain_epochs=2,
        learning_rate=0.1,
        tuning_rate=0.05,
        label_smoothing=0.0,
        calibration_images=500,
        population=16,
        generations=8,
        topk=8,
    ),
    "smoke": Settings(
        dataset="digits",
        space={
            "input_shape": (16, 16, 3),
            "num_classes": 10,
            "stage_blocks": (1, 1),
            "stage_channels": (4, 8),
            "stem_stride": 2,
            "bits": ((1, 2), (2, 2), (4, 4)),
            "widths": (0.5, 1.0),
        },
        validation_per_class=20,
        batch_size=64,
        float_epochs=1,
        supernet_epochs=1,
        retrain_epochs=1,
        learning_rate=0.05,
        calibration_images=100,
        population=4,
        generations=2,
        topk=2,
        budgets=(2,),
    ),
    # The paper gives no schedule for this table; these are its other tables'.
    "paper": Settings(
        dataset="imagenet",
        space={"input_shape": (224, 224, 3), "num_classes": 1000},
        validation_per_class=50,
        batch_size=1024,
        supernet_epochs=spos.SUPERNET_EPOCHS,
        retrain_epochs=spos.RETRAIN_EPOCHS,
    ),
}


def main():
    """Runs the recipe."""
    parser = parser_for(__doc__.splitlines()[0], list(PRESETS))
    parser.add_argument(
        "--depth",
        type=int,
        choices=(18, 34),
        default=18,
        help="the ResNet of the paper that figures stand beside; trained itself by "
        "the preset 'paper' alone, the others have a smaller network of their own",
    )
    args = parser.parse_args()
    settings = _settings(args)
    output = Output("spos_table6", args)
    build = functools.partial(spaces.quantized_resnet, alpha_l2=settings.alpha_l2)
    experiment = spos.Experiment(settings, output, args, build=build)
    net = experiment.net
    bitops = ks.bitops_table(net)
    output.say(f"{net.space}, {bitops}")

    float_net = _uniform(settings, 32)
    histories = {"float": experiment.train(float_net, "float", settings.float_epochs)}
    rows = {"float": _row(experiment, float_net, None)}
    output.say(f"float network: {rows['float']}")

    new = net.inherit(float_net, net.named_paths["4W4A"])
    output.say(f"supernet starts from it; new: {len(new)} clipping ranges and the like")
    limits = {k: ks.count_bitops(_uniform(settings, k)) for k in settings.budgets}
    net.sampler = spos.range_sampler(bitops, limits.values())
    histories["supernet"] = experiment.train(
        net, "supernet", settings.supernet_epochs, learning_rate=settings.tuning_rate
    )
    output.save(net, "supernet")
    output.say("supernet trained")

    score = experiment.evaluator(net)
    results = {}
    for k, most in limits.items():
        name = f"{k}W{k}A"
        limit = bitops <= most
        results[name] = experiment.evolve(score, limit, f"evolution_{name}")
        best = results[name].best
        output.say(f"under {name}, {limit.value:.4g} G: {best}")
        known = name in net.named_paths
        inherited = score(net.named_paths[name])[0] if known else None
        rows[name] = _tuned(experiment, name, lambda k=k: _uniform(settings, k, net))
        rows[name]["inherited"] = _percent(inherited)
        found = f"found under {name}"
        rows[found] = _tuned(
            experiment, found, lambda path=best.path: net.extract(path)
        )
        rows[found]["inherited"] = _percent(best.score)
        output.say(f"{name}: {rows[name]}, found: {rows[found]}")

    _report(output, args, settings, bitops, rows, results, histories)


def _settings(args):
    """The preset, with the blocks of --depth if it has none of its own."""
    settings = PRESETS[args.preset]
    blocks = {"stage_blocks": STAGE_BLOCKS[f"resnet{args.depth}"]}
    return dataclasses.replace(settings, space={**blocks, **settings.space})


def _uniform(settings, k, net=None):
    """The network of k bits and width 1 everywhere, with a supernet's weights."""
    model = spaces.quantized_network(
        settings.space["stage_blocks"],
        (k, k),
        l2=settings.l2,
        alpha_l2=settings.alpha_l2,
        **{n: v for n, v in settings.space.items() if n not in SEARCHED},
    )
    if net is not None:
        # 3-bit inputs are not in the paper's space: alpha is that of 4 bits.
        donor = net.extract("2W2A" if k == 2 else "4W4A")
        for layer in model.layers:
            for weight, value in zip(
                layer.weights, donor.get_layer(layer.name).weights, strict=True
            ):
                weight.assign(value)
    return model


def _tuned(experiment, name, build):
    """Tunes a network and tests it, once."""
    known = experiment.output.done(name)
    if known:
        return known
    keras.utils.set_random_seed(experiment.seed)
    model = build()
    settings = experiment.settings
    experiment.train(
        model,
        name.replace(" ", "_"),
        settings.retrain_epochs,
        learning_rate=settings.tuning_rate,
    )
    return experiment.output.finish(
        name, _row(experiment, model, ks.count_bitops(model))
    )


def _row(experiment, model, bitops):
    return {
        "bitops": bitops,
        "params": ks.count_params(model),
        "top1": _percent(experiment.test_accuracy(model)),
    }


def _percent(share):
    return None if share is None else round(100 * float(share), 2)


def _inherited(row):
    score = row.get("inherited")
    return "not in the space" if score is None else score


def _report(output, args, settings, bitops, rows, results, histories):
    from keras_spos import plots

    paper = PAPER[args.depth]
    header = [
        "network",
        "BitOps, G",
        "parameters",
        "top-1 %",
        "inherited, validation %",
    ]
    table = markdown_table(
        [*header, "paper BitOps, G", "paper top-1 %"],
        [
            [
                name,
                "float" if row["bitops"] is None else f"{row['bitops']:.4g}",
                f"{row['params']:,}",
                row["top1"],
                _inherited(row),
                paper[name][0] or "float",
                paper[name][1],
            ]
            for name, row in rows.items()
        ]
        + [
            [name, *[""] * 4, *cells]
            for name, cells in paper.items()
            if name.startswith("DNAS")
        ],
    )
    space = bitops.space
    named = {f"under {name}": result for name, result in results.items()}
    plots.plot_history(named, path=output.path("search.png"))
    limits = {f"found under {n}": r.best.path for n, r in results.items()}
    plots.plot_settings(bitops, limits, path=output.path("bits.png"))
    output.report(
        settings_dict(settings),
        {
            "rows": rows,
            "best": {n: r.best.__dict__ for n, r in results.items()},
            "descriptions": {n: space.describe(p) for n, p in limits.items()},
            "histories": histories,
        },
    )
    output.write_table(table, _note(args, settings))


def _note(args, settings):
    """What was trained, and what the paper's figures are of."""
    blocks = tuple(settings.space["stage_blocks"])
    channels = settings.space.get("stage_channels")
    network = f"a ResNet of {blocks} blocks"
    if channels:
        network += f" of {channels} channels"
    elif blocks == STAGE_BLOCKS[f"resnet{args.depth}"]:
        network = f"ResNet-{args.depth}"
    return (
        f"Measured with {network} on {settings.dataset}, the {args.preset!r} preset "
        "(see report.json); the paper's figures are ImageNet's, of "
        f"ResNet-{args.depth}."
    )


if __name__ == "__main__":
    main()
