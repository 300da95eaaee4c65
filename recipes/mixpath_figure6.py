"""MixPath, Figure 6: shadow batch normalization against one batch norm, m = 1 to 4.

    python -m recipes.mixpath_figure6 --preset small --data-dir DIR

A supernet is trained for each m, with and without shadow batch norms, with the same
number of steps. Random paths are scored with the batch statistics that the supernet
has learned (the paper's figure), and, in the table, with recalibrated ones too. They
are scored on held-out training images, where the paper has test accuracy: here the test
set is for networks that are trained alone. At m = 1 both supernets are one. The
supernets stay in the output folder as <name>.keras; other recipes take them with
``--supernet``.
"""

import numpy as np

from keras_spos import plots
from recipes import mixpath
from recipes.common import Output, arguments, markdown_table, settings_dict


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(mixpath.PRESETS))
    settings = mixpath.PRESETS[args.preset]
    output = Output("mixpath_figure6", args)
    experiment = mixpath.Experiment(settings, output, args)
    results = {}
    # m = 2 first: the other recipes take its supernet.
    for m in sorted(settings.most_paths, key=lambda m: (m != 2, m)):
        for shadow in (True, False) if m > 1 else (True,):
            name = mixpath.supernet_name(m, shadow)
            results[name] = output.done(name) or output.finish(
                name, _scores(experiment, m, shadow)
            )
            output.say(f"{name}: {_row(name, results[name])}")
    plots.plot_histogram_panels(
        {
            f"m = {m}": {
                "shadow batch norms": results[f"m{m}_sbn"]["learned"],
                **({"one batch norm": results[f"m{m}_bn"]["learned"]} if m > 1 else {}),
            }
            for m in settings.most_paths
        },
        path=output.path("figure6.png"),
        xlabel=f"validation accuracy of {settings.sampled_paths} random paths",
    )
    table = markdown_table(
        ["supernet", "mean, %", "spread, %", "recalibrated mean, %", "spread, %"],
        [_row(name, results[name]) for name in sorted(results)],
    )
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset. Spread: one "
        "standard deviation over the paths. Accuracies are of held-out training "
        "images, the paper's of test images. Its Figure 6 prints no numbers: with "
        "shadow batch norms the accuracies are higher and closer together."
    )
    output.report(settings_dict(settings), results)
    output.write_table(table, note)


def _scores(experiment, m, shadow):
    """Accuracies of random paths, with learned and with recalibrated statistics."""
    net = experiment.supernet(m, shadow)
    paths = experiment.sampled(net)
    return {
        "paths": paths.tolist(),
        "learned": experiment.evaluator(net, recalibrate=False)(paths).tolist(),
        "recalibrated": experiment.evaluator(net)(paths).tolist(),
    }


def _row(name, result):
    cells = []
    for kind in ("learned", "recalibrated"):
        scores = 100 * np.array(result[kind])
        cells += [f"{scores.mean():.2f}", f"{scores.std():.2f}"]
    m, kind = name.split("_")
    return [f"m = {m[1:]}, {'shadow' if kind == 'sbn' else 'one batch norm'}", *cells]


if __name__ == "__main__":
    main()
