"""Search spaces: each a function that builds a supernet."""

from keras_spos.spaces.fbnet import fbnet, fbnet_network
from keras_spos.spaces.mixpath_networks import mixpath_differences
from keras_spos.spaces.mixpath_s1 import mixpath_s1
from keras_spos.spaces.mixpath_s2 import mixpath_s2, mixpath_s3
from keras_spos.spaces.nasbench101_mixpath import nasbench101_mixpath
from keras_spos.spaces.nasbench201 import nasbench201
from keras_spos.spaces.nasbench_macro import nasbench_macro
from keras_spos.spaces.proxyless import proxyless, proxyless_network
from keras_spos.spaces.resnet_quantized import (
    quantized_network,
    quantized_resnet,
    resnet18_quantized,
    resnet34_quantized,
)
from keras_spos.spaces.shufflenet_v2 import shufflenet_v2, spos_network

__all__ = [
    "fbnet",
    "fbnet_network",
    "mixpath_differences",
    "mixpath_s1",
    "mixpath_s2",
    "mixpath_s3",
    "nasbench101_mixpath",
    "nasbench201",
    "nasbench_macro",
    "proxyless",
    "proxyless_network",
    "quantized_network",
    "quantized_resnet",
    "resnet18_quantized",
    "resnet34_quantized",
    "shufflenet_v2",
    "spos_network",
]
