"""Writes a model of any layers as ONNX: tf2onnx traces its TensorFlow computation.

Example:
    >>> trace(model, "a.onnx", batch_size=1, opset=17)             # doctest: +SKIP
"""

import contextlib
import warnings

import keras
import numpy as np
import onnx

from keras_spos.graph import functional


def trace(model, path, batch_size, opset, channels_first=()):
    """Writes any model as an ONNX file; raises whatever tf2onnx does if it cannot."""
    names = functional(model).output_names
    inputs, outputs = _call(model, channels_first)
    signature = keras.tree.map_structure(
        lambda t: keras.InputSpec(
            shape=(batch_size, *t.shape[1:]), dtype=t.dtype, name=t.name
        ),
        inputs,
    )
    _teach_erfc()
    model = keras.Model(inputs, outputs)
    with warnings.catch_warnings(), _tensors_as_arrays(model):
        # Keras' patch of tf2onnx looks at np.object, which warns that it is gone.
        warnings.simplefilter("ignore", FutureWarning)
        model.export(
            path,
            format="onnx",
            verbose=False,
            input_signature=[signature],
            opset_version=opset,
        )
    # tf2onnx copies operations that it does not know, and reports success.
    onnx.checker.check_model(path)
    proto = onnx.load(path)
    # It makes inputs of tensors that are found elsewhere, such as in a list.
    received = [value.name for value in proto.graph.input]
    if len(received) != len(model.inputs):
        raise ValueError(
            f"Expected a file of inputs {[t.name for t in model.inputs]}. "
            f"Received: {received}"
        )
    _name_outputs(proto.graph, names)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _call(model, channels_first):
    """Inputs and outputs of a call, with images in the layout of the file."""

    def is_turned(tensor, name):
        return name in channels_first and len(tensor.shape) == 4

    def outer(tensor):
        if not is_turned(tensor, tensor.name):
            return tensor
        height, width, channels = tensor.shape[1:]
        shape = (channels, height, width)
        return keras.Input(shape, dtype=tensor.dtype, name=tensor.name)

    def inner(tensor, made):
        return made if made is tensor else keras.layers.Permute((2, 3, 1))(made)

    given = functional(model)._inputs_struct
    inputs = keras.tree.map_structure(outer, given)
    # Layers that augment images are traced as in training otherwise.
    outputs = model(keras.tree.map_structure(inner, given, inputs), training=False)
    if not any(map(is_turned, model.outputs, functional(model).output_names)):
        return inputs, outputs
    outputs = [
        keras.layers.Permute((3, 1, 2))(tensor) if is_turned(tensor, name) else tensor
        for tensor, name in zip(
            keras.tree.flatten(outputs), functional(model).output_names, strict=True
        )
    ]
    return inputs, outputs


@contextlib.contextmanager
def _tensors_as_arrays(model):
    """Makes constants of tensors that layers keep beside their weights.

    Such as what `Normalization` has learned by `adapt`: tf2onnx makes inputs of them.
    """
    kept = [
        (layer, name, value)
        for layer in model._flatten_layers()
        for name, value in vars(layer).items()
        if keras.ops.is_tensor(value) and not isinstance(value, keras.Variable)
    ]
    for layer, name, value in kept:
        setattr(layer, name, keras.ops.convert_to_numpy(value))
    try:
        yield
    finally:
        for layer, name, value in kept:
            setattr(layer, name, value)


def _teach_erfc():
    """Teaches tf2onnx what TensorFlow computes gelu with.

    erfc(x) = 1 - erf(x)
    """
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph, node, **kwargs):
            shapes, dtypes = node.output_shapes, node.output_dtypes
            graph.remove_node(node.name)
            one = graph.make_const(f"{node.name}/one", np.array(1, "float32"))
            erf = graph.make_node("Erf", node.input, shapes=shapes, dtypes=dtypes)
            graph.make_node(
                "Sub",
                [one.output[0], erf.output[0]],
                name=node.name,
                outputs=node.output,
                shapes=shapes,
                dtypes=dtypes,
            )


def _name_outputs(graph, names):
    """Gives the outputs of a traced graph, "Identity:0" and so on, Keras' names."""
    taken = {value.name for value in [*graph.input, *graph.initializer]}
    taken.update(name for node in graph.node for name in node.output)
    taken.difference_update(value.name for value in graph.output)
    new = {}
    for value, name in zip(graph.output, names, strict=True):
        unique, number = name, 1
        while unique in taken:  # As the input that it is, or an output twice.
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique)
        new[value.name] = unique

    def rename(graph):
        for value in graph.output:
            value.name = new.get(value.name, value.name)
        for node in graph.node:
            for ends in (node.input, node.output):
                ends[:] = [new.get(end, end) for end in ends]
            for attribute in node.attribute:  # What loops repeat, for example.
                for inner in (attribute.g, *attribute.graphs):
                    rename(inner)

    rename(graph)
