"""Searchable layers: what a path chooses from."""

from keras_spos.layers.choice_block import ChoiceBlock
from keras_spos.layers.multi_path_block import MultiPathBlock
from keras_spos.layers.path_group import PathGroup
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.layers.shadow_batch_norm import ShadowBatchNormalization

__all__ = [
    "ChoiceBlock",
    "MultiPathBlock",
    "PathGroup",
    "SearchableLayer",
    "ShadowBatchNormalization",
]
