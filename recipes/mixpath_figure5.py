"""MixPath, Figure 5: what the shadow batch norms of the first block have learned.

    python -m recipes.mixpath_figure5 --preset small --data-dir DIR

By Equations 3 and 4, with m = 2 the ratio of the batch norm for one path to that for
two centres on 1/2 (mean), 1/4 (variance), 1 (scale) and 1 (offset). With
``--supernet FILE`` (m2_sbn.keras of mixpath_figure6) none is trained.
"""

import numpy as np
from keras import ops

from keras_spos import plots
from recipes import mixpath
from recipes.common import markdown_table, settings_dict

# Where the ratios centre in the paper.
PAPER = {"mean": 0.5, "variance": 0.25, "scale": 1.0, "offset": 1.0}


def main():
    """Runs the recipe."""
    args, experiment, net = mixpath.begin("mixpath_figure5", __doc__)
    output, settings = experiment.output, experiment.settings
    values = {
        f"{block.name} {group.name}": parameters(group.norm)
        for block in net.searchable_layers
        for group in block.groups
    }
    first = {k: v for k, v in values.items() if k.startswith("block_0 ")}
    joined = {
        part: [np.concatenate([v[part][i] for v in first.values()]) for i in (0, 1)]
        for part in PAPER
    }
    plots.plot_shadow_parameters(
        joined, expected=PAPER, path=output.path("figure5.png")
    )
    summary = {name: ratios(parts) for name, parts in values.items()}
    summary["first block"] = ratios(joined)
    everything = {
        part: [np.concatenate([v[part][i] for v in values.values()]) for i in (0, 1)]
        for part in PAPER
    }
    summary["all blocks"] = ratios(everything)
    table = markdown_table(
        ["median ratio, one path to two", *PAPER],
        [
            *(
                [name, *(f"{summary[name][part]['median']:.3f}" for part in PAPER)]
                for name in ("first block", "all blocks")
            ),
            ["paper, first block", *PAPER.values()],
        ],
    )
    largest = max(np.abs(values).max() for values in everything["offset"])
    note = (
        f"Measured on {settings.dataset} with the {args.preset!r} preset. The "
        "variance's 1/4 holds where both paths vary alike; of uncorrelated paths it is "
        f"1/2. The largest offset is {largest:.1e}: after a block of S1 comes a 1x1 "
        "convolution and a batch norm, which takes any offset out again, so offsets "
        "get no gradient."
    )
    output.report(settings_dict(settings), summary)
    output.write_table(table, note)


def parameters(norm):
    """Mean, variance, scale and offset: for each part a pair (one path, two paths)."""
    pair = [norm.norm(1), norm.norm(2)]
    names = ("moving_mean", "moving_variance", "gamma", "beta")
    return {
        part: [ops.convert_to_numpy(getattr(n, name)) for n in pair]
        for part, name in zip(PAPER, names, strict=True)
    }


def ratios(parts):
    """Median and quartiles over channels of the ratio of one path to two.

    And of the ratio of the sums of magnitudes, which channels near 0 do not disturb.
    """
    result = {}
    for part, (one, two) in parts.items():
        low, median, high = np.quantile(one / two, (0.25, 0.5, 0.75))
        result[part] = {
            "median": float(median),
            "quartiles": [float(low), float(high)],
            "of_sums": float(np.abs(one).sum() / np.abs(two).sum()),
            "correlation": float(np.corrcoef(one, two)[0, 1]),
        }
    return result


if __name__ == "__main__":
    main()
