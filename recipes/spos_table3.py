"""SPOS, Table 3: building-block search against its baselines.

    python -m recipes.spos_table3 --preset small --data-dir DIR

One supernet is trained by uniform constraint sampling; evolution and random search look
for the best path under the FLOPs limit; what they find, random paths, and the four
"all choice_k" networks (widened to the limit) are trained from scratch and tested.
"""

import bisect

import keras

import keras_spos as ks
from keras_spos import spaces
from keras_spos.spaces.shufflenet_v2 import BASELINE_SCALES, OPTIONS
from recipes import spos
from recipes.common import Output, arguments, markdown_table, settings_dict

# Top-1 on ImageNet and FLOPs, as printed in the paper's Table 3.
PAPER = {
    "all choice_3": ("324M", 73.4),
    "all choice_5": ("321M", 73.5),
    "all choice_7": ("327M", 73.6),
    "all choice_x": ("326M", 73.5),
    "random select": ("~320M", 73.7),
    "SPS + random search": ("323M", 73.8),
    "SPS + evolution (ours)": ("319M", 74.3),
}


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(spos.PRESETS))
    settings = spos.PRESETS[args.preset]
    output = Output("spos_table3", args)
    experiment = spos.Experiment(settings, output, args)
    net = experiment.net
    output.say(f"{net.space}, {experiment.flops}, limit {experiment.limit.value:,.0f}")

    net.sampler = experiment.constraint_sampler()
    history = experiment.train(net, "supernet", settings.supernet_epochs)
    net.save(output.path("supernet.keras"))
    output.say("supernet trained")

    score = experiment.evaluator(net)
    evolved = experiment.evolve(score)
    output.say(f"evolution: {evolved.best}")
    sampled = experiment.random_search(score)
    output.say(f"random search: {sampled.best}")

    networks = {f"all {o}": [_widened(experiment, o)] for o in OPTIONS}
    legal = experiment.limit.satisfied(candidates := net.space.sample(1000, seed=2))
    networks["random select"] = [
        _fresh(experiment, path)
        for path in candidates[legal][: settings.random_networks]
    ]
    networks["SPS + random search"] = [_fresh(experiment, sampled.best.path)]
    networks["SPS + evolution (ours)"] = [_fresh(experiment, evolved.best.path)]
    rows = []
    for name, builders in networks.items():
        results = [
            _retrain(experiment, f"{name} {number}".replace(" ", "_"), build)
            for number, build in enumerate(builders)
        ]
        rows.append(_summary(name, results))
        output.say(f"{name}: {rows[-1]}")

    table = markdown_table(
        ["network", "MACs", "parameters", "top-1 %", "paper MACs", "paper top-1 %"],
        [
            [
                r["name"],
                f"{r['flops']:,}",
                f"{r['params']:,}",
                r["top1"],
                *PAPER[r["name"]],
            ]
            for r in rows
        ],
    )
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset (see "
        "report.json); the paper's figures are ImageNet's."
    )
    with open(output.path("table.md"), "w") as file:
        file.write(f"{table}\n\n{note}\n")
    output.report(
        settings_dict(settings),
        {
            "limit": experiment.limit.value,
            "rows": rows,
            "evolution": evolved.best.__dict__,
            "random_search": sampled.best.__dict__,
            "description": net.space.describe(evolved.best.path),
            "supernet_history": history,
        },
    )
    print(table, note, sep="\n\n")
    _draw(output, net.space, {"evolution": evolved, "random search": sampled})


def _draw(output, space, results):
    from keras_spos import plots

    plots.plot_history(results, path=output.path("search.png"))
    plots.plot_architecture(
        space,
        {name: result.best.path for name, result in results.items()},
        path=output.path("architectures.png"),
    )


def _fresh(experiment, path):
    return lambda: experiment.net.extract(path, fresh=True)


def _widened(experiment, option):
    """One option everywhere, with the widest mid-channels that meet the limit."""
    s = experiment.settings

    def network(scale):
        return spaces.shufflenet_v2(
            **s.space, l2=s.l2, options=(option,), mid_scale=scale
        )

    def meets_limit(hundredths):
        net = network(hundredths / 100)
        return ks.flops_table(net)(net.path)[0] <= experiment.limit.value

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


def _retrain(experiment, name, build):
    """Trains a network from scratch and tests it, once."""
    known = experiment.output.done(name)
    if known:
        return known
    keras.utils.set_random_seed(experiment.seed)
    model = build()
    experiment.train(model, name, experiment.settings.retrain_epochs)
    return experiment.output.finish(
        name,
        {
            "flops": ks.count_flops(model),
            "params": ks.count_params(model),
            "top1": experiment.test_accuracy(model),
        },
    )


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


if __name__ == "__main__":
    main()
