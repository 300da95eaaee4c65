"""Quantization-aware training of tf_keras models (tensorflow-model-optimization).

Example:
    >>> copy = tuned(copy, images, x, y, 1, 64, 1e-3)              # doctest: +SKIP
"""

import numpy as np

from keras_spos.optional import require

# What tfmot knows together with a batch norm after it.
_FOLDING = ("Conv2D", "Dense", "DepthwiseConv2D")

# Integers come out on the levels on which they went in.
_LEVELS_OF_INPUT = ("AveragePooling2D", "Maximum", "Minimum", "UpSampling2D")


def tuned(copy, images, x, y, epochs, batch_size, learning_rate):
    """Trains a `twin` with rounded weights and activations.

    Args:
        copy: What `tf_keras_twin.twin` returns.
        images: Representative images: activations begin with their ranges on them.
        x: Images to train on.
        y: Their labels.
        epochs: Number of epochs.
        batch_size: Images in a batch.
        learning_rate: Of SGD with momentum 0.9.

    Returns:
        A `tf_keras.Model` that TensorFlow Lite's converter takes.
    """
    import tf_keras

    tfmot = require("tensorflow_model_optimization", "'keras_spos[int8]'")
    tools = tfmot.quantization.keras
    AsItIs, Output = _configs(tools)

    def annotate(layer):
        config = None
        if getattr(layer, "moves", False) or type(layer).__name__ in _LEVELS_OF_INPUT:
            config = AsItIs()
        elif not _known(layer):
            config = Output()
        return tools.quantize_annotate_layer(layer, config)

    kinds = {type(layer).__name__: type(layer) for layer in copy.layers}
    scope = {"AsItIs": AsItIs, "Output": Output}
    if "Operation" in kinds:
        scope["Operation"] = kinds["Operation"]
    with tools.quantize_scope(scope):
        annotated = tf_keras.models.clone_model(copy, clone_function=annotate)
        model = tools.quantize_apply(annotated)
    for wrapper in model.layers:
        if not getattr(wrapper, "layer", wrapper).trainable:
            # tfmot trains all that it rounds.
            wrapper._non_trainable_weights += wrapper._trainable_weights
            wrapper._trainable_weights.clear()
    _set_ranges(model, copy, images)
    model.compile(
        tf_keras.optimizers.SGD(learning_rate, momentum=0.9),
        tf_keras.losses.SparseCategoricalCrossentropy(
            from_logits=not _are_probabilities(copy.predict(images, verbose=0))
        ),
    )
    x = np.asarray(x, "float32")
    model.fit(x, np.asarray(y), batch_size=batch_size, epochs=epochs, verbose=0)
    return model


def _are_probabilities(outputs):
    """Whether a model ends in a softmax, whatever that is made of."""
    return np.all(outputs >= 0) and np.allclose(outputs.sum(-1), 1, atol=1e-3)


def _configs(tools):
    """How layers are quantized that tfmot does not know, as two classes."""

    class AsItIs(tools.QuantizeConfig):
        """Not at all: what comes in is quantized already."""

        def get_weights_and_quantizers(self, layer):
            return []

        def get_activations_and_quantizers(self, layer):
            return []

        def set_quantize_weights(self, layer, quantize_weights):
            pass

        def set_quantize_activations(self, layer, quantize_activations):
            pass

        def get_output_quantizers(self, layer):
            return []

        def get_config(self):
            return {}

    class Output(AsItIs):
        """What comes out."""

        def get_output_quantizers(self, layer):
            quantizer = tools.quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
            return [quantizer]

    return AsItIs, Output


def _known(layer):
    """Whether tfmot has a way to quantize a layer where it is."""
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (  # noqa: E501
        default_8bit_quantize_registry as registry,
    )

    if type(layer).__name__ == "BatchNormalization":
        before = layer.inbound_nodes[0].inbound_layers
        return (
            type(before).__name__ in _FOLDING
            and before.activation.__name__ == "linear"
            and len(before.outbound_nodes) == 1
        )
    return registry.Default8BitQuantizeRegistry().supports(layer)


def _set_ranges(model, copy, images):
    """Begins with the ranges that activations have in the float network.

    tfmot begins with -6 to 6, and a step takes a thousandth of the way from there.
    """
    import tensorflow as tf
    import tf_keras

    def of_each_image(reduce, layer):
        calls = [layer.get_output_at(i) for i in range(len(layer.inbound_nodes))]
        return [reduce(x, range(1, len(x.shape))) for x in tf.nest.flatten(calls)]

    ends = {
        layer.name: [of_each_image(r, layer) for r in (tf.reduce_min, tf.reduce_max)]
        for layer in copy.layers
    }
    ranges = tf_keras.Model(copy.input, ends).predict(images, verbose=0)
    for wrapper in model.layers:
        name = getattr(wrapper, "layer", wrapper).name
        if name not in ranges:
            continue
        lowest, highest = ranges[name]
        for weight in wrapper.weights:
            kind = weight.name.split("/")[-1].split(":")[0]
            # Of outputs, not of kernels; zero is in every range.
            if kind in ("output_min", "post_activation_min"):
                weight.assign(min(np.min(lowest), 0.0))
            elif kind in ("output_max", "post_activation_max"):
                weight.assign(max(np.max(highest), 0.0))
