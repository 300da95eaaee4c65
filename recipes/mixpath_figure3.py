"""MixPath, Figure 3: is training stable, and how good are random paths at its end?

    python -m recipes.mixpath_figure3 --preset small --data-dir DIR

Three supernets with the same number of steps: MixPath with m = 2, with shadow batch
norms and with one batch norm, and One-Shot, which runs all paths and drops more and
more of them. After every second epoch the same random paths are scored with the batch
statistics that the supernet has learned; at the end many more are. The band is one
standard deviation to either side: the paper's shows "variances", without saying how.
Nor does it say which of its spaces for ImageNet this is: `paper` trains S2.
"""

import numpy as np

import keras_spos as ks
from keras_spos import callbacks, plots, spaces
from recipes import mixpath, spos
from recipes.common import Output, arguments, markdown_table, settings_dict

PRESETS = {
    **mixpath.PRESETS,
    "paper": mixpath.Settings(
        dataset="imagenet",
        space={"input_shape": (224, 224, 3)},
        validation_per_class=50,
        batch_size=1024,
        epochs=spos.SUPERNET_EPOCHS,  # Here too 120 epochs of all images.
        learning_rate=0.1,
        l2=1e-5,
        sampled_paths=3_000,
    ),
}
SAMPLED_PATHS = 20
EVERY = 2
# How many paths One-Shot drops in the end. Bender et al. drop half of two paths.
FINAL_RATE = 0.5
# Maximum number of paths (None: all) and whether batch norms are shadow batch norms.
TRAININGS = {
    "MixPath, shadow batch norms": (2, True),
    "MixPath, one batch norm": (2, False),
    "One-Shot": (None, False),
}


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(PRESETS))
    settings = PRESETS[args.preset]
    output = Output("mixpath_figure3", args)
    experiment = mixpath.Experiment(settings, output, args)
    if settings.dataset == "imagenet":
        experiment.build = spaces.mixpath_s2
    results = {name: _run(experiment, name) for name in TRAININGS}
    epochs = next(iter(results.values()))["epochs"]
    plots.plot_curves(
        {name: _band(r) for name, r in results.items()},
        x="epoch",
        y=f"validation accuracy of {SAMPLED_PATHS} random paths",
        path=output.path("figure3_training.png"),
        positions=[epoch + 1 for epoch in epochs],
    )
    plots.plot_histogram_panels(
        {"after training": {name: r["final"] for name, r in results.items()}},
        path=output.path("figure3_histogram.png"),
        xlabel=f"accuracy of {settings.sampled_paths} random paths",
    )
    rows = [
        [name, f"{100 * np.mean(r['final']):.2f}", f"{100 * np.std(r['final']):.2f}"]
        for name, r in results.items()
    ]
    table = markdown_table(["training", "mean accuracy, %", "spread, %"], rows)
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset. The paper's "
        "figure, on ImageNet, prints no numbers: shadow batch norms lead, One-Shot "
        "learns last."
    )
    output.report(settings_dict(settings), results)
    output.write_table(table, note)


def _run(experiment, name):
    """Trains one supernet, and scores random paths on the way and at the end."""
    output, settings = experiment.output, experiment.settings
    short = name.replace(",", "").replace(" ", "_").lower()
    known = output.done(short)
    if known:
        return known
    max_paths, shadow = TRAININGS[name]
    one_shot = max_paths is None
    if one_shot:
        max_paths = len(settings.space.get("kernel_sizes", (3, 5, 7, 9)))
    net = experiment.new_supernet(max_paths, shadow)
    # One-Shot is judged by the paths that MixPath is judged by: of at most two.
    judged = experiment.new_supernet(2)
    paths = _same_paths(judged.space, net.space, experiment.sampled(judged))
    score = experiment.evaluator(net, recalibrate=False)
    every = min(EVERY, settings.epochs)
    sampled = callbacks.SampledAccuracy(score, paths[:SAMPLED_PATHS], every)
    extra = [sampled]
    if one_shot:
        net.sampler = ks.OneShotSampler.of(net.searchable_layers)
        steps = settings.epochs * len(experiment.training_data())
        extra.append(callbacks.GrowPathDropout(FINAL_RATE, steps))
    experiment.train(net, short, settings.epochs, extra)
    output.say(f"{name}: trained")
    result = {"epochs": sampled.epochs}
    for part in ("mean", "std", "min", "max"):
        result[part] = getattr(np, part)(sampled.scores, axis=1).tolist()
    result["final"] = score(paths).tolist()
    return output.finish(short, result)


def _band(result):
    """The mean, and one standard deviation below and above."""
    mean, std = np.array(result["mean"]), np.array(result["std"])
    return mean, mean - std, mean + std


def _same_paths(space, other, paths):
    """Paths of one space as paths of another that has the same labels and more."""
    return np.array([other.parse(space.describe(path)) for path in paths])


if __name__ == "__main__":
    main()
