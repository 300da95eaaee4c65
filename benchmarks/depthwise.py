"""On JAX, how long do depthwise convolutions train, against XLA's own?

    KERAS_BACKEND=jax python -m benchmarks.depthwise --output results/depthwise

For shapes of SPOS's space at 224 px: the output and the gradients of images and kernel,
compiled as one function, as XLA does them and as the engine does on this device.
"""

import argparse
import functools
import json
import os
import statistics
import time

from benchmarks.ratio_chart import draw_ratios

SHAPES = ((56, 32, 1), (28, 80, 1), (14, 160, 1), (7, 320, 1), (28, 80, 2))


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 5, 7])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()

    from recipes.common import provenance

    rows, ratios = [], {}
    for shape in SHAPES:
        for kernel in args.kernels:
            row = _compare(*shape, kernel, args)
            ratio = row["stock"]["seconds"] / row["engine"]["seconds"]
            ratios[_name(row)] = ratio
            print(f"{_name(row)}: XLA / engine {ratio:.2f}", flush=True)
            rows.append(row)
    os.makedirs(args.output, exist_ok=True)
    with open(os.path.join(args.output, f"{args.dtype}.json"), "w") as handle:
        what = {"rows": rows, "provenance": provenance("benchmarks.depthwise")}
        json.dump(what, handle, indent=1)
    picture = os.path.join(args.output, f"{args.dtype}.png")
    draw_ratios(picture, ratios, "seconds of XLA's own / of the engine's")


def _compare(size, channels, stride, kernel, args):
    """Seconds of a pass and of the first one, which compiles, for both ways."""
    import jax

    from keras_spos.engine import jax_lean

    shapes = (
        (args.batch, size, size, channels),
        (kernel, kernel, channels, 1),
        (args.batch, -(-size // stride), -(-size // stride), channels),
    )
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [
        jax.random.normal(key, shape, args.dtype)
        for key, shape in zip(keys, shapes, strict=True)
    ]
    ways = {
        "stock": functools.partial(_stock, stride),
        "engine": lambda x, w: jax_lean.substitutes(True).depthwise(
            x, w, stride, "SAME"
        ),
    }
    passes = {
        name: functools.partial(_train(way), *arrays) for name, way in ways.items()
    }
    first = {name: _seconds(run) for name, run in passes.items()}
    times = {name: [] for name in passes}
    for _ in range(args.rounds):
        for name, run in passes.items():
            times[name].append(_seconds(run, 20))
    return {
        "shape": [size, size, channels],
        "stride": stride,
        "kernel": kernel,
        **{
            name: {"first": first[name], "seconds": statistics.median(times[name])}
            for name in passes
        },
    }


def _stock(stride, x, kernel):
    import keras

    return keras.ops.depthwise_conv(x, kernel, stride, "same", "channels_last")


def _train(convolve):
    import jax

    @jax.jit
    def run(x, kernel, dy):
        y, pullback = jax.vjp(convolve, x, kernel)
        return y, pullback(dy)

    return run


def _seconds(run, count=1):
    """Seconds of a run: of several, started one after another."""
    import jax

    start = time.perf_counter()
    jax.block_until_ready([run() for _ in range(count)])
    return (time.perf_counter() - start) / count


def _name(row):
    size, _, channels = row["shape"]
    stride = f", stride {row['stride']}" if row["stride"] > 1 else ""
    return f"{row['kernel']}x{row['kernel']} on {size}x{size}x{channels}{stride}"


if __name__ == "__main__":
    main()
