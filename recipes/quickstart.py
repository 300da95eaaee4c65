"""The whole flow on real images in about two minutes: scikit-learn's scanned digits.

    python -m recipes.quickstart

Trains a supernet, searches it under a FLOPs limit, compares what is found with random
legal architectures, trains it from scratch and writes it as ONNX.
"""

import keras
import numpy as np

import keras_spos as ks
from keras_spos import callbacks, data, plots, search, spaces
from recipes.common import Output, arguments
from recipes.progress import Progress

PRESETS = {
    "small": {
        "stage_blocks": (3, 3),
        "supernet_epochs": 24,
        "retrain_epochs": 10,
        "generations": 6,
        "population": 20,
    },
    "smoke": {
        "stage_blocks": (2, 1),
        "supernet_epochs": 1,
        "retrain_epochs": 1,
        "generations": 2,
        "population": 6,
    },
}
# The share of random architectures that the FLOPs limit admits.
LIMIT_QUANTILE = 0.5
RANDOM_ARCHITECTURES = 20


def main():
    """Runs the recipe."""
    args = arguments(__doc__.splitlines()[0], list(PRESETS))
    preset = PRESETS[args.preset]
    output = Output("quickstart", args)
    keras.utils.set_random_seed(args.seed)

    digits = data.digits(size=16)
    net = spaces.shufflenet_v2(
        input_shape=(16, 16, 3),
        num_classes=10,
        stage_channels=(32, 64),
        stage_blocks=preset["stage_blocks"],
        head_channels=128,
        seed=args.seed,
    )
    net.recompute = args.recompute
    flops = ks.flops_table(net)
    some = net.space.sample(5_000, seed=1)
    limit = flops <= float(np.quantile(flops(some), LIMIT_QUANTILE))
    output.say(f"{net.space}; {flops}; limit {limit.value:,.0f}")

    train(net, digits, preset["supernet_epochs"], output, "supernet")
    output.save(net, "supernet")
    score = ks.Evaluator(
        net,
        data.balanced_subset(digits.train, n=500).images,
        (digits.validation.images, digits.validation.labels),
        preprocess=lambda x: data.standardise(x, digits.mean, digits.std),
    )
    result = search.evolve(
        net.space,
        score,
        limits=[limit],
        population=preset["population"],
        generations=preset["generations"],
        seed=args.seed,
        checkpoint=output.path("search.json"),
    )
    best = result.best
    output.say(f"found {net.space.describe(best.path)}")

    legal = search.sample_legal(net.space, RANDOM_ARCHITECTURES, [limit], seed=2)
    inherited = score(legal)
    subnet = net.extract(best.path, fresh=True)
    train(subnet, digits, preset["retrain_epochs"], output, "subnet")
    test = data.evaluation(digits.test, 100, mean=digits.mean, std=digits.std)
    accuracy = subnet.evaluate(test, verbose=0, return_dict=True)["accuracy"]
    exported = ks.to_onnx(subnet, output.path("best.onnx"))
    plots.plot_history({"evolution": result}, path=output.path("search.png"))
    plots.plot_architecture(net.space, best.path, path=output.path("architecture.png"))

    output.report(
        preset,
        {
            "limit": limit.value,
            "best": best.__dict__,
            "description": net.space.describe(best.path),
            "random_inherited_accuracy": [float(v) for v in inherited],
            "retrained_test_accuracy": accuracy,
            "onnx_max_abs_difference": exported.max_abs_difference,
        },
    )
    print(
        f"\nFLOPs           {best.costs['flops']:,.0f} (limit {limit.value:,.0f})"
        f"\nvalidation      {best.score:.4f} with the supernet's weights"
        f"\n  random legal  {inherited.mean():.4f} mean, {inherited.max():.4f} best "
        f"of {len(inherited)}"
        f"\ntest            {accuracy:.4f} trained from scratch"
        f"\nONNX            {exported.path}, differs from Keras by at most "
        f"{exported.max_abs_difference:.1e}"
        f"\npictures        {output.path('search.png')}, "
        f"{output.path('architecture.png')}"
    )


def train(model, digits, epochs, output, name):
    """Compiles and trains a supernet or a subnet, as any Keras model."""
    batches = data.training(
        digits.train, 64, augment=None, mean=digits.mean, std=digits.std
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.1, epochs * len(batches))
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    resume = callbacks.Resume(output.path("checkpoints", name), data=batches)
    model.fit(batches, epochs=epochs, verbose=0, callbacks=[resume, Progress(name)])
    output.say(f"{name} trained")


if __name__ == "__main__":
    main()
