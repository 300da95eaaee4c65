"""Searchable layers: what a path chooses from."""

from keras_spos.layers.choice_block import ChoiceBlock
from keras_spos.layers.searchable import SearchableLayer

__all__ = ["ChoiceBlock", "SearchableLayer"]
