"""MixPath, Figure 7: NSGA-II against random search.

    python -m recipes.mixpath_figure7 --preset small --data-dir DIR

Both score paths of one supernet (m = 2), as many each: accuracy up, multiply-adds down.
With ``--supernet FILE`` (m2_sbn.keras of mixpath_figure6) none is trained. Where the
data folder has the table of NAS-Bench-201, both also search there, where every accuracy
and so the true front is known, with several seeds.
"""

import numpy as np

import keras_spos as ks
from keras_spos import mixpath_plots, plots, search, tabular
from keras_spos.costs import Block
from recipes import mixpath
from recipes.common import Output, markdown_table, parser_for, settings_dict

SEEDS = range(10)


def main():
    """Runs the recipe."""
    parser = parser_for(__doc__.splitlines()[0], list(mixpath.PRESETS))
    parser.add_argument("--supernet", help="a trained supernet with m = 2")
    args = parser.parse_args()
    settings = mixpath.PRESETS[args.preset]
    output = Output("mixpath_figure7", args)
    experiment = mixpath.Experiment(settings, output, args)
    net = experiment.supernet(2, file=args.supernet)
    flops = ks.flops_table(net)
    found, sampled = experiment.pareto(net, experiment.evaluator(net), flops)
    results = {"NSGA-II": found, "random search": sampled}
    plots.plot_front(results, "flops", output.path("figure7.png"), xlabel="MACs")
    reference = (0.0, flops.reachable_range()[1])
    volumes = {
        name: mixpath.hypervolumes(result, flops, reference)
        for name, result in results.items()
    }
    report = {
        "supernet": {
            name: {
                "hypervolume": volumes[name],
                "front": [c.__dict__ for c in _front(result)],
            }
            for name, result in results.items()
        }
    }
    rows = [["supernet (one seed)", *_shares(volumes, reference)]]
    try:
        table = tabular.nasbench201(args.data_dir)
    except FileNotFoundError as error:
        output.say(f"NAS-Bench-201: not run. {error}")
    else:
        report["nasbench201"] = tabulated = _tabulated(table, settings)
        mixpath_plots.plot_hypervolumes(
            tabulated["hypervolume"],
            settings.population,
            path=output.path("nasbench201.png"),
        )
        means = {
            name: np.mean(runs, axis=0)
            for name, runs in tabulated["hypervolume"].items()
        }
        rows.append(
            [
                f"NAS-Bench-201, share of the true front's ({len(SEEDS)} seeds)",
                *(f"{mean[-1]:.4f}" for mean in means.values()),
            ]
        )
    for name, result in results.items():
        result.history.to_csv(output.path(f"{name.replace(' ', '_').lower()}.csv"))
    table = markdown_table(["final hypervolume", "NSGA-II", "random search"], rows)
    with open(output.path("table.md"), "w") as file:
        file.write(f"{table}\n")
    output.report(settings_dict(settings), report)
    print(table)


def _front(result):
    indices = search.result.front(result.history, ["flops"])
    return [result.history.candidate(i) for i in indices]


def _shares(volumes, reference):
    return [f"{v[-1] / np.prod(reference[1:]):.4f}" for v in volumes.values()]


def _tabulated(table, settings):
    """Hypervolume by generation on NAS-Bench-201, as a share of the true front's."""
    space = ks.SearchSpace(
        ks.Decision(f"edge_{number}", table.options)
        for number in range(table.paths.shape[1])
    )
    flops_of = dict(
        zip(map(tuple, table.paths.tolist()), table.read("cifar10_flops"), strict=True)
    )
    flops = _additive(space, flops_of)
    accuracy = table.accuracy("cifar10_test_200")

    def score(paths):
        return accuracy[table.rows(space, paths)]

    reference = (0.0, flops.reachable_range()[1])
    objectives = np.column_stack([-accuracy, flops(table.paths)])
    best = search.result.hypervolume(objectives, reference)
    volumes = {"NSGA-II": [], "random search": []}
    for seed in SEEDS:
        options = {"seed": seed, "verbose": False}
        results = (
            search.nsga2(
                space,
                score,
                minimize=[flops],
                population=settings.population,
                generations=settings.generations,
                reference=reference,
                **options,
            ),
            search.random_search(
                space,
                score,
                evaluations=settings.population * settings.generations,
                batch=settings.population,
                **options,
            ),
        )
        for runs, result in zip(volumes.values(), results, strict=True):
            found = mixpath.hypervolumes(result, flops, reference)
            runs.append([float(volume / best) for volume in found])
    return {"hypervolume": volumes, "true_front": best, "seeds": list(SEEDS)}


def _additive(space, costs):
    """The table of a cost that is known for every path and is a sum over decisions."""
    zero = (0,) * space.num_decisions
    blocks = []
    for number, decision in enumerate(space.decisions):
        paths = [
            (*zero[:number], option, *zero[number + 1 :])
            for option in range(len(decision.options))
        ]
        shares = [costs[path] - costs[zero] for path in paths]
        blocks.append(Block(decision.name, (number,), np.array(shares)))
    return ks.CostTable(space, costs[zero], blocks, "flops", "MAC")


if __name__ == "__main__":
    main()
