"""SPOS's recipes search, train and report."""

import argparse
import dataclasses
import os
import types

import keras
import numpy as np
import pytest

from keras_spos import bitops_table, count_bitops, spaces
from keras_spos.spaces.shufflenet_v2 import OPTIONS
from recipes import spos_figure1, spos_table4, spos_table6, spos_table7


def test_table_4(smoke):
    folder, result = smoke(spos_table4, "--recompute")
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == list(spos_table4.PAPER)
    assert all(row["flops"] <= result["limit"] for row in rows.values())
    # What a supernet's table says of a path is what the network trained alone takes.
    for name, best in result["best"].items():
        assert rows[name]["flops"] == best["costs"]["flops"]
    # Widths were searched on "all choice_3", and on the blocks found first.
    found = [OPTIONS[i] for i in result["best"]["block search"]["path"]]
    for name, blocks in {
        "choice_3 + channel search": ["choice_3"] * len(found),
        "block search + channel search": found,
    }.items():
        description = result["descriptions"][name]
        assert [description[f"block_{i}"] for i in range(len(found))] == blocks
    supernets = [keras.saving.load_model(file) for file in folder.glob("*.keras")]
    assert len(supernets) == 4 and all(net.recompute for net in supernets)
    table = (folder / "table.md").read_text()
    assert all(f"| {name} |" in table for name in rows)
    for picture in ("search.png", "widths.png"):
        assert (folder / picture).stat().st_size > 1000


@pytest.mark.parametrize("depth", [18, 34])
def test_table_6_says_which_network_it_trained(depth):
    """Small presets have one of their own, whatever the depth."""
    for preset, network in (
        ("paper", f"ResNet-{depth} on imagenet"),
        ("small", "a ResNet of (1, 2, 1) blocks of (16, 32, 64) channels on cifar10"),
        ("smoke", "a ResNet of (1, 1) blocks of (4, 8) channels on digits"),
    ):
        args = argparse.Namespace(preset=preset, depth=depth)
        note = spos_table6._note(args, spos_table6._settings(args))
        assert note.startswith(f"Measured with {network}, the {preset!r} preset")
        assert note.endswith(f"figures are ImageNet's, of ResNet-{depth}.")


def test_table_6_knows_no_accuracy_from_none():
    assert spos_table6._inherited({"inherited": 0.0}) == 0.0
    assert spos_table6._inherited({}) == "not in the space"


def test_table_7_with_recompute_is_measured_anew(smoke, monkeypatch):
    def measured(method, args):
        figures = dict.fromkeys(("bytes", "seconds", "seconds_a_path"), 1.0)
        return {
            **figures,
            "seconds_retraining": 1.0,
            "device": "a device",
            "clock": "a clock",
            "recompute": args.recompute,
        }

    monkeypatch.setattr(spos_table7, "_in_a_process", measured)
    for words in ([], ["--resume", "--recompute"], ["--resume"]):
        _, result = smoke(spos_table7, *words)
        recomputed = {result[method]["recompute"] for method in spos_table7.METHODS}
        assert recomputed == {"--recompute" in words}


def test_table_7_ends_with_the_process_that_was_started(monkeypatch):
    """One that is killed leaves no training behind."""
    watched = []

    def run(command, **_):
        words = command[command.index("recipes.spos_table7") :]
        monkeypatch.setattr("sys.argv", words)
        spos_table7.main()
        return argparse.Namespace(returncode=0, stdout="{}")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(spos_table7, "_run", lambda *_: {})
    monkeypatch.setattr(spos_table7, "leave_with", watched.append)
    args = argparse.Namespace(preset="smoke", seed=0, data_dir=None, recompute=False)
    spos_table7._in_a_process("FBNet", args)
    assert watched == [os.getpid()]


def test_figure_1_keeps_its_table(smoke, monkeypatch):
    curve = {"mean": [0.1, 0.25], "min": [0.0, 0.2], "max": [0.2, 0.3]}
    monkeypatch.setattr(spos_figure1, "_train", lambda *_: curve)
    folder, result = smoke(spos_figure1)
    assert list(result.values()) == 3 * [curve]
    assert "| drop rate 0.5 | 25.00 |" in (folder / "table.md").read_text()


def test_a_row_of_table_7_by_hand():
    settings = types.SimpleNamespace(iterations=7200, retrain_iterations=1800)
    result = {"bytes": 30e6, "seconds": 0.5, "seconds_a_path": 9.0}
    base = {"bytes": 10e6, "seconds": 0.25, "seconds_retraining": 6.0}
    # Megabytes, seconds a step, and the hours of training, search and retraining.
    measured = ["30", "3.00", "0.500", "2.00", "1.0", "2.50", "3.0", "6.5"]
    row = spos_table7._row("FBNet", result, base, settings)
    assert row == ["FBNet", *measured, "63 (2.62)", "20 (1.67)", "0", 16, 36]


def test_table_6_tunes_networks_of_equal_bits_from_the_supernet():
    settings = spos_table6.PRESETS["smoke"]
    block = {"stage_blocks": (1,), "stage_channels": (4,), "widths": (1.0,)}
    settings = dataclasses.replace(settings, space={**settings.space, **block})
    net = spaces.quantized_resnet(**settings.space)
    rng = np.random.default_rng(0)
    for weight in net.trainable_variables:
        weight.assign(rng.uniform(0.5, 2, weight.shape))

    tuned = {k: spos_table6._uniform(settings, k, net) for k in (2, 3)}
    # 3-bit inputs, which the space lacks, start with the ranges of 4 bits.
    for k, path in ((2, "2W2A"), (3, "4W4A")):
        pairs = zip(tuned[k].weights, net.extract(path).weights, strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    # The limit is what the supernet's table says of that path.
    limit = count_bitops(tuned[2])
    assert limit == pytest.approx(bitops_table(net)(net.named_paths["2W2A"])[0])
    assert count_bitops(tuned[3]) > limit


def test_random_networks_of_table_4_are_near_the_limit():
    costs = np.array([5.0, 94, 96, 99, 100, 101])
    experiment = argparse.Namespace(
        net=argparse.Namespace(
            space=argparse.Namespace(sample=lambda *_, **__: np.arange(6))
        ),
        flops=lambda paths: costs[paths],
        fresh=lambda path: costs[path],
    )
    recipe = argparse.Namespace(
        first=argparse.Namespace(limit=argparse.Namespace(value=100)),
        settings=argparse.Namespace(random_networks=2),
    )
    assert spos_table4._Recipe.random(recipe, experiment) == [96, 99]
    recipe.first.limit.value = 90  # In a tiny space: the nearest below it.
    assert spos_table4._Recipe.random(recipe, experiment) == [5]
    assert spos_table4._joined((0, 3), (1, 2)) == (0, 1, 3, 2)
