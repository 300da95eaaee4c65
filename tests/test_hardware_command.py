"""Latency tables from the command line, and on a machine without Keras."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import onnxruntime
import pytest
from stopwatch import COSTS, Stopwatch, measured

from hardware import engines
from hardware.__main__ import _check_quantized, main
from hardware.blocks import build
from hardware.manifest import Manifest, read_manifest
from hardware.table import NO_CORRECTION, read_table, with_correction
from keras_spos import CostTable

ROOT = pathlib.Path(__file__).parents[1]


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
    # Checked with the clock that it was measured with: what is missing is networks.
    done = run("check", folder, "--table", out)
    assert "at least 16 whole networks" in done.stderr
    done = run("check", folder, "--table", out, "--clock", "wall")
    assert "clock='wall'. Received: clock='cpu'" in done.stderr
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
    build += ["--arguments", '{"stage_blocks": [1, 1, 1, 1, 1, 1]}']
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
    line = said(capsys, *measure_, "--precision", "int8")
    assert "int8 is for --engine tensorrt or trtexec" in line
    line = said(
        capsys, *measure_, "--precision", "int8", "--engine", "onnxruntime-tensorrt"
    )
    assert "blocks with quantizers for int8" in line
    assert "blocks with --precision fp16" in said(
        capsys, *measure_, "--precision", "fp16"
    )
    check_ = ["check", folder, "--table"]
    for command in (measure_, [*check_, table]):
        line = said(capsys, *command, "--out", tmp_path)
        assert f"--out to be a file. Received: the folder {tmp_path}" in line
        line = said(capsys, *command, "--out", tmp_path / "no" / "new.json")
        assert "in a folder that exists. Received" in line
    for other in (file, pathlib.Path(folder) / "manifest.json"):
        before = other.read_text()
        line = said(capsys, "measure", folder, "--out", other)
        assert "--out to be a new file, or a table" in line and other.name in line
        assert other.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "paths.json",
        "table.json",
        "table.log",
    ]
    assert "at least 16" in said(capsys, *check_, table, "--networks", 15)
    assert "nowhere.json" in said(capsys, *check_, tmp_path / "nowhere.json")
    assert "Received: device='a clock'" in said(capsys, *check_, table)


def test_what_a_noisy_machine_is_told_can_be_done(
    blocks, tmp_path, capsys, monkeypatch
):
    """The log of other rounds is used again; that of another clock is refused."""

    class Noisy(Stopwatch):
        clock = "wall"

        def describe(self):
            return {**super().describe(), "clock": self.clock}

        def open(self, path):
            self.offset += 3.0
            return super().open(path)

    monkeypatch.setattr("hardware.__main__._engine", lambda *_: Noisy())
    out = str(tmp_path / "table.json")
    words = ["measure", str(blocks[0]), "--seconds", "0.002", "--out", out]
    assert main([*words, "--rounds", "3"]) == 0
    hint = capsys.readouterr().err
    assert re.search("more --rounds, and the log is used again", hint)
    assert re.search("into another --out, .*--clock cpu", hint)
    assert main([*words, "--rounds", "3", "--statistic", "floor"]) == 0
    assert "others use" not in capsys.readouterr().err
    Noisy.clock = "cpu"
    assert main([*words, "--rounds", "3"]) == 2
    assert "clock: expected 'wall', received 'cpu'" in capsys.readouterr().err


def test_a_table_is_measured_checked_and_read(blocks, tmp_path, capsys, monkeypatch):
    """What is asked of the engine, what is written, and what the status says."""
    folder, out = tmp_path / "blocks", tmp_path / "table.json"
    shutil.copytree(blocks[0], folder)
    manifest = read_manifest(folder)
    again = {f"again_{n}": e for n, e in manifest.networks.items()}
    manifest.data.update(precision="fp16", networks={**manifest.networks, **again})
    manifest.save()
    monkeypatch.setattr(Manifest, "paths", 1000)  # Of a space that has so many.
    asked, costs, exported = [], COSTS | {str(n): 12.0 + n for n in range(12)}, []

    class Engine(Stopwatch):
        def describe(self):
            return {**super().describe(), "precision": "fp16"}

        def clocks(self):
            return {"cpu_mhz": [len(asked)]}

    def run(*words, fails=()):
        def open_engine(*given):
            asked.append(given)
            return Engine(costs, fails)

        monkeypatch.setattr(engines, "open_engine", open_engine)
        quick = ["--rounds", 2, "--seconds", 0.002]
        status = main([str(word) for word in (*words, *quick)])
        return status, *capsys.readouterr()

    cache = str(folder / "cache")
    options = ["--statistic", "floor", "--seed", 3, "--clock", "cpu"]
    measure = ["measure", folder, "--out", out, *options]
    status, _, said = run(*measure, fails={"k5"})
    assert status == 1 and "failed: k5" in said
    assert asked == [("onnxruntime", "cpu", "fp16", 1, "cpu", cache, "fp16")]
    status, _, said = run(*measure)
    assert status == 0 and "failed" not in said and "anew" not in said
    assert "nothing new" in run(*measure)[1]
    metadata = read_table(out).metadata
    assert (metadata["statistic"], metadata["clocks"]) == ("floor", {"cpu_mhz": [2]})
    known = json.loads(pathlib.Path(f"{out}.log").read_text().splitlines()[0])
    assert known["what"] == f"blocks {manifest.digest}" and known["seed"] == 3
    # As it was measured, unless told otherwise; enough networks are no more exported.
    monkeypatch.setattr("hardware.blocks.build", lambda *source: exported.append("net"))
    monkeypatch.setattr(
        "hardware.blocks.export_networks", lambda *given: exported.append(given[2])
    )
    check, before = ["check", folder, "--table", out], out.read_text()
    status, shown, _ = run(*check, "--networks", 5, "--keep", "--threads", 2)
    assert status == 0 and shown.startswith("24 whole networks")
    assert asked[-1] == ("onnxruntime", "cpu", "fp16", 2, "cpu", cache, "fp16")
    assert out.read_text() == before and (tmp_path / "table-check.json").exists()
    log = tmp_path / "table.json.check.log"
    log.unlink()
    status, _, said = run(*check, "--networks", 40, fails={"0"})
    assert status == 1 and "failed: network again_0: 3,2: cannot run 0" in said
    assert not exported  # It does not say of which space it is.
    assert "nothing new" in run(*measure)[1]
    manifest.data["source"] = {"space": "a", "arguments": {}}
    manifest.save()
    metadata["manifest"] = read_manifest(folder).digest
    with_correction(metadata, manifest.data["space"], NO_CORRECTION).save(out)
    log.unlink()
    assert run(*check, "--networks", 40)[0] == 0 and exported == ["net", 40]
    assert read_table(out).metadata["check"]["networks"] == 24
    # Paths of a file, and those that are given.
    (tmp_path / "paths.json").write_text("[[0, 3]]")
    words = ["predict", str(out), "--paths", str(tmp_path / "paths.json")]
    assert main([*words, "--path", "1,1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in shown] == ["0,3", "1,1"]
    assert main([*words, "--precision", "fp32"]) == 2
    # Other engines make up ranges; ONNX Runtime's provider needs quantizers.
    assert run(*measure[:4], "--engine", "trtexec", "--precision", "int8")[0] == 2
    assert asked[-1][::2] == ("trtexec", "int8", "wall", "fp16")
    file = next(iter(manifest.files.values()))
    with open(manifest.path(file), "ab") as end:
        end.write(b"QuantizeLinear")
    _check_quantized(manifest)


def test_unknown_spaces_are_named(tmp_path, capsys):
    assert main(["blocks", "--space", "resnet", "--out", str(tmp_path)]) == 2
    assert "'fbnet'" in (said := capsys.readouterr().err) and "'resnet'" in said


@pytest.mark.parametrize(
    "name, arguments, decisions",
    [
        ("resnet18_quantized", {"stage_channels": [2, 2, 2, 2]}, 16),
        ("mixpath_s3", {"skeleton": [[1, 2, 2, 8, 0.5, 2, 2]], "stem_channels": 4}, 4),
    ],
)
def test_spaces_that_pass_their_arguments_on(name, arguments, decisions):
    net = build(name, {"input_shape": [8, 8, 3], "num_classes": 2, **arguments})
    assert net.name == name and net.space.num_decisions == decisions
    with pytest.raises(ValueError, match="cannot be built with .*'widht': 1"):
        build(name, {"widht": 1})


def test_a_correction_outlives_measuring_again(blocks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hardware.__main__._engine", lambda *_: Stopwatch())
    out = tmp_path / "table.json"
    words = ["measure", str(blocks[0]), "--seconds", "0.002", "--out", str(out)]
    assert main([*words, "--rounds", "2"]) == 0
    doubled = {"kind": "x", "factor": 2.0, "per_block_ms": 0.0, "offset_ms": 1.0}
    table = read_table(out)
    with_correction(table.metadata, table.data["space"], doubled).save(out)
    corrected = out.read_text()
    capsys.readouterr()
    assert main([*words, "--rounds", "2"]) == 0
    assert out.read_text() == corrected
    assert "is kept as it is (correction: x)" in capsys.readouterr().out
    # Other figures make another table, and that is said.
    assert main([*words, "--rounds", "3"]) == 0
    assert read_table(out).metadata["correction"]["kind"] == "none"
    assert "without one: run check again" in capsys.readouterr().err
