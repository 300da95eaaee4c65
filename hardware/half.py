"""Turns an ONNX file of float32 into one of float16: weights, inputs and outputs."""

import numpy as np


def to_half(path):
    """Rewrites a file that `keras_spos.to_onnx` wrote."""
    import onnx
    from onnx import TensorProto, numpy_helper

    proto = onnx.load(path)
    graph = proto.graph
    # Factors of sizes, which ONNX has in float32.
    scales = {
        name for n in graph.node if n.op_type == "Resize" for name in n.input[2:3]
    }
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in scales:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                numpy_helper.from_array(array.astype(np.float16), tensor.name)
            )
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    for value in [*graph.input, *graph.output, *graph.value_info]:
        kind = value.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT:
            kind.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
