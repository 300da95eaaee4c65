"""Writes a graph of stock Keras layers as ONNX nodes, one layer after the other.

It needs no backend: it reads layers' settings and weights, never runs them. So it works
where TensorFlow is not installed, and takes a second where tracing takes half a minute.

Layouts. Keras convolves images ``[n, height, width, channels]``, ONNX ``[n, channels,
height, width]``. Each value here knows in which order its ONNX tensor has the axes of
its Keras tensor, and an ONNX Transpose is written only where a layer needs another
order: one after the input, for most networks.

Example:
    >>> from keras_spos.export.onnx_writer import write
    >>> proto, _ = write(model, batch_size=1, opset=17)            # doctest: +SKIP
"""

import dataclasses
import inspect

import keras
import numpy as np
import onnx
from keras import ops
from onnx import helper, numpy_helper

from keras_spos.export import onnx_operations
from keras_spos.export.onnx_fold import fold
from keras_spos.export.onnx_functions import UnsupportedLayerError
from keras_spos.export.onnx_layers import WRITERS
from keras_spos.graph import flatten_inputs, functional, nodes

# Layers and operations that take, or give, more than float32.
_CASTS = (
    keras.layers.Embedding,
    keras.layers.MultiHeadAttention,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    *onnx_operations.OF_ANY_TYPE,
)

# An open batch counts as a size that nothing else has.
_OPEN = 7919


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor in both worlds.

    Attributes:
        name: Its ONNX name.
        shape: Its Keras shape; the batch size is None.
        order: Which Keras axis each ONNX axis is: (0, 3, 1, 2) has channels first.
        dtype: Its type.
    """

    name: str
    shape: tuple
    order: tuple
    dtype: str = "float32"


class Graph:
    """ONNX nodes and constants under construction.

    Attributes:
        batch_size: How many images it takes, or None for any number.
        nodes: `onnx.NodeProto`s in the order of computation.
        constants: A dict from name to array.
        scope: The name of the Keras layer that is being written.
        levels: For each quantizer of activations, the `Value` of its levels.
    """

    def __init__(self, opset, batch_size):
        """Starts an empty graph."""
        self.opset = opset
        self.batch_size = batch_size
        self.nodes = []
        self.constants = {}
        self.scope = ""
        self.levels = []
        self._names = set()
        self._transposed = {}

    def unique(self, name):
        """A name that was not given before, `name` if possible."""
        result, number = name, 1
        while result in self._names:
            number += 1
            result = f"{name}_{number}"
        self._names.add(result)
        return result

    def add(self, op_type, inputs, **attributes):
        """Adds a node with one output and returns the output's name."""
        name = self.unique(f"{self.scope}/{op_type}")
        self.nodes.append(
            helper.make_node(op_type, inputs, [name], name=name, **attributes)
        )
        return name

    def constant(self, value, label):
        """Adds a constant and returns its name.

        Args:
            value: A Keras variable, or numbers: booleans and those of 8 bits stay,
                other integers become int64, all else float32.
            label: What the constant is, such as "kernel".
        """
        if isinstance(value, keras.Variable):
            value = ops.convert_to_numpy(value.value)
        name = self.unique(f"{self.scope}/{label}")
        self.constants[name] = np.asarray(value)
        return name

    def cast(self, value, dtype):
        """The `Value` of a tensor in the type asked for."""
        if value.dtype == dtype:
            return value
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        name = self.add("Cast", [value.name], to=kind)
        return dataclasses.replace(value, name=name, dtype=dtype)

    def arrange(self, value, order):
        """The ONNX name of a value whose ONNX axes are in the order asked for."""
        order = tuple(order)
        if value.order == order:
            return value.name
        perm = tuple(value.order.index(axis) for axis in order)
        key = value.name, perm
        if key not in self._transposed:
            self._transposed[key] = self.add("Transpose", [value.name], perm=perm)
        return self._transposed[key]


def write(model, batch_size=None, opset=17, channels_first=()):
    """Writes a Functional or Sequential model of float32 layers.

    Batch norms and zero padding before a convolution become part of the convolution.

    Args:
        model: The model. Only the batch size may be open in its input shapes.
        batch_size: An integer, or None for one that is open.
        opset: ONNX operator set version.
        channels_first: Names of inputs and outputs of four axes to have in ONNX's
            layout.

    Returns:
        An `onnx.ModelProto` whose other inputs and outputs have Keras' layout, and all
        of them Keras' names; and a `Value` for each quantizer of activations, in the
        order in which Keras runs them: the levels (0, 1, ...) that it gives.

    Raises:
        UnsupportedLayerError: A layer, or an option of one, that it cannot write.
    """
    model = functional(model)
    if not hasattr(model, "_nodes_by_depth"):
        raise UnsupportedLayerError(
            f"Model {model.name!r} ({type(model).__name__}) has no graph of layers."
        )
    graph = Graph(opset, batch_size)
    inputs = []
    for tensor in model.inputs:
        shape = (None, *tensor.shape[1:])
        if None in shape[1:]:
            raise UnsupportedLayerError(
                f"Input {tensor.name!r} has an open size besides the batch: {shape}."
            )
        name = graph.unique(tensor.name)
        order = _layout(name, shape, channels_first)
        inputs.append(Value(name, shape, order, tensor.dtype))
    outputs = _write_graph(graph, model, inputs)
    named = _name_outputs(graph, outputs, model.output_names, inputs, channels_first)
    fold(graph, [value.name for value in named])
    return _assemble(graph, model.name, inputs, named), graph.levels


def _layout(name, shape, channels_first):
    """The order of axes that an input or output has in the file."""
    if name in channels_first and len(shape) == 4:
        return (0, 3, 1, 2)
    return tuple(range(len(shape)))


def _write_graph(graph, model, inputs):
    """Writes the layers of a (nested) model; returns its outputs as a flat list."""
    for tensor, given in zip(model.inputs, inputs, strict=True):
        if len(given.shape) != len(tensor.shape):
            raise UnsupportedLayerError(
                f"Model {model.name!r} takes {tensor.shape} and is called on "
                f"{given.shape}, of another rank."
            )
    # Keras casts to the types that a model declares.
    values = {
        id(tensor): graph.cast(given, tensor.dtype)
        for tensor, given in zip(model.inputs, inputs, strict=True)
    }
    for node in nodes(model):
        layer = functional(node.operation)
        args, kwargs = node.arguments.fill_in(values)
        if hasattr(layer, "_nodes_by_depth") and not kwargs.get("training"):
            results = _write_graph(graph, layer, flatten_inputs(layer, args, kwargs))
        else:
            results = _write_layer(graph, layer, args, kwargs, node)
        for tensor, value in zip(node.outputs, results, strict=True):
            values[id(tensor)] = value
    return [values[id(t)] for t in model.outputs]


def _write_layer(graph, layer, args, kwargs, node):
    """Writes one call of a layer and returns its outputs."""
    # Only the very class: a subclass may compute something else.
    writer = WRITERS.get(type(layer))
    described = f"{type(layer).__name__} {layer.name!r}"
    if writer is None:
        raise UnsupportedLayerError(f"Layer {described} is of an unknown type.")
    mode = getattr(layer, "quantization_mode", None)
    if mode:  # Its weights are integers, with a scale beside them.
        raise UnsupportedLayerError(f"Layer {described} is quantized: {mode!r}.")
    kwargs = {k: v for k, v in kwargs.items() if v is not None and v is not False}
    try:
        inspect.signature(writer).bind(graph, layer, None, *args, **kwargs)
    except TypeError:
        raise UnsupportedLayerError(
            f"Layer {described} is called with other arguments than its inputs, such "
            f"as training=True or a mask. Received: {len(args)} by position, "
            f"{sorted(kwargs)} by name."
        ) from None
    for tensor in [*node.input_tensors, *node.outputs]:
        other = tensor.dtype == "bool" or keras.backend.is_int_dtype(tensor.dtype)
        if tensor.dtype != "float32" and not (other and isinstance(layer, _CASTS)):
            raise UnsupportedLayerError(
                f"Layer {described} takes or gives {tensor.dtype}, not float32."
            )
    graph.scope = layer.name
    try:
        shapes = _shapes(graph, node, layer, args, kwargs)
        written = writer(graph, layer, shapes[0], *args, **kwargs)
    except UnsupportedLayerError as error:
        raise UnsupportedLayerError(f"Layer {described}: {error}") from None
    several = written if isinstance(written, list) else [written]
    return [
        Value(name, shape, tuple(order), tensor.dtype)
        for (name, order), shape, tensor in zip(
            several, shapes, node.outputs, strict=True
        )
    ]


def _shapes(graph, node, layer, args, kwargs):
    """Shapes of a call's outputs, also in a nested model that leaves sizes open.

    Layers keep the batch apart, but for one; operations may do anything to it.
    """
    outputs = node.outputs
    keeps = isinstance(layer, keras.Layer)
    keeps = keeps and not isinstance(layer, keras.layers.Concatenate)
    if not keeps or any(None in tensor.shape[1:] for tensor in outputs):
        batch = graph.batch_size or _OPEN
        args, kwargs = keras.tree.map_structure(
            lambda x: (
                keras.KerasTensor((batch, *x.shape[1:]), x.dtype)
                if isinstance(x, Value)
                else x
            ),
            (args, kwargs),
        )
        try:
            outputs = keras.tree.flatten(layer.compute_output_spec(*args, **kwargs))
        except ValueError as error:
            number = graph.batch_size or "any number"
            raise ValueError(
                f"{type(layer).__name__} {layer.name!r} does not take {number} of "
                f"images, to pass as batch_size: {error}"
            ) from error
        if any(tensor.shape[:1] != (batch,) for tensor in outputs):
            raise UnsupportedLayerError("its outputs' first axis is not the batch.")
    return [(None, *tensor.shape[1:]) for tensor in outputs]


def _name_outputs(graph, outputs, names, inputs, channels_first):
    """Gives the outputs their layout and Keras' names."""
    graph.scope = "outputs"
    given = {value.name: value.name for value in inputs}
    orders = [
        _layout(name, value.shape, channels_first)
        for value, name in zip(outputs, names, strict=True)
    ]
    # Before any is renamed: two may be one tensor, in other orders.
    arranged = [graph.arrange(*ends) for ends in zip(outputs, orders, strict=True)]
    result = []
    for value, order, found, name in zip(outputs, orders, arranged, names, strict=True):
        name = graph.unique(name)
        if found in given:  # An input, or an output twice, cannot be renamed.
            node = helper.make_node("Identity", [given[found]], [name], name=name)
            graph.nodes.append(node)
        else:
            for node in graph.nodes:
                for ends in (node.input, node.output):
                    ends[:] = [name if end == found else end for end in ends]
            given[found] = name
        result.append(dataclasses.replace(value, name=name, order=order))
    return result


def _assemble(graph, name, inputs, outputs):
    def info(value):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        shape = [
            (graph.batch_size or "batch", *value.shape[1:])[i] for i in value.order
        ]
        return helper.make_tensor_value_info(value.name, kind, shape)

    used = {name for node in graph.nodes for name in node.input}
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [info(value) for value in inputs],
            [info(value) for value in outputs],
            [
                numpy_helper.from_array(_standard(array), name)
                for name, array in graph.constants.items()
                if name in used
            ],
        ),
        producer_name="keras_spos",
        opset_imports=[helper.make_opsetid("", graph.opset)],
    )
    # The newest file format would shut out runtimes that know these operators.
    proto.ir_version = helper.find_min_ir_version_for(proto.opset_import)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _standard(array):
    if array.dtype in ("bool", "int8", "uint8"):
        return array
    integer = np.issubdtype(array.dtype, np.integer)
    return np.asarray(array, "int64" if integer else "float32")
