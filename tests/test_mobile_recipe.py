"""Table 5's smaller presets keep the published networks' choices."""

import sys
import types

import numpy as np
import pytest
from models import small_net

import keras_spos as ks
from hardware.manifest import read_manifest
from keras_spos.spaces.proxyless import BLOCKS, NAMED, WIDTHS
from recipes import mobile, spos_table5


def test_the_first_blocks_of_each_stage_are_kept():
    labels = NAMED["proxyless_mobile"]
    assert mobile._first_blocks(labels, BLOCKS, BLOCKS) == list(labels)
    # k5_e3 k3_e3 | k7_e3 k3_e3 | k7_e6 k5_e3 | k5_e6 k5_e3 | k7_e6 k7_e6 | k7_e6
    kept = mobile._first_blocks(labels, BLOCKS, [min(n, 2) for n in BLOCKS])
    assert " ".join(kept) == (
        "k5_e3 k3_e3 k7_e3 k3_e3 k7_e6 k5_e3 k5_e6 k5_e3 k7_e6 k7_e6 k7_e6"
    )


def test_channels_are_scaled_to_multiples_of_four():
    assert mobile._scaled(WIDTHS["mobile"], 1) == WIDTHS["mobile"]
    assert mobile._scaled(WIDTHS["mobile"], 0.25) == (8, 4, (8, 8, 20, 24, 48, 80), 320)


def test_networks_that_a_kill_left_out_are_exported(tmp_path, monkeypatch):
    experiment = types.SimpleNamespace(
        net=small_net(),
        seed=0,
        settings=types.SimpleNamespace(latency_batch=2, networks=2),
        output=types.SimpleNamespace(path=tmp_path.joinpath),
    )
    (tmp_path / "blocks").mkdir()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ks.Supernet, "extract", killed)
        mobile.Experiment._blocks(experiment)
    assert read_manifest(tmp_path / "blocks").networks == {}
    assert len(mobile.Experiment._blocks(experiment).networks) == 2
    assert len(read_manifest(tmp_path / "blocks").networks) == 2


def test_a_network_found_starts_alike_whether_a_kill_came_before_or_not():
    net = small_net()

    def trained(known):
        weights = []
        experiment = types.SimpleNamespace(
            net=net,
            seed=3,
            settings=types.SimpleNamespace(retrain_epochs=1),
            output=types.SimpleNamespace(done=known.get, finish=lambda _, r: r),
            baseline=lambda _: net.extract((1, 1), fresh=True),
            measured_latency=lambda *_: 1.0,
            train=lambda model, *_: weights.append(model.get_weights()),
            test_accuracy=lambda _: 0.5,
        )
        row = {"name": "a", "baseline": {}, "same_flops": {"path": [0, 2]}}
        row["same_latency"] = {"infeasible": ""}
        spos_table5._finish(experiment, row, ks.flops_table(net), None, {})
        assert row["same_flops"]["top1"] == row["baseline"]["top1"] == 0.5
        return weights

    whole = trained({})
    resumed = trained({"trained a": {"top1": 0.5}})
    assert (len(whole), len(resumed)) == (2, 1)
    for a, b in zip(whole[1], resumed[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_latencies_of_two_devices_are_not_mixed(tmp_path, monkeypatch):
    def killed(*_):
        raise RuntimeError

    monkeypatch.setattr(mobile, "Experiment", killed)
    command = ["spos_table5", "--preset", "smoke", "--output-dir", str(tmp_path)]
    for words, error, message in (
        ([], RuntimeError, None),
        (["--resume", "--device", "cuda"], SystemExit, "Expected --device cpu, "),
        (["--resume", "--engine", "trtexec"], SystemExit, "Received: --engine trtexec"),
        (["--resume"], RuntimeError, None),
    ):
        monkeypatch.setattr(sys, "argv", [*command, *words])
        with pytest.raises(error, match=message):
            spos_table5.main()


def test_a_row_of_table_5_by_hand():
    row = {
        "name": "FBNet-A",
        "baseline": {
            "flops": 249_000_000,
            "params": 4300,
            "latency_ms": 13,
            "top1": 0.73,
        },
        "same_flops": {"flops": 240_000_000, "top1": 0.732},
        "same_latency": {"table_ms": 12, "latency_ms": 12.5, "top1": 0.733},
    }
    baseline = ["FBNet-A", "249,000,000 / 4,300", "13.000", "73.00"]
    same_flops = ["240,000,000", "73.20"]
    paper = ["249M/4.3M, 13ms", "73.0, 73.2, 73.3"]
    cells = spos_table5._cells(row)
    assert cells == [*baseline, *same_flops, "12.000 / 12.500", "73.30", *paper]
    row["same_latency"] = {"infeasible": "too slow"}
    cells = spos_table5._cells(row)
    assert cells == [*baseline, *same_flops, "out of reach", "", *paper]
