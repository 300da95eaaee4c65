"""The command line: python -m hardware blocks | measure | predict | check | compare."""

import argparse
import dataclasses
import json
import os
import sys

from . import engines
from .check import check, checked_table, describe, save
from .compare import compare
from .fit import LEAST
from .manifest import read_json, read_manifest
from .measure import Settings, measure
from .table import make_table, read_table

# What opens an engine, and how `measure` does unless it is told.
_ENGINE = {
    "engine": "onnxruntime",
    "device": "cpu",
    "precision": None,
    "threads": 1,
    "clock": "wall",
}


def main(words=None):
    """Runs a command; returns the exit status."""
    args = _parser().parse_args(words)
    try:
        return args.run(args)
    except (ValueError, OSError, ImportError, engines.EngineError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _blocks(args):
    try:
        from .blocks import export_space
    except ImportError as error:
        raise ImportError(
            f"Exporting blocks needs Keras and keras_spos ({error}): pip install -e . "
            "in a checkout. The other commands need numpy and an engine alone."
        ) from error
    try:
        arguments = json.loads(args.arguments)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Expected --arguments to be a JSON dict ({error}). "
            f"Received: {args.arguments}"
        ) from error
    manifest = export_space(
        args.space,
        arguments,
        args.out,
        batch=args.batch,
        precision=args.precision,
        networks=args.networks,
        seed=args.seed,
    )
    print(
        f"{len(manifest.files)} unique blocks and {len(manifest.networks)} networks, "
        f"batch {args.batch}, {args.precision}, in {args.out}"
    )
    return 0


def _measure(args):
    _check_out(args.out)
    manifest = read_manifest(args.folder)
    old = _old_table(args.out)
    settings = _settings(args)
    files = {key: manifest.path(f) for key, f in manifest.files.items()}
    with _engine(args, manifest) as engine:
        results = measure(
            files, engine, f"{args.out}.log", settings, f"blocks {manifest.digest}"
        )
        clocks = engine.clocks()
        table = make_table(
            manifest,
            results,
            engine.describe(),
            dataclasses.asdict(settings) | {n: getattr(args, n) for n in _ENGINE},
            clocks,
        )
    failures = table.failures()
    print(f"{len(files) - len(failures)} of {len(files)} blocks measured: {args.out}")
    _save_table(table, args.out, old)
    for key, error in failures.items():
        print(f"failed: {key}: {error}", file=sys.stderr)
    _warn_if_noisy(table, settings)
    return 1 if failures else 0


def _check_out(path):
    """What can be said before minutes of measuring."""
    if os.path.isdir(path):
        raise ValueError(f"Expected --out to be a file. Received: the folder {path}")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ValueError(
            f"Expected --out to be in a folder that exists. Received: {path}"
        )


def _old_table(path):
    """The table that will be written over, or None; no other file is."""
    try:
        return read_table(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"Expected --out to be a new file, or a table to measure again. {error}"
        ) from error


def _save_table(table, path, old):
    """Writes a table, unless the old one has its figures, and maybe a correction."""
    if old and table.same_measurements(old):
        kind = old.metadata["correction"]["kind"]
        print(f"nothing new: {path} is kept as it is (correction: {kind})")
        return
    table.save(path)
    if old and old.metadata["correction"]["kind"] != "none":
        print(
            f"{path} had other figures, and a correction that was fitted on them. It "
            "is written anew without one: run check again.",
            file=sys.stderr,
        )


def _warn_if_noisy(table, settings):
    entries = [e for e in table.metadata["entries"].values() if "error" not in e]
    noisy = sum(e["spread_ms"] > 0.1 * e["latency_ms"] for e in entries)
    if noisy > 0.1 * len(entries) and settings.statistic == "median":
        print(
            f"{noisy} of {len(entries)} blocks have a spread of over 10 %: others use "
            "this machine. Measure with --statistic floor or more --rounds, and the "
            "log is used again; or, into another --out, when it is quiet or with "
            "--clock cpu on a CPU.",
            file=sys.stderr,
        )


def _check(args):
    out = args.out or f"{os.path.splitext(args.table)[0]}-check.json"
    _check_out(out)
    manifest = read_manifest(args.folder)
    args.networks = min(args.networks, manifest.paths)
    least = min(LEAST, manifest.paths)
    if max(args.networks, len(manifest.networks)) < least:
        raise ValueError(
            f"Expected --networks of at least {least}. Received: {args.networks}"
        )
    _take_as_measured(args)
    settings = _settings(args)
    with _engine(args, manifest) as engine:
        if len(manifest.networks) < args.networks:
            # Before minutes of exporting; check does it again.
            checked_table(manifest, args.table, engine)
            _export_more(manifest, args)
        report = check(
            manifest,
            args.table,
            engine,
            f"{args.table}.check.log",
            settings,
            correct=not args.keep,
        )
    save(report, out)
    print(describe(report))
    for network, error in report["failures"].items():
        print(f"failed: network {network}: {error}", file=sys.stderr)
    return 1 if report["failures"] else 0


def _take_as_measured(args):
    """Arguments that are not given are those of the table's measurement."""
    measured = read_table(args.table).metadata.get("settings", {})
    for name, default in _ENGINE.items():
        if getattr(args, name) is None:
            setattr(args, name, measured.get(name, default))


def _export_more(manifest, args):
    try:
        from .blocks import build, export_networks
    except ImportError:
        print(
            f"Expected {args.networks} whole networks, {args.folder} has "
            f"{len(manifest.networks)}, and more can be exported only where Keras is.",
            file=sys.stderr,
        )
        return
    source = manifest.data["source"]
    if source:
        net = build(source["space"], source["arguments"])
        export_networks(net, manifest, args.networks)


def _predict(args):
    table = read_table(args.table, batch=args.batch, precision=args.precision)
    paths = _paths(args.paths) + args.path
    if not paths:
        raise ValueError(
            "Give --path 0,1,2,... or --paths FILE (a JSON list of lists)."
        )
    latencies = [table(path)[0] for path in paths]
    for path, latency in zip(paths, latencies, strict=True):
        spread = table.spread_ms(path)
        print(f"{latency:.4f} ms +- {spread:.4f}  {','.join(map(str, path))}")
    return 0


def _paths(file):
    """The paths in a JSON file; none where there is no file."""
    paths = read_json(file) if file else []
    rows = paths if isinstance(paths, list) else [None]
    if not all(isinstance(p, list) and all(type(v) is int for v in p) for p in rows):
        raise ValueError(
            f"Expected {file} to hold a list of paths, such as [[0, 1], [2, 0]]. "
            f"Received: {json.dumps(paths)[:80]}"
        )
    return paths


def _path(text):
    try:
        return [int(v) for v in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"Expected a path such as 0,1,2. Received: {text}"
        ) from None


def _compare(args):
    report = compare(read_table(args.first), read_table(args.second))
    print(json.dumps(report, indent=1))
    return 0


def _engine(args, manifest):
    precision = args.precision or manifest.precision
    mixed = args.engine != "onnxruntime"
    if precision != manifest.precision and not mixed:
        advice = f"export blocks with --precision {precision}"
        if precision == "int8":
            advice = "int8 is for --engine tensorrt or trtexec"
        raise ValueError(
            f"onnxruntime computes in the files' own type, {manifest.precision}: "
            f"{advice}. Received: precision={precision!r}"
        )
    if args.engine == "onnxruntime-tensorrt" and precision == "int8":
        _check_quantized(manifest)
    cache = os.path.join(args.folder, "cache")
    return engines.open_engine(
        args.engine,
        args.device,
        precision,
        args.threads,
        args.clock,
        cache,
        manifest.precision,
    )


def _check_quantized(manifest):
    """Refuses files that the provider would run in fp16, whatever it is told."""
    for entry in manifest.files.values():
        with open(manifest.path(entry), "rb") as file:
            if b"QuantizeLinear" in file.read():
                return
    raise ValueError(
        "Expected blocks with quantizers for int8 in onnxruntime-tensorrt, as it makes "
        f"up no ranges of activations. Received: none in {manifest.folder}. Use "
        "--engine tensorrt or trtexec, which do."
    )


def _settings(args):
    return Settings(
        rounds=args.rounds,
        seconds=args.seconds,
        seed=args.seed,
        statistic=getattr(args, "statistic", "median"),
    )


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m hardware", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(required=True)

    one = commands.add_parser("blocks", help="export a space's unique blocks (Keras)")
    one.add_argument(
        "--space", required=True, help="such as shufflenet_v2 or proxyless"
    )
    one.add_argument(
        "--arguments", default="{}", help="the space's arguments, as a JSON dict"
    )
    one.add_argument("--batch", type=int, default=1)
    one.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    one.add_argument(
        "--networks", type=int, default=0, help="whole networks to export for check"
    )
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--out", required=True, help="the folder to write")
    one.set_defaults(run=_blocks)

    one = commands.add_parser("measure", help="measure blocks and write a table")
    one.add_argument("folder", help="what blocks wrote")
    _add_engine(one, **_ENGINE)
    one.add_argument(
        "--statistic",
        choices=("median", "floor"),
        default="median",
        help="floor: for a machine that others use",
    )
    one.add_argument("--out", required=True, help="the table to write")
    one.set_defaults(run=_measure)

    one = commands.add_parser(
        "check",
        help="compare a table with whole networks, measured as it was",
        description="Measures whole networks, with the table's engine, device, "
        "precision, threads and clock unless told otherwise, and fits a correction "
        f"where there are {LEAST} or more.",
    )
    one.add_argument("folder", help="what blocks wrote")
    one.add_argument("--table", required=True)
    one.add_argument("--networks", type=int, default=50)
    _add_engine(one)
    one.add_argument(
        "--keep", action="store_true", help="leave the table without the correction"
    )
    one.add_argument("--out", help="report to write (default: TABLE-check.json)")
    one.set_defaults(run=_check)

    one = commands.add_parser("predict", help="latencies of paths")
    one.add_argument("table")
    one.add_argument(
        "--path", type=_path, action="append", default=[], help="0,1,2,..."
    )
    one.add_argument("--paths", help="a JSON file with a list of paths")
    one.add_argument("--batch", type=int, help="refuse a table of another")
    one.add_argument("--precision", help="refuse a table of another")
    one.set_defaults(run=_predict)

    one = commands.add_parser("compare", help="compare two tables")
    one.add_argument("first")
    one.add_argument("second")
    one.set_defaults(run=_compare)
    return parser


def _add_engine(parser, **defaults):
    parser.add_argument("--engine", choices=engines.ENGINES)
    parser.add_argument("--device", choices=engines.DEVICES)
    parser.add_argument(
        "--precision", choices=engines.PRECISIONS, help="default: the files' own"
    )
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        help="cpu: the thread's own time, for one thread on a shared machine",
    )
    parser.add_argument("--rounds", type=int, default=Settings.rounds)
    parser.add_argument("--seconds", type=float, default=Settings.seconds)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(**defaults)


if __name__ == "__main__":
    sys.exit(main())
