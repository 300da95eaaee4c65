"""SPOS, Table 5: one supernet, searched at each baseline's FLOPs and at its latency.

    python -m recipes.spos_table5 --preset small --data-dir DIR

A latency table of the supernet's blocks is measured on this machine's ONNX Runtime and
checked against whole networks. One supernet is trained, by uniform constraint sampling
over the multiply-adds of five published networks. For each of them, evolution looks for
the best path with at most its multiply-adds, and for the best with at most its measured
latency. All of them are trained from scratch and tested.
"""

import keras

import keras_spos as ks
from keras_spos import InfeasibleLimitError, search
from recipes import mobile, spos
from recipes.common import Output, markdown_table, parser_for, settings_dict

# FLOPs, parameters, latency (Titan Xp, batch 32), and top-1 on ImageNet of the baseline
# and of the searches at the same FLOPs and latency, as printed in the paper's Table 5.
PAPER = {
    "FBNet-A": ("249M/4.3M", "13ms", 73.0, 73.2, 73.3),
    "FBNet-B": ("295M/4.5M", "17ms", 74.1, 74.2, 74.8),
    "FBNet-C": ("375M/5.5M", "19ms", 74.9, 75.0, 75.1),
    "Proxyless-R (mobile)": ("320M/4.0M", "17ms", 74.2, 74.5, 74.8),
    "Proxyless (GPU)": ("465M/5.3M", "22ms", 74.7, 74.8, 75.3),
}
PRESETS = {
    "small": mobile.Settings(
        dataset="cifar10",
        space={"input_shape": (32, 32, 3), "num_classes": 10, "stem_stride": 2},
        width=0.25,
        depth=2,
        first_stride=1,
        train_per_class=2000,
        validation_per_class=100,
        batch_size=64,
        supernet_epochs=40,
        retrain_epochs=10,
        learning_rate=0.05,
        calibration_images=500,
        population=10,
        generations=6,
        topk=5,
        networks=50,
        measure={"rounds": 9, "seconds": 0.05},
        clock="cpu",
    ),
    "smoke": mobile.Settings(
        dataset="digits",
        space={"input_shape": (16, 16, 3), "num_classes": 10, "stem_stride": 1},
        width=0.1,
        depth=1,
        validation_per_class=10,
        batch_size=64,
        supernet_epochs=1,
        retrain_epochs=1,
        learning_rate=0.05,
        calibration_images=50,
        population=2,
        generations=2,
        topk=2,
        networks=20,
        measure={"rounds": 2, "seconds": 0.002, "warmup_seconds": 0.02},
        clock="cpu",
        baselines=("Proxyless (GPU)",),
    ),
    "paper": mobile.Settings(
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
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    settings = PRESETS[args.preset]
    output = Output("spos_table5", args, same=("engine", "device"))
    experiment = mobile.Experiment(settings, output, args)
    net = experiment.net
    output.say(f"{net.space}, {experiment.flops}")

    with experiment.open_engine(args) as engine:
        latency = experiment.latency_table(engine)
        output.say(str(latency))
        baselines = {}
        for name in settings.baselines:
            baselines[name] = _baseline(experiment, name, engine)
            output.say(f"{name}: {baselines[name]}")

        limits = [baseline["flops"] for baseline in baselines.values()]
        net.sampler = spos.range_sampler(experiment.flops, limits)
        history = experiment.train(net, "supernet", settings.supernet_epochs)
        output.save(net, "supernet")
        output.say("supernet trained")
        score = experiment.evaluator(net)
        rows = []
        for name, baseline in baselines.items():
            row = {"name": name, "baseline": baseline}
            for kind, table, limit in (
                ("same_flops", experiment.flops, baseline["flops"]),
                ("same_latency", latency, baseline["latency_ms"]),
            ):
                row[kind] = _search(experiment, name, kind, table <= limit, score)
            rows.append(row)
            output.say(f"searched for {name}: {row}")
        trained = {}
        for row in rows:
            _finish(experiment, row, latency, engine, trained)
            output.say(f"{row['name']}: {row}")

    table = markdown_table(_HEADER, [_cells(row) for row in rows])
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset, latency at "
        f"batch {settings.latency_batch} on {latency.metadata['engine']} "
        f"{latency.metadata['engine_version']}, {latency.metadata['device']}; the "
        "paper's figures are ImageNet's, on a Titan Xp."
    )
    output.report(
        settings_dict(settings),
        {
            "rows": rows,
            "latency_check": latency.metadata["check"],
            "latency_correction": latency.metadata["correction"],
            "supernet_history": history,
        },
    )
    output.write_table(table, note)


def _baseline(experiment, name, engine):
    known = experiment.output.done(f"baseline {name}")
    if known:
        return known
    model = experiment.baseline(name)
    return experiment.output.finish(
        f"baseline {name}",
        {
            "flops": ks.count_flops(model),
            "params": ks.count_params(model),
            "latency_ms": experiment.measured_latency(model, name, engine),
        },
    )


def _search(experiment, name, kind, limit, score):
    """Evolution under one limit; None if no path of the space meets it."""
    s = experiment.settings
    try:
        result = search.evolve(
            experiment.net.space,
            score,
            limits=[limit],
            population=s.population,
            generations=s.generations,
            topk=s.topk,
            seed=experiment.seed,
            checkpoint=experiment.output.path("search", f"{name} {kind}.json"),
            verbose=False,
        )
    except InfeasibleLimitError as error:
        return {"infeasible": str(error)}
    path = result.best.path
    return {
        "path": list(path),
        "limit": limit.value,
        "score": result.best.score,
        "evaluations": len(result.history.scores),
    }


def _finish(experiment, row, latency, engine, trained):
    """Trains a row's networks, and measures what was found."""
    name = row["name"]
    row["baseline"]["top1"] = _retrain(
        experiment, name, lambda: experiment.baseline(name)
    )
    for kind in ("same_flops", "same_latency"):
        found = row[kind]
        if "infeasible" in found:
            continue
        path = tuple(found["path"])
        if path not in trained:
            label = "found " + "".join(map(str, path))
            model = experiment.net.extract(path, fresh=True)
            trained[path] = {
                "flops": ks.count_flops(model),
                "params": ks.count_params(model),
                "table_ms": float(latency(path)[0]),
                "latency_ms": experiment.measured_latency(model, label, engine),
                "top1": _retrain(
                    experiment,
                    label,
                    # Not the model above, whose weights were drawn without the seed.
                    lambda path=path: experiment.net.extract(path, fresh=True),
                ),
            }
        found.update(trained[path])


def _retrain(experiment, name, build):
    """Trains a network from scratch and tests it, once."""
    known = experiment.output.done(f"trained {name}")
    if known:
        return known["top1"]
    keras.utils.set_random_seed(experiment.seed)
    model = build()
    experiment.train(model, name, experiment.settings.retrain_epochs)
    top1 = experiment.test_accuracy(model)
    return experiment.output.finish(f"trained {name}", {"top1": top1})["top1"]


_HEADER = [
    "baseline",
    "MACs / parameters",
    "latency ms",
    "top-1 %",
    "same MACs: MACs",
    "top-1 %",
    "same latency: table / measured ms",
    "top-1 %",
    "paper: FLOPs / parameters, latency",
    "paper top-1 %: baseline, same FLOPs, same latency",
]


def _cells(row):
    b, paper = row["baseline"], PAPER[row["name"]]
    cells = [
        row["name"],
        f"{b['flops']:,} / {b['params']:,}",
        f"{b['latency_ms']:.3f}",
        f"{100 * b['top1']:.2f}",
    ]
    for kind in ("same_flops", "same_latency"):
        found = row[kind]
        if "infeasible" in found:
            cells += ["out of reach", ""]
        elif kind == "same_flops":
            cells += [f"{found['flops']:,}", f"{100 * found['top1']:.2f}"]
        else:
            cells += [
                f"{found['table_ms']:.3f} / {found['latency_ms']:.3f}",
                f"{100 * found['top1']:.2f}",
            ]
    return [
        *cells,
        f"{paper[0]}, {paper[1]}",
        ", ".join(str(v) for v in paper[2:]),
    ]


if __name__ == "__main__":
    main()
