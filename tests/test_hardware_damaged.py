"""Tables and manifests that are damaged, changed, or of something else."""

import json
import math
import shutil

import pytest
from stopwatch import Stopwatch, measured

from hardware.__main__ import main
from hardware.manifest import read_manifest
from hardware.table import read_table


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


@pytest.mark.parametrize("part", ["base", "blocks"])
def test_a_layout_of_blocks_without_a_file(blocks, tmp_path, part):
    folder = shutil.copytree(blocks[0], tmp_path / "blocks")
    data = json.loads((folder / "manifest.json").read_text())
    layout = data["layout"]
    key = layout["base"][0] if part == "base" else layout["blocks"][1]["options"][0]
    del data["files"][key]
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"Expected .*Received: none for .*{key}"):
        read_manifest(folder)


@pytest.mark.parametrize("part", ["files", "networks"])
def test_another_file_under_a_name_is_seen_before_it_is_measured(
    blocks, tmp_path, part
):
    folder = shutil.copytree(blocks[0], tmp_path / "blocks")
    first, second = [*getattr(read_manifest(folder), part).values()][:2]
    shutil.copy(folder / first["file"], folder / second["file"])
    with pytest.raises(ValueError, match=f"1 others .*{second['file']}"):
        read_manifest(folder)
    # What an earlier version exported has no hashes.
    data = json.loads((folder / "manifest.json").read_text())
    for entry in [*data["files"].values(), *data["networks"].values()]:
        del entry["sha256"]
    (folder / "manifest.json").write_text(json.dumps(data))
    assert read_manifest(folder).digest == read_manifest(blocks[0]).digest


@pytest.mark.parametrize(
    "keys",
    [
        ("layout", "base"),
        ("layout", "blocks"),
        ("layout", "blocks", 0, "options"),
        ("files", "fixed_0", "file"),
        ("networks", "0", "path"),
    ],
)
def test_what_a_manifest_lacks_is_named(blocks, tmp_path, keys):
    folder = shutil.copytree(blocks[0], tmp_path / "blocks")
    data = part = json.loads((folder / "manifest.json").read_text())
    *above, last = keys
    for key in above:
        found = [k for k in part if str(k).startswith(str(key))] if key != 0 else [0]
        part = part[found[0]]
    del part[last]
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"manifest.json .*lacks \['{last}'\]"):
        read_manifest(folder)


def test_a_table_without_its_layout(blocks, tmp_path):
    measured(blocks[0], Stopwatch(), tmp_path)
    path = tmp_path / "table.json"
    data = json.loads(path.read_text())
    del data["metadata"]["layout"]["base"]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"table.json .*its layout lacks \['base'\]"):
        read_table(path)


def first_entry(data):
    return next(iter(data["metadata"]["entries"].values()))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("metadata"),
        lambda data: data["metadata"].pop("batch"),
        lambda data: data["metadata"]["correction"].pop("factor"),
        lambda data: data["metadata"]["entries"].popitem(),
        lambda data: first_entry(data).pop("spread_ms"),
        lambda data: data["blocks"].pop(),
        lambda data: data["blocks"][1]["costs"].pop(),
        lambda data: data["blocks"][0].pop("costs"),
        lambda data: data["blocks"][0].update(costs=["fast", "slow"]),
        lambda data: data["blocks"][0].update(decisions=[1]),
        lambda data: data.update(base={}),
        lambda data: data.update(base=None),
        lambda data: data.update(base=math.nan),  # Which is no JSON, and read.
        lambda data: data["metadata"]["correction"].update(factor=math.inf),
        lambda data: first_entry(data).update(spread_ms=math.nan),
        lambda data: data.update(space=[]),
    ],
)
def test_a_table_that_was_changed_by_hand(blocks, tmp_path, change, capsys):
    measured(blocks[0], Stopwatch(), tmp_path)
    path = tmp_path / "table.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    for words in (
        ["predict", str(path), "--path", "0,0"],
        ["compare", *[str(path)] * 2],
    ):
        assert main(words) == 2
        assert "table.json is not a complete latency table" in capsys.readouterr().err
