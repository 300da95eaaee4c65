"""Writes TensorFlow Lite files of Keras 3 models, with ranges measured on images.

Example:
    >>> contents = converted(model, images)                        # doctest: +SKIP
"""

import re
import warnings

import keras
import numpy as np

_ONNX = "Post-training quantization to ONNX (a path that ends in .onnx) has more."


def converted(model, images):
    """The file of a model of one input, for one image at a time, as bytes.

    In its signature, outputs are called "output_0" and so on, in the model's order.

    Args:
        model: A model of the TensorFlow backend.
        images: Representative images, an array.

    Raises:
        ValueError: TensorFlow Lite has no counterpart of an operation, or a loop.
    """
    import tensorflow as tf

    weights = [
        [keras.ops.convert_to_numpy(v) for v in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def call(x):
        # As constants: the converter loses track of Keras' variables.
        values = keras.tree.map_structure(tf.constant, weights)
        outputs, _ = model.stateless_call(*values, x, training=False)
        return keras.tree.flatten(outputs)

    (given,) = model.inputs
    name = re.sub(r"\W", "_", given.name)  # A signature has no spaces.
    # Of an open batch, the device would have to compute shapes.
    spec = tf.TensorSpec((1, *given.shape[1:]), given.dtype, name=name)
    function = tf.function(call, autograph=False).get_concrete_function(spec)
    kinds = {operation.type for operation in function.graph.get_operations()}
    if kinds & {"While", "StatelessWhile"}:
        # Measuring ranges inside of one, the calibrator dies, and Python with it.
        raise ValueError(
            f"Expected a model without loops. Received: {model.name!r}, in which there "
            f"is one, such as an RNN's without unroll=True. {_ONNX}"
        )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    try:
        return convert(converter, images, measure=True)
    except Exception as error:
        reason, _, _ = str(error).partition("\n")
        raise ValueError(
            f"TensorFlow Lite does not take {model.name!r}: {reason} {_ONNX}"
        ) from error


def convert(converter, images, measure):
    """What a converter makes, in 8 bits.

    Args:
        converter: A `tf.lite.TFLiteConverter`.
        images: Representative images.
        measure: Whether ranges are measured on them, or the model knows its own.
    """
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if measure:
        converter.representative_dataset = lambda: ([x[None]] for x in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def compare(contents, model, images):
    """Warns if a file's outputs are far from the model's, as with masks of -1e9."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It is to move to another package.
        interpreter = tf.lite.Interpreter(model_content=contents)
    run = interpreter.get_signature_runner()
    (name,) = run.get_input_details()
    found = [run(**{name: x[None]}) for x in images]
    expected = keras.tree.flatten(model(images, training=False))
    for number, output in enumerate(expected):
        output = keras.ops.convert_to_numpy(output)
        own = np.concatenate([each[f"output_{number}"] for each in found])
        share = np.linalg.norm(own - output) / max(np.linalg.norm(output), 1e-30)
        if share > 0.3:
            warnings.warn(
                f"Output {number} of the file is off by {share:.0%} of the model's "
                "(root mean squares): 256 levels are too few for some of the numbers "
                "inside of it. Measure what that costs (validation=).",
                stacklevel=4,
            )
