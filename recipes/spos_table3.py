"""SPOS, Table 3: building-block search against its baselines.

    python -m recipes.spos_table3 --preset small --data-dir DIR

One supernet is trained by uniform constraint sampling; evolution and random search look
for the best path under the FLOPs limit; what they find, random paths, and the four
"all choice_k" networks (widened to the limit) are trained from scratch and tested.
"""

from keras_spos.spaces.shufflenet_v2 import OPTIONS
from recipes import spos
from recipes.common import Output, arguments, settings_dict

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
    output.save(net, "supernet")
    output.say("supernet trained")

    score = experiment.evaluator(net)
    evolved = experiment.evolve(score)
    output.say(f"evolution: {evolved.best}")
    sampled = experiment.random_search(score)
    output.say(f"random search: {sampled.best}")

    networks = {f"all {o}": [experiment.widened(o)] for o in OPTIONS}
    legal = experiment.limit.satisfied(candidates := net.space.sample(1000, seed=2))
    networks["random select"] = [
        experiment.fresh(path) for path in candidates[legal][: settings.random_networks]
    ]
    networks["SPS + random search"] = [experiment.fresh(sampled.best.path)]
    networks["SPS + evolution (ours)"] = [experiment.fresh(evolved.best.path)]
    rows = experiment.retrain_all(networks)
    table = spos.comparison(rows, PAPER, settings, args.preset)
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
    output.write_table(table)
    _draw(output, net.space, {"evolution": evolved, "random search": sampled})


def _draw(output, space, results):
    from keras_spos import plots

    plots.plot_history(results, path=output.path("search.png"))
    plots.plot_architecture(
        space,
        {name: result.best.path for name, result in results.items()},
        path=output.path("architectures.png"),
    )


if __name__ == "__main__":
    main()
