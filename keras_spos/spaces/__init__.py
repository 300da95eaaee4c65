"""Search spaces: each a function that builds a supernet."""

from keras_spos.spaces.shufflenet_v2 import shufflenet_v2, spos_network

__all__ = ["shufflenet_v2", "spos_network"]
