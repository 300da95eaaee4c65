"""Turns a found float network into an int8 file for phones and microcontrollers.

Example:
    >>> report = to_int8(subnet, x_train[:500], "best.tflite",     # doctest: +SKIP
    ...                  training=(x_train, y_train), validation=(x_val, y_val))
    >>> report.accuracy_before, report.accuracy_after              # doctest: +SKIP
    (0.912, 0.909)
"""

import contextlib
import dataclasses
import os
import tempfile
import warnings

import keras
import numpy as np

from keras_spos.export import tf_keras_tuning, tflite_direct
from keras_spos.export.int8_arguments import (
    calibration_images,
    check_model,
    labelled_images,
)
from keras_spos.export.onnx_compare import in_float32
from keras_spos.export.onnx_export import to_onnx
from keras_spos.optional import require
from keras_spos.whole_file import whole_file

# Operators that hand numbers on as they are, and so are quantized like what they take.
_MOVES = ("Transpose", "Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze")

# No weights are as large, and what is added to leave something out is larger.
_HUGE = 1e6


@dataclasses.dataclass(frozen=True)
class Int8Report:
    """What was written.

    Attributes:
        path: The file.
        bytes: Its size.
        method: "quantization-aware training" or "post-training".
        twin_difference: Largest difference between the tf_keras twin and the model, as
            a share of the largest output; None where there is no twin.
        accuracy_before: Of the float model on the validation images, or None.
        accuracy_after: Of the file on them, or None.
    """

    path: str
    bytes: int
    method: str
    twin_difference: float | None
    accuracy_before: float | None
    accuracy_after: float | None


def to_int8(
    model,
    representative_data,
    path,
    training=None,
    validation=None,
    epochs=1,
    batch_size=64,
    learning_rate=1e-3,
):
    """Quantizes weights and activations of a stock model to 8 bits, and writes a file.

    A path that ends in ``.tflite`` is written by TensorFlow Lite's converter, for one
    image at a time; its outputs are called "output_0" and so on. With `training` (and
    on other backends than TensorFlow) it is written from a copy of the model in
    tf_keras, and first tuned by quantization-aware training
    (tensorflow-model-optimization); the model given is left as it is. The copy has
    convolutions of images, dense layers, batch norms, and whatever has no weights (of
    that, on other backends, the common layers alone); other layers are refused. A path
    that ends in ``.onnx`` is written by ONNX Runtime's post-training quantizer. Inputs
    stay what they are (from a copy, float32), and outputs float32. TensorFlow Lite
    rounds outputs to 256 levels, within the range that they had on the representative
    data.

    Args:
        model: A Functional model of one input, such as ``net.extract(path)``. With
            several outputs it is neither trained nor validated here.
        representative_data: Some hundred images as the model takes them, from which
            ranges of activations are measured: an array; or an iterable, such as a
            generator or a `tf.data.Dataset`, of images or batches, with or without
            labels. It is read until there are 1,000 images.
        path: The file to write; there is none if anything fails, and one that was there
            before stays.
        training: Images and integer labels, two arrays, for quantization-aware
            training, which begins with the ranges measured; TensorFlow Lite only.
            There is a label for each image, or for each pixel if outputs are images.
        validation: Likewise, to measure accuracy before and after.
        epochs: Length of quantization-aware training.
        batch_size: Its batch size.
        learning_rate: Its learning rate (SGD with momentum 0.9).

    Returns:
        An `Int8Report`.
    """
    path = os.path.abspath(path)
    check_model(model, path, training, validation)
    model = in_float32(model)
    images = calibration_images(representative_data, model)
    if training is not None:
        training = labelled_images(training, model, "training")
    if validation is not None:
        validation = labelled_images(validation, model, "validation")
    difference = before = after = None
    with whole_file(path) as temporary:
        if path.endswith(".onnx"):
            _write_onnx(model, images, temporary)
        else:
            tuning = None
            if training is not None:
                tuning = (*training, epochs, batch_size, learning_rate)
            difference = _write_tflite(model, images, temporary, tuning)
        if validation is not None:
            x, y = validation
            before = float(np.mean(model.predict(x, verbose=0).argmax(-1) == y))
            run = _run_onnx if path.endswith(".onnx") else _run_tflite
            after = float(np.mean(run(temporary, x).argmax(-1) == y))
    return Int8Report(
        path=path,
        bytes=os.path.getsize(path),
        method="post-training" if training is None else "quantization-aware training",
        twin_difference=difference,
        accuracy_before=before,
        accuracy_after=after,
    )


def _write_onnx(model, images, path):
    quantization = require("onnxruntime.quantization", "onnxruntime")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self, name):
            self.batches = iter([{name: x[None]} for x in images])

        def get_next(self):
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        floats = os.path.join(folder, "float.onnx")
        report = to_onnx(model, floats)
        (name,) = report.inputs
        quantization.quantize_static(
            floats,
            path,
            Reader(name),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_kept_in_float(floats),
        )
    _leave_outputs_as_they_are(path)


def _kept_in_float(path):
    """Names of the nodes for whose numbers 256 levels in one range are too few.

    Those that read huge numbers, such as masks of -1e9, and their sums; and RMS norms
    (see `onnx_norms`), whose squares have a range as wide again.
    """
    onnx = require("onnx")
    graph = onnx.load(path).graph
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    huge = {
        name
        for name, array in arrays.items()
        if array.dtype == "float32" and np.abs(array).max(initial=0.0) > _HUGE
    }
    first = [node for node in graph.node if huge & set(node.input)]
    sums = {name for node in first for name in node.output}
    kept = [n.name for n in graph.node if n in first or sums & set(n.input)]
    made = {name: node for node in graph.node for name in node.output}
    for root in graph.node:
        chain = [root]
        while chain[-1].op_type in ("Sqrt", "Add", "ReduceMean"):
            chain.append(made.get(chain[-1].input[0], onnx.NodeProto()))
        if [node.op_type for node in chain] == ["Sqrt", "Add", "ReduceMean", "Mul"]:
            readers = [n for n in graph.node if root.output[0] in n.input]
            kept += [node.name for node in [*chain, *readers]]
    return kept


def _leave_outputs_as_they_are(path):
    """Takes out the quantizers of a file's outputs, and with them their clipping.

    They would keep an output within the range that it had on the representative images,
    and save nothing: what comes after them is float32.
    """
    onnx = require("onnx")
    proto = onnx.load(path)
    graph = proto.graph
    made = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        node, user = made.get(output.name), None
        while node:
            name = node.input[0]
            if node.op_type == "DequantizeLinear" and name in made:
                name = made[name].input[0]
                if user:
                    user.input[0] = name
                else:
                    node.CopyFrom(
                        onnx.helper.make_node("Identity", [name], node.output)
                    )
            elif node.op_type in _MOVES:
                user = node
            else:
                break
            node = made.get(name)
    outputs = {output.name for output in graph.output}
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        used = outputs.union(*(node.input for node in graph.node))
        for node in [n for n in graph.node if n.op_type == kind]:
            if node.output[0] not in used:
                graph.node.remove(node)
    used = outputs.union(*(node.input for node in graph.node))
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _write_tflite(model, images, path, tuning):
    """Writes the file; returns how far the twin is from the model, None without one."""
    tf = require("tensorflow")
    with _quiet():
        if tuning is None and keras.backend.backend() == "tensorflow":
            contents, difference = tflite_direct.converted(model, images), None
        else:
            copy, difference = _checked_twin(model, images)
            if tuning is not None:
                copy = tf_keras_tuning.tuned(copy, images, *tuning)
            converter = tf.lite.TFLiteConverter.from_keras_model(copy)
            images = images.astype("float32")
            contents = tflite_direct.convert(converter, images, tuning is None)
    with open(path, "wb") as file:
        file.write(contents)
    if difference is None:
        tflite_direct.compare(contents, model, images[:8])
    return difference


def _checked_twin(model, images):
    """The model in tf_keras, and how far that is from it."""
    require("tf_keras", "'keras_spos[int8]'")
    from keras_spos.export.tf_keras_twin import largest_difference, twin

    copy = twin(model)
    difference = largest_difference(model, copy, images[:8])
    if not difference <= 1e-4:
        raise ValueError(
            f"The copy in tf_keras differs from the model by {difference:.3g} of "
            "the largest output. No file was written."
        )
    return copy, difference


def _run_tflite(path, images):
    tf = require("tensorflow")
    with _quiet():
        interpreter = tf.lite.Interpreter(model_path=path)
    (given,), (result,) = (
        interpreter.get_input_details(),
        (interpreter.get_output_details()),
    )
    interpreter.allocate_tensors()
    outputs = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None].astype(given["dtype"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(result["index"]))
    return np.concatenate(outputs)


def _run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@contextlib.contextmanager
def _quiet():
    # tf_keras and the converter warn about themselves.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
