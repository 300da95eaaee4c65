"""MixPath, Table 1: networks for CIFAR-10, searched there or carried over.

    python -m recipes.mixpath_table1 --preset small --data-dir DIR

NSGA-II looks for networks on a supernet of S1 with m = 2; the most accurate of its
front is trained from scratch and tested (`paper`: the most accurate with at most the
published network's multiply-adds). The paper says neither which m its network has nor
how it is trained: here as supernets are. With ``--supernet FILE`` (m2_sbn.keras of
mixpath_figure6) none is trained. With ``--network FILE``, a network trained on another
data set (such as ImageNet; mixpath_table2 writes one), that one is fine-tuned here too.
"""

import keras
from keras import layers

import keras_spos as ks
from keras_spos import plots
from recipes import mixpath
from recipes.common import checksum, markdown_table, settings_dict

# Parameters and multiply-adds in millions, test error in percent (Table 1).
PAPER = {
    "searched on S1": (5.3, 473, 2.60),
    "carried over": (3.5, 299, 2.17),
}
# The table's other networks.
OTHERS = {
    "NASNet-A": (3.3, 608, 2.65),
    "DARTS": (3.3, 528, 2.86),
    "SNAS": (2.9, 422, 2.98),
    "GDAS": (3.4, 519, 2.93),
    "P-DARTS": (3.4, 532, 2.50),
    "PC-DARTS": (3.6, 558, 2.57),
    "FairDARTS-a": (2.8, 371, 2.54),
    "MixNet-M (carried over)": (5.1, 360, 2.10),
}


def main():
    """Runs the recipe."""
    args, experiment, net = mixpath.begin(
        "mixpath_table1", __doc__, network="a trained network to carry over"
    )
    output, settings = experiment.output, experiment.settings
    flops = ks.flops_table(net)
    found = experiment.nsga2(net, experiment.evaluator(net), flops)
    output.say(f"NSGA-II: {found.best}")
    plots.plot_front(
        {"NSGA-II": found}, "flops", output.path("front.png"), xlabel="MACs"
    )
    best = experiment.to_train(found, PAPER["searched on S1"][1])
    plots.plot_architecture(net.space, best.path, output.path("network.png"))
    results = {
        "searched on S1": experiment.retrain(net, best.path, "searched"),
        "carried over": args.network and _carry_over(experiment, args.network),
    }
    table = markdown_table(
        [
            *("network", "parameters, M", "MACs, M", "test error, %"),
            *("paper: parameters, M", "MACs, M", "test error, %"),
        ],
        [
            [name, *(_cells(result) if result else ["not run"] * 3), *PAPER[name]]
            for name, result in results.items()
        ]
        + [[name, *[""] * 3, *cells] for name, cells in OTHERS.items()],
    )
    note = f"Measured on {settings.dataset} with the {args.preset!r} preset."
    output.report(
        settings_dict(settings),
        {"results": results, "front": [c.__dict__ for c in found.front]},
    )
    output.write_table(table, note)


def _carry_over(experiment, file):
    """Fine-tunes a trained network with a new classifier, at its own image size.

    The paper refers to GPipe (Huang et al., 2019) and to Kornblith et al. (2019) for
    the settings and states none. These are this project's choice: the preset's training
    from scratch (optimizer, learning rate, epochs, batch size, augmentation), all
    weights trained, images resized to the network's size, dropout and weight decay as
    in the network, none on the new classifier.
    """
    source = keras.saving.load_model(file, compile=False)
    experiment.output.agree("a network of weights", checksum(source))
    known = experiment.output.done("carried_over")
    if known:
        return known
    keras.utils.set_random_seed(experiment.seed)
    body = keras.Model(source.input, source.layers[-1].input)
    inputs = keras.Input(experiment.splits.train.images.shape[1:])
    x = layers.Resizing(*source.input_shape[1:3])(inputs)
    outputs = layers.Dense(experiment.splits.num_classes, name="classifier")(body(x))
    model = keras.Model(inputs, outputs)
    experiment.train(model, "carried_over", experiment.settings.retrain_epochs)
    return experiment.output.finish(
        "carried_over",
        {
            "flops": ks.count_flops(model),
            "params": ks.count_params(model),
            **experiment.test(model),
        },
    )


def _cells(result):
    millions = (result[part] / 1e6 for part in ("params", "flops"))
    error = 100 * (1 - result["top1"])
    return [*(f"{value:.3g}" for value in millions), f"{error:.2f}"]


if __name__ == "__main__":
    main()
