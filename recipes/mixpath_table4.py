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
from recipes.common import markdown_table, settings_dict

IMAGES = 10
KINDS = ("before the batch norm", "block output")
# Mean and variance over the images, as printed in the paper's Table 4.
PAPER = {"feature map": (0.9342, 6e-5), "Jacobian matrix": (0.9042, 1e-5)}


def main():
    """Runs the recipe."""
    args, experiment, net = mixpath.begin("mixpath_table4", __doc__)
    output, settings = experiment.output, experiment.settings
    test = data.balanced_subset(experiment.splits.test, n=IMAGES, seed=args.seed)
    images = experiment.standardise(test.images)
    block = net.searchable_layers[0]
    pairs = _pairs(len(block.groups[0].paths))
    results = [
        output.done(group.name)
        or output.finish(group.name, _similarities(net, block, number, pairs, images))
        for number, group in enumerate(block.groups)
    ]
    # Groups, kinds, parts, pairs, images.
    values = np.array(results)
    rows, report = [], {}
    for kind, name in enumerate(KINDS):
        for position, (part, paper) in enumerate(PAPER.items()):
            per_image = values[:, kind, position].mean((0, 1))
            report[f"{part}, {name}"] = {
                "mean": float(per_image.mean()),
                "variance": float(per_image.var()),
                "per_pair": values[:, kind, position].mean(2).tolist(),
            }
            measured = f"{per_image.mean():.4f}", f"{per_image.var():.1e}"
            rows.append([f"{part}, {name}", *measured, *paper])
    report["pairs"] = [list(pair) for pair in pairs]
    header = ["cosine similarity", "mean", "variance", "paper mean", "paper variance"]
    table = markdown_table(header, rows)
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset: mean over "
        f"{values[:, 0, 0, :, 0].size} pairs of a path and its sum with the next, and "
        f"{IMAGES} images. The paper does not say which pair it took, nor whether the "
        "batch norm is part of the features. Of two unrelated paths of equal size it "
        "would be 0.71."
    )
    output.report(settings_dict(settings), report)
    output.write_table(table, note)


def _pairs(paths):
    """A path and its neighbour in kernel size: compared are it and their sum."""
    return list(itertools.pairwise(range(paths)))


def _similarities(net, block, number, pairs, images):
    """Cosine similarities for a group of the block.

    Returns:
        A list by kind, by part (features, Jacobian matrices), by pair, by image.
    """
    function = _features(net, block, number, pairs)
    features = ops.convert_to_numpy(function(images))
    by_image = []
    for index, image in enumerate(images):
        of_features = _cosines(_products(features[:, :, :, index : index + 1]))
        total = 0.0
        for columns in _one_hot_images(image.shape):
            primals = np.repeat(image[None], len(columns), axis=0)
            total = total + _products(jvp(function, primals, columns))
        by_image.append([of_features, _cosines(total)])
    # [images, parts, kinds, pairs] to [kinds, parts, pairs, images].
    return np.transpose(by_image, (2, 1, 3, 0)).tolist()


def _products(values):
    """Scalar products within pairs: [kinds, pairs, 2, ...] to [kinds, pairs, 2, 2]."""
    flat = values.reshape(*values.shape[:3], -1).astype("float64")
    return np.einsum("kpix,kpjx->kpij", flat, flat)


def _cosines(products):
    squares = np.diagonal(products, axis1=2, axis2=3)
    return products[:, :, 0, 1] / np.sqrt(squares.prod(-1))


def _features(net, block, number, pairs):
    """What the first block gives for images, in inference mode.

    A function of images to [kinds, pairs, 2 (one path, two paths), images, ...].
    """
    stem = keras.Model(net.input, block.input)
    group = block.groups[number]

    def run(x):
        x = group.before(stem(x, training=False), training=False)
        paths = [path(x, training=False) for path in group.paths]
        kinds = [[], []]
        for first, second in pairs:
            sums = [paths[first], paths[first] + paths[second]]
            raw = [group.after(y, training=False) for y in sums]
            kinds[0].append(ops.stack(raw))
            norms = [group.norm.norm(count) for count in (1, 2)]
            normed = [n(y, training=False) for n, y in zip(norms, raw, strict=True)]
            kinds[1].append(ops.stack(normed))
        return ops.stack([ops.stack(kind) for kind in kinds])

    return run


def _one_hot_images(shape, batch=128):
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
