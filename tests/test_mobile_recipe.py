"""Table 5's smaller presets keep the published networks' choices."""

import types

import pytest
from models import small_net

import keras_spos as ks
from hardware.manifest import read_manifest
from keras_spos.spaces.proxyless import BLOCKS, NAMED, WIDTHS
from recipes import mobile


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
