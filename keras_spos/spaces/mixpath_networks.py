"""Is a network what the MixPath paper calls MixPath-A or -B?

The paper's Figure 4 draws their blocks, but no exact configuration was published. So
none is given here; whoever has one can check it against what Table 2 and section 4.2
print.

Example:
    >>> mixpath_differences(model, "MixPath-B")                    # doctest: +SKIP
    []
"""

from keras import layers

from keras_spos.counting import count_flops, count_params

# Millions of multiply-adds and of parameters (Table 2), and the shares in percent of
# kernel sizes among the depthwise convolutions (section 4.2).
PUBLISHED = {
    "MixPath-A": {"flops": 349, "params": 5.0, "kernels": {}},
    "MixPath-B": {"flops": 378, "params": 5.1, "kernels": {5: 60, 7: 22}},
}


def mixpath_differences(model, name):
    """How a network differs from a published one, up to the digits printed.

    Args:
        model: A stock Keras model for ImageNet, such as ``net.extract(path)``.
        name: "MixPath-A" or "MixPath-B".

    Returns:
        A list of readable differences; empty if there is none.
    """
    if name not in PUBLISHED:
        raise ValueError(f"Known are {sorted(PUBLISHED)}. Received: {name!r}")
    published = PUBLISHED[name]
    measured = [
        ("multiply-adds, M", count_flops(model) / 1e6, published["flops"], 0.5),
        ("parameters, M", count_params(model) / 1e6, published["params"], 0.05),
    ]
    shares = kernel_shares(model)
    for size, share in published["kernels"].items():
        name = f"share of {size}x{size} kernels, %"
        measured.append((name, 100 * shares.get(size, 0.0), share, 0.5))
    return [
        f"{what}: expected {expected:g}, received {value:.4g}"
        for what, value, expected, rounding in measured
        if abs(value - expected) > rounding
    ]


def kernel_shares(model):
    """Share of each kernel size among the depthwise convolutions that are searched.

    The first depthwise convolution belongs to the skeleton.

    Args:
        model: A stock Keras model.

    Returns:
        A dict from kernel size to share.
    """
    sizes = [
        layer.kernel_size[0]
        for layer in model._flatten_layers()
        if isinstance(layer, layers.DepthwiseConv2D)
    ][1:]
    return {size: sizes.count(size) / len(sizes) for size in sorted(set(sizes))}
