"""Does an ONNX file compute what its Keras model does? Runs both on random images."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_spos.graph import functional


def compare(model, path, batch_size, seed, channels_first=()):
    """The largest difference between a file's and its model's outputs, and output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(seed)
    differences, magnitudes = [], []
    for n in (1, 3) if batch_size is None else (batch_size,):
        arrays = [_random(generator, n, tensor, model) for tensor in model.inputs]
        inputs = keras.tree.pack_sequence_as(functional(model)._inputs_struct, arrays)
        with _full_precision():
            expected = keras.tree.flatten(model(inputs, training=False))
        names = [tensor.name for tensor in session.get_inputs()]
        arrays = [
            _as_in_file(x, name, channels_first)
            for x, name in zip(arrays, names, strict=True)
        ]
        results = session.run(None, dict(zip(names, arrays, strict=True)))
        outputs = [tensor.name for tensor in session.get_outputs()]
        for name, ours, theirs in zip(outputs, results, expected, strict=True):
            theirs = _as_in_file(ops.convert_to_numpy(theirs), name, channels_first)
            if ours.shape != theirs.shape:
                raise ValueError(
                    f"ONNX Runtime gives shape {ours.shape}, the model {theirs.shape}."
                )
            differences.append(np.abs(ours - theirs).max())
            magnitudes.append(np.abs(theirs).max())
    # np.max, as max() may lose a not-a-number.
    return float(np.max(differences)), float(np.max(magnitudes))


def _as_in_file(array, name, channels_first):
    if name in channels_first and array.ndim == 4:
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return array


@contextlib.contextmanager
def _full_precision():
    """Makes GPUs multiply in float32; by default they take 10-bit mantissas (TF32)."""
    if keras.backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("float32"):
            yield
        return
    from tensorflow.config import experimental as config

    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


def _random(generator, n, tensor, model):
    shape = (n, *tensor.shape[1:])
    embeddings = [
        layer.input_dim
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    ]
    # Integers, whatever their type, may be words: of the smallest vocabulary.
    if embeddings or keras.backend.is_int_dtype(tensor.dtype):
        values = generator.integers(0, min([256, *embeddings]), shape)
        return values.astype(tensor.dtype)
    return generator.standard_normal(shape).astype(tensor.dtype)


def in_float32(model):
    """The model, or a copy in float32 if it computes in half precision."""
    half = ("float16", "bfloat16")
    if not any(x.compute_dtype in half for x in model._flatten_layers()):
        return model

    def change(config):
        if isinstance(config, dict):
            return {key: change(value) for key, value in config.items()}
        if isinstance(config, (list, tuple)):
            return type(config)(change(value) for value in config)
        policies = (*half, *(f"mixed_{name}" for name in half))
        return "float32" if config in policies else config

    config = keras.saving.serialize_keras_object(model)
    copy = keras.saving.deserialize_keras_object(change(config))
    copy.set_weights([w.astype("float32") for w in model.get_weights()])
    return copy
