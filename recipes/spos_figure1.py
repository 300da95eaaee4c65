"""SPOS, Figure 1: single path against path dropout.

    python -m recipes.spos_figure1 --preset small --data-dir DIR

A supernet is trained for each drop rate, with the same number of steps; after each
epoch the validation accuracy of the same random paths is taken. Rate 1 is the single
path.
"""

import keras

import keras_spos as ks
from keras_spos import callbacks, plots, spaces
from recipes import spos
from recipes.common import Output, arguments, markdown_table, settings_dict

DROP_RATES = (0.5, 0.75, 1.0)
SAMPLED_PATHS = 10


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(spos.PRESETS))
    settings = spos.PRESETS[args.preset]
    output = Output("spos_figure1", args)
    experiment = spos.Experiment(settings, output, args)
    paths = experiment.net.space.sample(SAMPLED_PATHS, seed=3)
    curves = {}
    for rate in DROP_RATES:
        name = f"drop rate {rate}" if rate < 1 else "single path (drop rate 1)"
        curves[name] = _train(experiment, rate, paths)
        output.say(f"{name}: {[round(a, 4) for a in curves[name]['mean']]}")
    plots.plot_curves(
        {name: (c["mean"], c["min"], c["max"]) for name, c in curves.items()},
        x="epoch",
        y=f"validation accuracy of {SAMPLED_PATHS} random paths",
        path=output.path("figure1.png"),
    )
    output.report(settings_dict(settings), curves)
    rows = [[n, f"{100 * c['mean'][-1]:.2f}"] for n, c in curves.items()]
    output.write_table(
        markdown_table(["training", "mean accuracy of random paths, %"], rows)
    )


def _train(experiment, rate, paths):
    """Trains one supernet; returns mean, min and max accuracy after each epoch."""
    name = f"drop_rate_{rate}"
    known = experiment.output.done(name)
    if known:
        return known
    keras.utils.set_random_seed(experiment.seed)
    s = experiment.settings
    net = spaces.shufflenet_v2(
        **s.space, l2=s.l2, seed=experiment.seed, sampler=ks.PathDropoutSampler(rate)
    )
    sampled = callbacks.SampledAccuracy(experiment.evaluator(net), paths)
    history = experiment.train(net, name, s.figure1_epochs, extra=[sampled])
    curve = {
        part: [float(v) for v in history[f"sampled_accuracy_{part}"]]
        for part in ("mean", "min", "max")
    }
    return experiment.output.finish(name, curve)


if __name__ == "__main__":
    main()
