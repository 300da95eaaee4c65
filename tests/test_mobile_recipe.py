"""Table 5's smaller presets keep the published networks' choices."""

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
