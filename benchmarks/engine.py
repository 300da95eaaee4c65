"""What does training and searching a supernet cost, in units of one fixed subnet?

    python -m benchmarks.engine --output results/engine

Each part runs in a fresh process, and is kept as soon as it is there; with `--resume`
the command goes on with the parts that are missing. Within a part, what is compared is
timed in turn. "All options" computes every option of every block and averages them, as
differentiable search does; "rebuild" extracts and compiles a model for each path. The
PyTorch part needs torch, and times SPOS's released code too if `--authors` names its
folder ``src/Supernet``.
"""

import argparse
import json
import os
import subprocess
import sys

from benchmarks.engine_parts import PARTS
from benchmarks.ratio_chart import draw_ratios


def main():
    """Runs the parts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96, help="image height and width")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--rounds", type=int, default=8, help="timed steps of each kind"
    )
    parser.add_argument(
        "--option",
        type=int,
        help="train no path but that of this option, and neither all options nor "
        "rebuilds: for devices that take minutes to compile",
    )
    parser.add_argument("--precision", default="float32", help="a Keras dtype policy")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--authors", help="src/Supernet of SPOS's released code")
    parser.add_argument("--output", required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import keras

        keras.mixed_precision.set_global_policy(args.precision)
        print(json.dumps(PARTS[args.part](args)))
        return
    import keras

    os.makedirs(args.output, exist_ok=True)
    file = os.path.join(args.output, f"{keras.backend.backend()}.json")
    results = {}
    if args.resume and os.path.exists(file):
        with open(file) as handle:
            results = json.load(handle)
    for part in args.parts:
        if part not in results:
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            results[part] = _in_fresh_process(part)
            _write(file, results)
    rows = _rows({name: part["measured"] for name, part in results.items()})
    width = max((len(r[0]) for r in rows), default=0)
    for name, value, target in rows:
        print(f"{name:<{width}}  {value:>8.2f}  {target}")
    ratios = {name: value for name, value, _ in rows if " / " in name}
    draw_ratios(file.replace(".json", ".png"), ratios, "ratio")


def _in_fresh_process(part):
    from recipes.common import provenance

    command = [sys.executable, "-m", "benchmarks.engine", *sys.argv[1:], "--part", part]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{part} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        raise SystemExit(1)
    measured = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "measured": measured,
        "load": [round(x, 2) for x in os.getloadavg()],
        "provenance": provenance("benchmarks.engine"),
    }


def _rows(measured):
    """(what, value, target) for each line of the table that was measured."""
    rows = []
    kinds = {"supernet": "supernet", "recompute": "supernet that recomputes"}

    def add(name, value, target=""):
        rows.append((name, value, target))

    if "steps" in measured:
        s = measured["steps"]
        for kind, name in ((k, name) for k, name in kinds.items() if k in s):
            add(f"step: {name} / fixed subnet", s[kind] / s["fixed"], "<= 1.05")
            if "all" in s:
                add(f"step: {name} / all options", s[kind] / s["all"], "<= 0.4")
        if "all" in s:
            add("step: rebuild / supernet", s["rebuild"] / s["supernet"])
    if {"steps", "alone"} <= set(measured):
        seconds, beside = (measured[k]["supernet"] for k in ("alone", "steps"))
        add("step: supernet alone / beside a fixed subnet", seconds / beside)
    if "host" in measured.get("alone", {}):
        seconds = measured["alone"]
        add("step: Python's own time / supernet", seconds["host"] / seconds["supernet"])
    if {"start-supernet", "start-fixed"} <= set(measured):
        net, fixed = measured["start-supernet"], measured["start-fixed"]
        add("first training step: supernet, s", net["first_step"], "<= 30")
        add("first training step: fixed, s", fixed["first_step"])
        add("first evaluation: supernet, s", net["first_evaluation"], "<= 10")
        add("first evaluation: fixed, s", fixed["first_evaluation"])
    peaks = {
        kind: measured[f"start-{kind}"]["peak"]
        for kind in ("supernet", "recompute", "fixed", "all")
        if f"start-{kind}" in measured
    }
    for kind, name in kinds.items():
        for other, label, target in (
            ("fixed", "fixed subnet", "<= 1.3"),
            ("all", "all options", "<= 0.4"),
        ):
            if {kind, other} <= set(peaks):
                ratio = peaks[kind] / peaks[other]
                add(f"peak memory: {name} / {label}", ratio, target)
    if "cells" in measured:
        add("first training step: 450 options, s", measured["cells"]["first"], "<= 90")
        add("step: 450 options / fixed", measured["cells"]["ratio"], "<= 1.05")
    if "search" in measured:
        s = measured["search"]
        add("candidate / its forward passes", s["alone"] / s["forward"], "<= 1.1")
        add("candidate of a generation / alone", s["shared"] / s["alone"])
    for name, value in measured.get("growth", {}).items():
        add(f"step, {name}: supernet / fixed", value["supernet"] / value["fixed"])
        add(f"first step, {name}, s", value["first"])
    for name, value in measured.get("pipeline", {}).items():
        add(f"images per second: {name}", value)
    if "torch" in measured:
        s = measured["torch"]
        add("step: PyTorch / this library", s["torch"] / s["supernet"])
        if "authors" in s:
            ratio = s["authors"] / s["supernet"]
            add("step: SPOS's released code / this library", ratio, ">= 2")
    if measured.get("device"):
        net, fixed = (measured["device"][kind] for kind in ("supernet", "fixed"))
        for kind, s in (("supernet", net), ("fixed", fixed)):
            add(f"share of kernels in a step of fit: {kind}", s["kernels"] / s["step"])
        ratio = net["kernels"] / fixed["kernels"]
        add("time of a step's kernels: supernet / fixed", ratio)
    if "profile" in measured:
        s = measured["profile"]
        for kind in [k for k in s if k != "step"]:
            add(f"share of the step: {kind}", s[kind] / s["step"])
    return rows


def _write(file, results):
    with open(f"{file}.tmp", "w") as handle:
        json.dump(results, handle, indent=1)
    os.replace(f"{file}.tmp", file)


if __name__ == "__main__":
    main()
