"""Latency tables: exported, measured, corrected, checked and refused."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from hardware import engines
from hardware.__main__ import main
from hardware.check import check
from hardware.compare import compare
from hardware.fit import fit_correction
from hardware.manifest import Manifest, read_manifest
from hardware.measure import Settings, measure
from hardware.statistics import agreement, kendall_tau, spread
from hardware.table import make_table, read_table, with_correction
from keras_spos import CostRangeSampler, CostTable, search

ROOT = pathlib.Path(__file__).parents[1]
QUICK = Settings(rounds=3, seconds=0.002, warmup_seconds=0.01)
# What each option of the small net costs in the made-up engine below.
COSTS = {"k3": 2.0, "k5": 3.0, "residual": 1.0, "fixed_0": 10.0, "fixed_3": 0.5}


class Stopwatch(engines.Engine):
    """An engine whose times are known: by label, the same in every run."""

    def __init__(self, costs=COSTS, fails=(), device="a clock", offset=0.0):
        self.costs, self.fails, self.device = costs, fails, device
        self.offset = offset
        self.opened = []

    def describe(self):
        return {"device": self.device, "engine": "stopwatch", "precision": "fp32"}

    def open(self, path):
        label = pathlib.Path(path).stem.rsplit("-", 1)[0]
        self.opened.append(label)
        if label in self.fails:
            raise engines.EngineError(f"cannot run {label}")
        return Ticks(self.costs[label] + self.offset)


class Ticks(engines.Runner):
    def __init__(self, ms):
        self.ms = ms

    def time(self, runs):
        return [self.ms] * runs


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """The small net's blocks, its supernet, and where they are."""
    from models import small_net

    from hardware.blocks import export_blocks

    folder = tmp_path_factory.mktemp("hardware") / "blocks"
    net = small_net()
    export_blocks(net, folder, batch=2, networks=12, verbose=False)
    return folder, net


def measured(folder, engine, tmp_path, name="table"):
    manifest = read_manifest(folder)
    files = {key: manifest.path(f) for key, f in manifest.files.items()}
    results = measure(files, engine, tmp_path / f"{name}.log", QUICK, verbose=False)
    table = make_table(
        manifest, results, engine.describe(), {"statistic": QUICK.statistic}
    )
    table.save(tmp_path / f"{name}.json")
    return table


def test_equal_blocks_are_exported_once(blocks):
    folder, net = blocks
    manifest = read_manifest(folder)
    labels = sorted(f["label"] for f in manifest.files.values())
    # Both choice blocks have the same four options; a skip computes nothing.
    assert labels == ["fixed_0", "fixed_3", "k3", "k5", "residual"]
    first, second = (b["options"] for b in manifest.layout["blocks"])
    assert first == second and first[3] is None
    flops = {f["label"]: f["flops"] for f in manifest.files.values()}
    from keras_spos import flops_table

    table = flops_table(net)
    assert table.base == flops["fixed_0"] + flops["fixed_3"]
    assert table.blocks[0].costs.tolist() == [
        flops["k3"],
        flops["k5"],
        flops["residual"],
        0,
    ]


def test_blocks_compute_the_network(blocks):
    """Chained in ONNX Runtime, the files take and give what their neighbours do."""
    folder, _ = blocks
    manifest = read_manifest(folder)
    keys = {f["label"]: manifest.path(f) for f in manifest.files.values()}
    x = np.ones((2, 6, 6, 3), "float32")
    for label in ("fixed_0", "k3", "residual", "fixed_3"):
        session = onnxruntime.InferenceSession(
            keys[label], providers=["CPUExecutionProvider"]
        )
        (given,), (result,) = session.get_inputs(), session.get_outputs()
        assert tuple(given.shape) == x.shape
        (x,) = session.run(None, {given.name: x})
        assert tuple(result.shape) == x.shape
    assert x.shape == (2, 4)


def test_a_table_adds_up_and_limits_a_search(blocks, tmp_path):
    folder, net = blocks
    ours = measured(folder, Stopwatch(), tmp_path)
    table = CostTable.load(tmp_path / "table.json")
    assert table.space == net.space
    assert (table.unit, table.metadata["batch"]) == ("ms", 2)
    paths = list(net.space.enumerate())
    costs = [2.0, 3.0, 1.0, 0.0]
    expected = [10.5 + costs[a] + costs[b] for a, b in paths]
    np.testing.assert_allclose(table(paths), expected)
    np.testing.assert_allclose(ours(paths), expected)

    def score(paths):
        return table(paths)  # The slower, the better.

    result = search.evolve(
        net.space, score, [table <= 13.5], 4, 2, topk=2, verbose=False
    )
    assert max(row["latency"] for row in result.history) <= 13.5
    front = search.nsga2(
        net.space, score, [table], population=4, generations=2, verbose=False
    )
    assert front.front
    path = CostRangeSampler(table, [(15, 17)]).draw(net.space, np.random.default_rng(0))
    assert 15 <= table(path)[0] <= 17


def test_a_block_that_fails_is_noted_and_the_rest_is_kept(blocks, tmp_path):
    folder, net = blocks
    table = measured(folder, Stopwatch(fails={"k5"}), tmp_path)
    ((key, error),) = table.failures().items()
    assert key.startswith("k5") and error == "cannot run k5"
    assert table([(0, 2)]).tolist() == [13.5]
    with pytest.raises(ValueError, match="'block_1'.*cannot run k5"):
        table([(0, 1)])
    with pytest.raises(ValueError, match=r"misses block 'block_0', options \[\(1,\)\]"):
        CostTable.load(tmp_path / "table.json")
    # Again, on an engine that can.
    engine = Stopwatch()
    assert not measured(folder, engine, tmp_path).failures()
    assert set(engine.opened) == {"k5"}


def test_stopped_and_gone_on_is_never_stopped(blocks, tmp_path):
    folder, _ = blocks
    measured(folder, Stopwatch(), tmp_path)
    log = (tmp_path / "table.log").read_text().splitlines(keepends=True)
    # Killed in the middle of the eighth line.
    (tmp_path / "table.log").write_text("".join(log[:7]) + log[7][:10])
    engine = Stopwatch()
    measured(folder, engine, tmp_path)
    assert len(engine.opened) == len(log) - 7
    assert sorted((tmp_path / "table.log").read_text().splitlines()) == sorted(
        line.rstrip() for line in log
    )


def test_devices_are_not_mixed(blocks, tmp_path):
    folder, _ = blocks
    measured(folder, Stopwatch(), tmp_path)
    with pytest.raises(
        ValueError, match="device: expected 'a clock', received 'another'"
    ):
        measured(folder, Stopwatch(device="another"), tmp_path)


def test_settings_are_not_mixed(tmp_path):
    def run(**settings):
        engine, settings = Stopwatch(), Settings(**{**vars(QUICK), **settings})
        result = measure({"k3": "k3-0"}, engine, tmp_path / "log", settings, "", False)
        return len(engine.opened), result["k3"]["rounds"]

    assert run() == (3, 3)
    assert run(statistic="floor") == (0, 3)
    # More rounds are added; of fewer, the first count.
    assert run(rounds=5) == (2, 5)
    assert run(rounds=2) == (0, 2)
    for changed in ({"seconds": 0.1}, {"min_runs": 9}, {"seed": 1}):
        with pytest.raises(ValueError, match=f"{[*changed][0]}: expected .*Remove it"):
            run(**changed)
    for wrong in ({"rounds": 0}, {"rounds": -1}, {"seconds": -1}):
        with pytest.raises(ValueError, match=f"Received: .*{[*wrong][0]}=-?[01]"):
            run(**wrong)


def test_lines_that_are_no_figures(tmp_path):
    log = tmp_path / "log"

    def run():
        engine = Stopwatch()
        measure({"k3": "k3-0"}, engine, log, QUICK, "", False)
        return len(engine.opened)

    run()
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([lines[0], "[1]\n", "7\n", '{"key": "k3"}\n', *lines[2:]]))
    assert run() == 1
    for other in ("[1]\n", "notes\n", '{"a": 1}\n', "\n"):
        log.write_text(other)
        with pytest.raises(ValueError, match="log is where .* is another file"):
            run()
        assert log.read_text() == other


@pytest.mark.parametrize(
    "expected, message",
    [
        ({"batch": 1}, "table of batch=1. Received: batch=2"),
        ({"precision": "fp16"}, "precision='fp16'. Received: precision='fp32'"),
        ({"device": "mine"}, "device='mine'. Received: device='a clock'"),
    ],
)
def test_a_table_of_something_else_is_refused(blocks, tmp_path, expected, message):
    measured(blocks[0], Stopwatch(), tmp_path)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "table.json", **expected)


def test_damaged_files_are_named(blocks, tmp_path):
    measured(blocks[0], Stopwatch(), tmp_path)
    path = tmp_path / "table.json"
    text = path.read_text()
    path.write_text(text[:200])
    with pytest.raises(ValueError, match="table.json is truncated"):
        read_table(path)
    path.write_text(text.replace('"unit": "ms"', '"unit": "s"'))
    with pytest.raises(ValueError, match="latencies in ms. Received: 's'"):
        read_table(path)
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match="not a complete manifest: it lacks"):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match="no manifest.json"):
        read_manifest(tmp_path / "nowhere")


def test_check_finds_what_a_block_takes_inside_a_network(blocks, tmp_path):
    """Networks that take 1.1 s - 0.3 n + 2 are predicted exactly."""
    folder, _ = blocks
    table = measured(folder, Stopwatch(), tmp_path)
    manifest = read_manifest(folder)
    paths = {n: [e["path"]] for n, e in manifest.networks.items()}
    # As many as a fit needs: the twelve of the folder under two names.
    whole = {
        n: 1.1 * table(p)[0] - 0.3 * table.count(p)[0] + 2 for n, p in paths.items()
    }
    extra = {f"again_{n}": e for n, e in manifest.networks.items()}
    files = {n: manifest.path(e) for n, e in {**manifest.networks, **extra}.items()}
    assert len(files) == 24
    manifest.networks.update(extra)
    report = check(
        manifest,
        tmp_path / "table.json",
        Stopwatch(costs=whole),
        tmp_path / "check.log",
        QUICK,
        verbose=False,
    )
    correction = report["correction"]
    assert correction["kind"] == "per block"
    assert report["raw"]["mape_percent"] > 5
    assert correction["held_out"]["mape_percent"] < 1e-6
    assert correction["held_out"]["pearson"] == pytest.approx(1)
    for name in ("factor", "per_block_ms", "offset_ms"):
        expected = {"factor": 1.1, "per_block_ms": -0.3, "offset_ms": 2.0}[name]
        assert correction[name] == pytest.approx(expected)
    # What the search reads has the correction in it.
    corrected = CostTable.load(tmp_path / "table.json")
    for name, path in paths.items():
        assert corrected(path)[0] == pytest.approx(whole[name])
    assert corrected.metadata["check"]["networks"] == 24


def named(manifest, paths):
    """The same manifest with these networks, as numbered by an export."""
    networks = {
        str(i): {"file": f"networks/{i}.onnx", "path": list(p)}
        for i, p in enumerate(paths)
    }
    return Manifest(manifest.folder, {**manifest.data, "networks": networks})


def checked(manifest, engine, tmp_path, correct=True):
    return check(
        manifest,
        tmp_path / "table.json",
        engine,
        tmp_path / "check.log",
        QUICK,
        correct,
        verbose=False,
    )


def test_other_networks_under_the_same_names_are_measured(blocks, tmp_path):
    """And of more networks, those that are new."""
    folder, net = blocks
    table = measured(folder, Stopwatch(), tmp_path)
    paths = [p for p in net.space.enumerate()] * 2
    manifest = read_manifest(folder)

    def run(paths):
        costs = {str(i): 2 * table(p)[0] for i, p in enumerate(paths)}
        engine = Stopwatch(costs)
        return checked(named(manifest, paths), engine, tmp_path, False), engine.opened

    _, opened = run(paths[:20])
    assert len(opened) == 20 * QUICK.rounds
    report, opened = run(paths[:22])
    assert sorted(set(opened)) == ["20", "21"] and report["networks"] == 22
    report, opened = run(paths[1:21])
    assert len(set(opened)) == 20
    for row in report["measured"]:
        assert row["measured_ms"] == 2 * table(row["path"])[0]


def test_a_check_without_enough_networks(blocks, tmp_path):
    folder, net = blocks
    measured(folder, Stopwatch(), tmp_path)
    manifest = read_manifest(folder)
    engine = Stopwatch()
    with pytest.raises(ValueError, match="at least 20 whole networks in .*: 12. Exp"):
        checked(manifest, engine, tmp_path)
    assert not engine.opened
    manifest = named(manifest, list(net.space.enumerate()) * 2)
    before = (tmp_path / "table.json").read_text()
    engine = Stopwatch({str(i): 1.0 for i in range(32)}, fails=set(map(str, range(13))))
    with pytest.raises(ValueError, match="Received: 19; 13 failed, such as 0: 0,0"):
        checked(manifest, engine, tmp_path)
    assert (tmp_path / "table.json").read_text() == before


def test_a_correction_never_turns_a_table_upside_down():
    """Networks that have nothing to do with the sums, or with blocks of little."""
    kinds = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sums, counts = rng.uniform(1, 1.1, 30), rng.integers(3, 9, 30)
        truth = (2 + rng.normal(0, 0.02, 30), sums * (1 + rng.normal(0, 0.02, 30)))
        for whole in truth:
            correction, held_out = fit_correction(sums, counts, whole, [0.1, 0.2])
            kinds.add(correction["kind"])
            assert correction["factor"] > 0
            assert 0.1 * correction["factor"] + correction["per_block_ms"] >= 0
            errors = agreement(held_out, whole)["mape_percent"]
            assert errors <= agreement(sums, whole)["mape_percent"]
            if correction["kind"] == "none":
                assert (held_out == sums).all() and correction["offset_ms"] == 0
    assert {"none", "offset"} <= kinds
    # A block that takes 0.3 ms less in a network, or less than nothing.
    sums, counts = rng.uniform(10, 20, 30), rng.integers(3, 9, 30)
    for least, kind in ((0.4, "per block"), (0.2, "linear")):
        whole = 2 * sums - 0.6 * counts
        assert fit_correction(sums, counts, whole, [least, 5])[0]["kind"] == kind


def test_statistics_by_hand():
    assert spread([1.0, 2.0, 4.0, 100.0]) == pytest.approx(1.4826 * 1.5)
    # Pairs: 12 tied in a, 13 and 23 concordant: 2 / sqrt(2 * 3).
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 6**0.5)
    errors = agreement([1.1, 1.8], [1.0, 2.0])
    assert errors["mape_percent"] == pytest.approx(10)
    assert errors["bias_percent"] == pytest.approx(0)


def test_the_floor_does_not_see_who_else_was_there(tmp_path):
    class Shared(Stopwatch):
        def open(self, path):
            self.opened.append(path)
            # Half of the rounds share the core.
            return Ticks(2.0 if len(self.opened) % 2 else 1.0)

    settings = Settings(rounds=6, seconds=0, warmup_seconds=0, statistic="floor")
    result = measure({"a": "a"}, Shared(), tmp_path / "log", settings, verbose=False)
    assert result["a"]["latency_ms"] == 1.0
    assert result["a"]["median_ms"] == 1.5


def fit_additive(sizes, paths, measured):
    """Base and costs of each decision from whole networks alone, by least squares.

    The lowest cost of each decision is 0; of an option that no path takes it is not a
    number.
    """
    paths = np.asarray(paths)
    columns = [np.eye(size)[paths[:, d]] for d, size in enumerate(sizes)]
    matrix = np.hstack([np.ones((len(paths), 1)), *columns])
    solution = np.linalg.lstsq(matrix, np.asarray(measured, float), rcond=None)[0]
    base, rest = solution[0], np.split(solution[1:], np.cumsum(sizes)[:-1])
    costs = []
    for column, values in zip(columns, rest, strict=True):
        values = np.where(column.any(axis=0), values, np.nan)
        low = np.nanmin(values)
        base += low
        costs.append(values - low)
    return float(base), costs


def test_fitting_recovers_an_additive_table():
    rng = np.random.default_rng(0)
    sizes = [3, 2, 4]
    costs = [rng.random(n) for n in sizes]
    paths = rng.integers(0, sizes, (60, 3))
    latencies = 5 + sum(c[paths[:, d]] for d, c in enumerate(costs))
    base, found = fit_additive(sizes, paths, latencies)
    assert base == pytest.approx(5 + sum(c.min() for c in costs))
    for ours, true in zip(found, costs, strict=True):
        np.testing.assert_allclose(ours, true - true.min(), atol=1e-9)


def test_too_few_networks_to_fit():
    with pytest.raises(ValueError, match="at least 20 networks. Received: 5"):
        fit_correction(np.ones(5), np.ones(5), np.ones(5))


def test_published_tables_that_are_exactly_additive():
    """FBNet networks on four devices whose latencies are sums over layers."""
    folder = pathlib.Path(os.environ.get("KERAS_SPOS_DATA", "nowhere"))
    path = next(folder.rglob("fbnet_latency.npz"), None)
    if path is None:
        pytest.skip("fbnet_latency.npz is not in KERAS_SPOS_DATA")
    data = np.load(path)
    devices = [d.decode() for d in data["devices"]]
    arch = data["arch"]
    sizes = arch.max(axis=0) + 1
    for device in ("fpga", "eyeriss", "pixel3", "raspi4"):
        latency = data["latency_ms"][:, devices.index(device)]
        base, costs = fit_additive(sizes, arch[:4000], latency[:4000])
        predicted = base + sum(c[arch[4000:, d]] for d, c in enumerate(costs))
        np.testing.assert_allclose(predicted, latency[4000:], rtol=1e-8)
    # A measured device is not: what additivity costs.
    latency = data["latency_ms"][:, devices.index("titan_rtx_64")]
    base, costs = fit_additive(sizes, arch[:4000], latency[:4000])
    predicted = base + sum(c[arch[4000:, d]] for d, c in enumerate(costs))
    assert 0.9 < agreement(predicted, latency[4000:])["kendall_tau"] < 1


def test_comparing_tables(blocks, tmp_path):
    first = measured(blocks[0], Stopwatch(), tmp_path, "first")
    slower = {label: 2 * ms for label, ms in COSTS.items()}
    second = measured(blocks[0], Stopwatch(slower, device="slow"), tmp_path, "second")
    report = compare(first, second)
    assert report["ratio"] == {"lowest": 2.0, "median": 2.0, "highest": 2.0}
    assert report["paths_kendall_tau"] == 1
    assert (report["blocks"], report["within_spread"]) == (5, 0)
    assert compare(first, first)["within_spread"] == 5
    second.metadata["batch"] = 1
    with pytest.raises(ValueError, match="tables of one batch. Received: 2 and 1"):
        compare(first, second)


def test_corrections_do_not_pile_up(blocks, tmp_path):
    table = measured(blocks[0], Stopwatch(), tmp_path)
    doubled = {"kind": "x", "factor": 2.0, "per_block_ms": 0.0, "offset_ms": 1.0}
    for _ in range(2):
        table = with_correction(table.metadata, table.data["space"], doubled)
    assert table([(3, 3)]).tolist() == [22.0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("tensorrt", "cuda"), "pip install tensorrt.*or the tool trtexec"),
        (("trtexec", "cuda"), "the tool trtexec on the PATH"),
        (("onnxruntime", "cuda"), "pip install onnxruntime-gpu"),
    ],
)
def test_a_missing_engine_says_what_to_install(arguments, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    providers = ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.delattr(onnxruntime, "preload_dlls", raising=False)
    with pytest.raises(engines.EngineError, match=message):
        engines.open_engine(*arguments)


BARE = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("keras", "keras_spos", "scipy", "tqdm", "tensorflow",
                                  "jax", "onnx", "matplotlib"):
            raise ImportError(f"bare machine: no {name}")
sys.meta_path.insert(0, Refuse())
from hardware.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_bare_machine_measures_and_predicts(blocks, tmp_path):
    """With numpy and the engine alone, from the command line."""
    folder, _ = blocks
    out = tmp_path / "table.json"

    def run(*words):
        return subprocess.run(
            [sys.executable, "-c", BARE, *map(str, words)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    quick = ["--rounds", 2, "--seconds", 0.001, "--clock", "cpu"]
    done = run("measure", folder, *quick, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 blocks measured" in done.stdout
    metadata = json.loads(out.read_text())["metadata"]
    for name in ("device", "engine_version", "threads", "date", "excluded", "clock"):
        assert metadata[name]
    done = run("predict", out, "--path", "0,3", "--batch", 2)
    assert done.returncode == 0, done.stderr
    table = CostTable.load(out)
    assert float(done.stdout.split()[0]) == pytest.approx(table((0, 3))[0], abs=1e-4)
    done = run("predict", out, "--path", "0,3", "--batch", 32)
    assert done.returncode == 2
    assert "batch=32. Received: batch=2" in done.stderr
    done = run("blocks", "--space", "proxyless", "--out", tmp_path / "b")
    assert done.returncode == 2
    assert "needs Keras" in done.stderr


def said(capsys, *words):
    """What a command that fails says, in one line."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:  # argparse, which also shows the usage.
        status = stop.code
    assert status == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_what_is_wrong_on_the_command_line(blocks, tmp_path, capsys, monkeypatch):
    folder, _ = blocks
    measured(folder, Stopwatch(), tmp_path)
    table, file = tmp_path / "table.json", tmp_path / "paths.json"
    for wrong in ([0, 1], {"a": [0, 1]}, [[0, 1.5]], [[0, "x"]], 7):
        file.write_text(json.dumps(wrong))
        line = said(capsys, "predict", table, "--paths", file)
        assert line.startswith("error: Expected") and "Received" in line
    file.write_text("[[0, 1], [2]]")
    assert "paths of 2 integers" in said(capsys, "predict", table, "--paths", file)
    assert "such as 0,1,2. Received: 0,x" in said(
        capsys, "predict", table, "--path", "0,x"
    )
    build = ["blocks", "--space", "proxyless", "--out", tmp_path / "b"]
    for arguments, message in {
        "[1]": "Expected arguments of proxyless as a dict.* Received: .1.",
        '{"widht": 1}': "'input_shape'.*Received: .'widht': 1.",
        '{"stage_blocks": 3}': "proxyless cannot be built with .*'stage_blocks': 3",
        "{": "--arguments to be a JSON dict.*Received: {",
    }.items():
        assert re.search(message, said(capsys, *build, "--arguments", arguments))
    assert "batch=0" in said(capsys, *build, "--batch", 0)
    assert "networks=-1" in said(capsys, *build, "--networks", -1)
    measure_ = ["measure", folder, "--out", tmp_path / "new.json"]
    assert "rounds=0" in said(capsys, *measure_, "--rounds", 0)
    assert "rounds=-1" in said(capsys, *measure_, "--rounds", -1)
    assert "seconds=nan" in said(capsys, *measure_, "--seconds", "nan")
    for threads in (0, -3):
        line = said(capsys, *measure_, "--threads", threads)
        assert f"threads >= 1. Received: threads={threads}" in line
    # What takes minutes comes after what can be said at once.
    monkeypatch.setattr(
        "hardware.__main__._export_more", lambda *_: pytest.fail("it exports")
    )
    check_ = ["check", folder, "--table"]
    assert "at least 20" in said(capsys, *check_, table, "--networks", 19)
    assert "nowhere.json" in said(capsys, *check_, tmp_path / "nowhere.json")
    assert "Received: device='a clock'" in said(capsys, *check_, table)


def test_unknown_spaces_are_named(tmp_path, capsys):
    assert main(["blocks", "--space", "resnet", "--out", str(tmp_path)]) == 2
    assert "'fbnet'" in (said := capsys.readouterr().err) and "'resnet'" in said
