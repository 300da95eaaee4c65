"""Exports a subnet to ONNX, and makes sure that the file computes what Keras does.

Example:
    >>> subnet = net.extract(result.best.path)                     # doctest: +SKIP
    >>> report = to_onnx(subnet, "best.onnx", batch_size=1)        # doctest: +SKIP
    >>> report.max_abs_difference                                  # doctest: +SKIP
    4.8e-06
"""

import collections
import dataclasses
import os

import keras

from keras_spos.export.onnx_compare import compare, in_float32
from keras_spos.export.onnx_functions import UnsupportedLayerError
from keras_spos.graph import check_functional, functional
from keras_spos.layers.searchable import SearchableLayer
from keras_spos.optional import require
from keras_spos.whole_file import whole_file

_OLDEST_OPSET = 13  # Older ones have other arguments for several operators.


@dataclasses.dataclass(frozen=True)
class OnnxReport:
    """What was exported.

    Attributes:
        path: The file.
        batch_size: Its batch size, or None if that is open.
        opset: Its ONNX operator set version.
        bytes: The file's size.
        nodes: A dict from ONNX operator to how many nodes it has in the graph.
        inputs: A dict from input name to shape; an open batch size is "batch", another
            open size None.
        outputs: Likewise.
        max_abs_difference: The largest absolute difference between ONNX Runtime's
            outputs and Keras', or None if it was not measured.
        max_abs_output: The largest absolute value of Keras' outputs there, or None.
        writer: "keras_spos", or "tf2onnx" for models with layers that only it knows.
    """

    path: str
    batch_size: int | None
    opset: int
    bytes: int
    nodes: dict
    inputs: dict
    outputs: dict
    max_abs_difference: float | None
    max_abs_output: float | None
    writer: str


def to_onnx(
    model,
    path,
    batch_size=None,
    opset=17,
    verify=True,
    tolerance=1e-4,
    seed=0,
    channels_first=(),
):
    """Writes a stock Keras model, such as ``net.extract(path)``, as an ONNX file.

    The file takes and gives what the model does: float32, images in Keras' layout (by
    default ``[n, height, width, channels]``), outputs under their layers' names. Inside
    it is channels first, after one Transpose; batch norms and paddings are folded into
    convolutions, and nothing that only training needs is left. Models of half or double
    precision, or inputs of these, are written as float32.

    Stock layers are written directly, on any backend. Models with other layers are
    traced by `tf2onnx`, which needs the TensorFlow backend.

    Args:
        model: A built Functional or Sequential model.
        path: The file to write; there is none if anything fails, and one that was there
            before stays.
        batch_size: The batch size of the file, or None to leave it open.
        opset: ONNX operator set version, 13 or later.
        verify: Whether to compare the file, in ONNX Runtime, with the model on random
            images: as many as `batch_size`, or one and then three if that is None.
        tolerance: The largest difference of an output that is accepted, as a fraction
            of its largest number, in the model of the same activation levels if it is
            quantized: float32 has seven digits. See `onnx_compare.compare`.
        seed: Seed of the random images.
        channels_first: Names of inputs and outputs whose images the file takes and
            gives as ``[n, channels, height, width]``, for pieces of a network: that is
            how ONNX runtimes hand them on.

    Returns:
        An `OnnxReport`.

    Raises:
        ValueError: The model is a supernet, has a layer that cannot be written, or the
            file's outputs differ from the model's.
    """
    _check(model, batch_size, opset, channels_first)
    onnx = require("onnx")
    if verify:
        _check_sizes(model)
        require("onnxruntime")
    model = in_float32(model)
    path = os.path.abspath(path)
    with whole_file(path) as temporary:
        writer, levels = _write(model, temporary, batch_size, opset, channels_first)
        difference, largest = None, None
        if verify:
            difference, largest = compare(
                model, temporary, batch_size, seed, tolerance, channels_first, levels
            )
        proto = onnx.load(temporary)
    return OnnxReport(
        path=path,
        batch_size=batch_size,
        opset=next(x.version for x in proto.opset_import if not x.domain),
        bytes=os.path.getsize(path),
        nodes=dict(collections.Counter(node.op_type for node in proto.graph.node)),
        inputs=_shapes(proto.graph.input),
        outputs=_shapes(proto.graph.output),
        max_abs_difference=difference,
        max_abs_output=largest,
        writer=writer,
    )


def _check(model, batch_size, opset, channels_first):
    if any(isinstance(x, SearchableLayer) for x in model._flatten_layers()):
        raise ValueError(
            "A supernet switches between paths, which no ONNX runtime can: extract a "
            f"subnet first, to_onnx(net.extract(path), ...). Received: {model.name!r}."
        )
    check_functional(model)
    if opset < _OLDEST_OPSET:
        raise ValueError(f"Expected opset >= {_OLDEST_OPSET}. Received: opset={opset}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"Expected a batch_size of at least 1, or None. Received: {batch_size}"
        )
    names = functional(model).output_names
    known = [*(tensor.name for tensor in model.inputs), *names]
    if isinstance(channels_first, str) or not set(channels_first) <= set(known):
        raise ValueError(
            f"Expected channels_first to list names of {known}, the inputs and outputs "
            f"of {model.name!r}. Received: channels_first={channels_first!r}"
        )
    fixed = {tensor.shape[0] for tensor in model.inputs} - {None, batch_size}
    if fixed:
        raise ValueError(
            f"Model {model.name!r} has batch size {fixed.pop()} built in. "
            f"Received: batch_size={batch_size}"
        )


def _check_sizes(model):
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                "Images to compare the file on need fixed sizes of all but the batch. "
                f"Received: input {tensor.name!r} of shape {tensor.shape[1:]}. Build "
                "the model with fixed ones, or pass verify=False."
            )


def _write(model, path, batch_size, opset, channels_first):
    """Writes the file; returns which writer could, and the levels of quantizers."""
    from keras_spos.export.onnx_trace import trace
    from keras_spos.export.onnx_writer import write

    try:
        proto, levels = write(model, batch_size, opset, channels_first)
    except UnsupportedLayerError as error:
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"{error} Only tf2onnx may export that: save the model, load it under "
                "KERAS_BACKEND=tensorflow and export it there."
            ) from error
        require("tf2onnx")
        try:
            trace(model, path, batch_size, opset, channels_first)
        except Exception as failure:
            raise ValueError(f"{error} Nor can tf2onnx: {failure}") from failure
        return "tf2onnx", []
    with open(path, "wb") as file:
        file.write(proto.SerializeToString())
    return "keras_spos", levels


def _shapes(values):
    return {
        value.name: tuple(
            d.dim_value or (None if axis else "batch")
            for axis, d in enumerate(value.type.tensor_type.shape.dim)
        )
        for value in values
    }
