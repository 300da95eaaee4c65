"""Searchable layers: what a path chooses from."""

from keras_spos.layers.choice_block import ChoiceBlock
from keras_spos.layers.elastic_block import ElasticBlock
from keras_spos.layers.multi_path_block import MultiPathBlock
from keras_spos.layers.path_group import PathGroup
from keras_spos.layers.quantized import PACT, ElasticQuantizedConv2D, QuantizedConv2D
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.layers.shadow_batch_norm import ShadowBatchNormalization
from keras_spos.layers.sliceable import (
    SliceableBatchNormalization,
    SliceableConv2D,
    SliceableDense,
    SliceableDepthwiseConv2D,
)

__all__ = [
    "ChoiceBlock",
    "ElasticBlock",
    "ElasticQuantizedConv2D",
    "MultiPathBlock",
    "PACT",
    "PathGroup",
    "QuantizedConv2D",
    "SearchableLayer",
    "ShadowBatchNormalization",
    "SliceableBatchNormalization",
    "SliceableConv2D",
    "SliceableDense",
    "SliceableDepthwiseConv2D",
]
