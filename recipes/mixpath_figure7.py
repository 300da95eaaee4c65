"""MixPath, Figure 7: NSGA-II against random search.

    python -m recipes.mixpath_figure7 --preset small --data-dir DIR

Both score paths of one supernet (m = 2), as many each: accuracy up, multiply-adds down.
With ``--supernet FILE`` (m2_sbn.keras of mixpath_figure6) none is trained. Where every
accuracy, and so the true front, is known, ``benchmarks.search`` compares them.
"""

import numpy as np

import keras_spos as ks
from keras_spos import plots, search
from recipes import mixpath
from recipes.common import markdown_table, settings_dict


def main():
    """Runs the recipe."""
    args, experiment, net = mixpath.begin("mixpath_figure7", __doc__)
    output, settings = experiment.output, experiment.settings
    flops = ks.flops_table(net)
    score = experiment.evaluator(net)
    results = {
        "NSGA-II": experiment.nsga2(net, score, flops),
        "random search": experiment.random_search(net, score, flops),
    }
    plots.plot_front(results, "flops", output.path("figure7.png"), xlabel="MACs")
    reference = (0.0, flops.reachable_range()[1])
    volumes = {
        name: mixpath.hypervolumes(result, flops, reference)
        for name, result in results.items()
    }
    report = {
        name: {
            "hypervolume": volumes[name],
            "front": [candidate.__dict__ for candidate in _front(result)],
        }
        for name, result in results.items()
    }
    rows = [["supernet (one seed)", *_shares(volumes, reference)]]
    for name, result in results.items():
        result.history.to_csv(output.path(f"{name.replace(' ', '_').lower()}.csv"))
    table = markdown_table(["final hypervolume", "NSGA-II", "random search"], rows)
    output.report(settings_dict(settings), report)
    output.write_table(table)


def _front(result):
    indices = search.result.front(result.history, ["flops"])
    return [result.history.candidate(i) for i in indices]


def _shares(volumes, reference):
    return [f"{v[-1] / np.prod(reference[1:]):.4f}" for v in volumes.values()]


if __name__ == "__main__":
    main()
