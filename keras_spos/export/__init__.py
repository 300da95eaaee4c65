"""How a subnet is shipped: ONNX files, and int8 for ONNX Runtime and TensorFlow Lite.

`to_onnx` keeps a file only if it computes what its model does.

Example:
    >>> subnet = net.extract(result.best.path)                     # doctest: +SKIP
    >>> to_onnx(subnet, "best.onnx")                               # doctest: +SKIP
    >>> to_int8(subnet, x_train[:500], "best.tflite")              # doctest: +SKIP
"""

from keras_spos.export.int8 import Int8Report, to_int8
from keras_spos.export.onnx_export import OnnxReport, to_onnx

__all__ = ["Int8Report", "OnnxReport", "to_int8", "to_onnx"]
