"""MixPath, Table 4: how alike are the features of one path and of two?

    python -m recipes.mixpath_table4 --preset small --data-dir DIR

On a supernet with m = 2, for 10 test images: the cosine similarity of the first block's
output for one path and for two, and that of its Jacobian matrices with respect to the
image. High similarity is the "condition of zero order" on which shadow batch norms
rest. With ``--supernet FILE`` (m2_sbn.keras of mixpath_figure6) none is trained.
"""

import itertools

import keras
import numpy as np
from keras import ops

from keras_spos import data
from recipes import mixpath
from recipes.common import Output, markdown_table, parser_for, settings_dict

IMAGES = 10
# Mean and variance over the images, as printed in the paper's Table 4.
PAPER = {"feature map": (0.9342, 6e-5), "Jacobian matrix": (0.9042, 1e-5)}


def main():
    """Runs the recipe."""
    parser = parser_for(__doc__.splitlines()[0], list(mixpath.PRESETS))
    parser.add_argument("--supernet", help="a trained supernet with m = 2")
    args = parser.parse_args()
    settings = mixpath.PRESETS[args.preset]
    output = Output("mixpath_table4", args)
    experiment = mixpath.Experiment(settings, output, args)
    net = experiment.supernet(2, file=args.supernet)
    test = data.balanced_subset(experiment.splits.test, n=IMAGES, seed=args.seed)
    images = experiment.standardise(test.images)
    block = net.searchable_layers[0]
    pairs = _pairs(block)
    results = {}
    for name, normalized in (("before the batch norm", False), ("block output", True)):
        known = output.done(name)
        if not known:
            similarities = [
                _similarities(net, block, pair, images, normalized) for pair in pairs
            ]
            known = output.finish(name, np.array(similarities).tolist())
        results[name] = np.array(known)
        output.say(f"{name}: {results[name].mean((0, 2))}")
    rows, report = [], {}
    for name, values in results.items():
        for position, (part, paper) in enumerate(PAPER.items()):
            per_image = values[:, position].mean(0)
            report[f"{part}, {name}"] = {
                "mean": float(per_image.mean()),
                "variance": float(per_image.var()),
                "per_pair": values[:, position].mean(1).tolist(),
            }
            measured = f"{per_image.mean():.4f}", f"{per_image.var():.1e}"
            rows.append([f"{part}, {name}", *measured, *paper])
    report["pairs"] = [[list(option) for option in pair] for pair in pairs]
    header = ["cosine similarity", "mean", "variance", "paper mean", "paper variance"]
    table = markdown_table(header, rows)
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset: mean over "
        f"{len(pairs)} pairs of a path and a sum of two that it is part of, and "
        f"{IMAGES} images. The paper does not say which pair it took, nor whether the "
        "batch norm is part of the features."
    )
    with open(output.path("table.md"), "w") as file:
        file.write(f"{table}\n\n{note}\n")
    output.report(settings_dict(settings), report)
    print(table, note, sep="\n\n")


def _pairs(block):
    """Pairs of options: a path, and the sum of it and its neighbour in kernel size."""
    return [
        ((number, (small,)), (number, (small, large)))
        for number, group in enumerate(block.groups)
        for small, large in itertools.pairwise(range(len(group.paths)))
    ]


def _similarities(net, block, pair, images, normalized):
    """Cosine similarities of features and of Jacobian matrices, for each image."""
    functions = [_features(net, block, option, normalized) for option in pair]
    features = [
        ops.convert_to_numpy(f(images)).reshape(len(images), -1) for f in functions
    ]
    jacobians = []
    for image in images:
        products = np.zeros((2, 2))
        for columns in _one_hot_images(image.shape):
            primals = np.repeat(image[None], len(columns), axis=0)
            parts = [
                jvp(f, primals, columns).reshape(len(columns), -1) for f in functions
            ]
            products += [[float((a * b).sum()) for b in parts] for a in parts]
        norms = np.sqrt(np.diag(products))
        jacobians.append(products[0, 1] / norms.prod())
    dots = (features[0] * features[1]).sum(1)
    norms = [np.sqrt((f * f).sum(1)) for f in features]
    return [(dots / norms[0] / norms[1]).tolist(), jacobians]


def _features(net, block, option, normalized):
    """What the first block gives for an image, as a function in inference mode."""
    stem = keras.Model(net.input, block.input)
    stages = block.stages((block.options.index(option),))
    if not normalized:
        stages = stages[:-1]

    def run(x):
        x = stem(x, training=False)
        for stage in stages:
            outputs = [layer(x, training=False) for layer in stage]
            x = outputs[0] if len(outputs) == 1 else ops.add(*outputs)
        return x

    return run


def _one_hot_images(shape, batch=512):
    """The columns of the identity, as images, in batches."""
    size = int(np.prod(shape))
    for start in range(0, size, batch):
        rows = np.arange(start, min(start + batch, size))
        columns = np.zeros((len(rows), size), "float32")
        columns[np.arange(len(rows)), rows] = 1
        yield columns.reshape(-1, *shape)


def jvp(function, primals, tangents):
    """Directional derivatives of a function of a batch, as an array."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jvp(function, (primals,), (tangents,))[1])
    import tensorflow as tf

    primals = tf.constant(primals)
    with tf.autodiff.ForwardAccumulator(primals, tf.constant(tangents)) as accumulator:
        outputs = function(primals)
    return accumulator.jvp(outputs).numpy()


if __name__ == "__main__":
    main()
