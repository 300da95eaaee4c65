"""What does a GPU do in a step? A part of `benchmarks.engine`, from JAX's profiler."""

import glob
import os
import shutil
import tempfile
import time

from benchmarks.engine_models import (
    HEAVIEST,
    Fixed,
    batch_of,
    compiled,
    fit_of,
    network,
    path_of,
    seconds_of,
)
from recipes.memory import has_accelerator

STEPS = 8
LONGEST = 40


def device(args):
    """Of a step in `fit`, seconds: in all, of Python's thread, and of kernels by name.

    Nothing without a GPU, or on TensorFlow. The profiles themselves stay in the output
    folder, for TensorBoard.
    """
    import keras

    if not has_accelerator() or keras.backend.backend() != "jax":
        return {}
    net = compiled(network(args.size))
    path = path_of(net, HEAVIEST if args.option is None else args.option)
    net.sampler = Fixed(path)
    fit = fit_of(*batch_of(args.size, args.batch), STEPS)
    result = {}
    for kind, model in (("supernet", net), ("fixed", compiled(net.extract(path)))):
        for _ in range(2):
            fit(model)
        begun = time.thread_time()
        step = min(seconds_of(fit, model) for _ in range(3)) / STEPS
        host = (time.thread_time() - begun) / 3 / STEPS
        profile = os.path.join(args.output, f"{kind}.xplane.pb")
        kernels = _kernels(lambda model=model: fit(model), profile)
        result[kind] = {"step": step, "host": host, **_summary(kernels)}
    return result


def _kernels(run, profile):
    """(name, start, end) in ns of what the GPU ran meanwhile; keeps the profile."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run()
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        os.makedirs(os.path.dirname(profile), exist_ok=True)
        shutil.copy(file, profile)
    return [
        (event.name, event.start_ns, event.start_ns + event.duration_ns)
        for plane in jax.profiler.ProfileData.from_file(profile).planes
        if plane.name.startswith("/device:")
        for line in plane.lines
        if line.name.startswith("Stream")
        for event in line.events
    ]


def _summary(kernels):
    """Seconds a step of kernels, in all and by name, and how many there are."""
    kernels = sorted(
        (k for k in kernels if not k[0].startswith("Memcpy")), key=lambda k: k[1]
    )
    busy, until, names = 0.0, 0.0, {}
    for name, start, end in kernels:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
        names[name] = names.get(name, 0.0) + (end - start)
    longest = sorted(names.items(), key=lambda item: -item[1])[:LONGEST]
    return {
        "kernels": busy / STEPS / 1e9,
        "launches": len(kernels) / STEPS,
        "longest": {name: ns / STEPS / 1e9 for name, ns in longest},
    }
