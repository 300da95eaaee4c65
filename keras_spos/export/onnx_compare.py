"""Does an ONNX file compute what its Keras model does? Runs both on random images."""

import contextlib
import functools

import keras
import numpy as np
from keras import ops

from keras_spos.export.onnx_reference import run
from keras_spos.extraction import copy_adapted
from keras_spos.graph import functional
from keras_spos.own_code import rebuild

# Near 1e-38 float32 has fewer digits, or none: TensorFlow makes such numbers zeros.
_SMALLEST = 1e-30


def compare(model, path, batch_size, seed, tolerance, channels_first=(), levels=()):
    """Refuses a file whose outputs are not its model's.

    An output may differ by `tolerance` times its largest number. Where it is so small
    beside what it is made of that float32 has less digits to give, it may differ by as
    much as it moves when every number in the model is moved by a tenth of `tolerance`.

    Each quantizer of activations is compared too: the activation that the model has
    there may be as far from what the file's quantizer gives as rounding takes it, half
    a level, and `tolerance` times the largest. From there the model goes on with the
    file's levels (see `onnx_reference`).

    Args:
        model: The model.
        path: The file.
        batch_size: The batch size of the file, or None.
        seed: Seed of random images.
        tolerance: The largest difference, as a share of the largest number.
        channels_first: Names of inputs and outputs in ONNX's layout.
        levels: `onnx_writer.Value`s of the levels of the file's quantizers.

    Returns:
        The largest difference of an output, and the largest number in one.
    """
    session = _session(path, levels)
    names = [tensor.name for tensor in session.get_inputs()]
    outputs = [tensor.name for tensor in session.get_outputs()]
    outputs = outputs[: len(outputs) - len(levels)]
    generator = np.random.default_rng(seed)
    differences, magnitudes = [], []
    for n in (1, 3) if batch_size is None else (batch_size,):
        arrays = [_random(generator, n, tensor, model) for tensor in model.inputs]
        fed = [
            _as_in_file(x, name, channels_first)
            for x, name in zip(arrays, names, strict=True)
        ]
        found = session.run(None, dict(zip(names, fed, strict=True)))
        reached = [
            x.transpose(np.argsort(value.order))
            for x, value in zip(found[len(outputs) :], levels, strict=True)
        ]
        reference = functools.partial(_reference, model, arrays, reached)
        expected, given = reference()
        checks = [
            (f"quantized inputs of layer {g.layer!r}", _distance(g, x), _largest(g.x))
            for g, x in zip(given, reached, strict=True)
        ]
        for name, layer, theirs, ours in zip(
            outputs, functional(model).output_names, expected, found, strict=False
        ):
            # Masks and integers, too.
            theirs, ours = theirs.astype("float32"), ours.astype("float32")
            theirs = _as_in_file(theirs, layer, channels_first)
            if not np.all(np.isfinite(theirs)):
                raise ValueError(
                    f"The model's outputs {name!r} are not finite for the random "
                    "images that the file would be compared on, of mean 0 and "
                    "deviation 1. Pass verify=False if it takes others."
                )
            if ours.shape != theirs.shape:
                raise ValueError(
                    f"ONNX Runtime gives shape {ours.shape}, the model {theirs.shape}."
                )
            differences.append(_largest(ours - theirs))
            magnitudes.append(_largest(theirs))
            checks.append((f"outputs {name!r}", differences[-1], magnitudes[-1]))
        _check(checks, tolerance, reference)
    return float(max(differences)), float(max(magnitudes))


def _check(checks, tolerance, reference):
    """Refuses what differs by too much: labels, differences and largest numbers."""
    moves = None
    for i, (label, difference, largest) in enumerate(checks):
        limit = tolerance * largest + _SMALLEST
        # Not "difference > limit", which not-a-number would pass.
        if not difference <= limit and moves is None:
            moves = _moves(reference, tolerance / 10)
        if not difference <= limit + (moves[i] if moves else 0.0):
            raise ValueError(
                f"ONNX Runtime's {label} differ from the model's by {difference:.3g} "
                f"(the largest is {largest:.3g}), more than tolerance={tolerance:g} "
                "of that. No file was written."
            )


def _moves(reference, noise):
    """How far what is compared moves when every number is moved by a share of it.

    Both by `run`, as what else may differ from the model's own call is no rounding.
    """
    still, moved = (
        [*(g.x for g in given), *outputs]
        for outputs, given in (reference(0.0), reference(noise))
    )
    return [
        _largest(a.astype("float32") - b) for a, b in zip(still, moved, strict=True)
    ]


def _reference(model, arrays, levels, noise=None):
    with _full_precision():
        if levels or noise is not None:
            return run(model, arrays, levels, noise or 0.0)
        # Called, as a subclass may compute something else than its graph.
        inputs = keras.tree.pack_sequence_as(functional(model)._inputs_struct, arrays)
        outputs = keras.tree.flatten(model(inputs, training=False))
    return [ops.convert_to_numpy(x) for x in outputs], []


def _distance(given, level):
    """How much farther than half a level activations are from where they were put."""
    clipped = np.clip(given.x, 0, given.alpha)
    beyond = np.abs(clipped - level * given.step) - given.step / 2
    return np.maximum(beyond, 0).max()


def _largest(x):
    return np.abs(x).max()


def _session(path, levels):
    """ONNX Runtime's, with levels as outputs after the file's own."""
    import onnx
    import onnxruntime

    if levels:
        proto = onnx.load(path)
        proto.graph.output.extend(onnx.ValueInfoProto(name=x.name) for x in levels)
        path = proto.SerializeToString()
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


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
    if tensor.dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
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
    """The model, or a copy in float32 if it takes or computes in another precision."""
    others = ("float16", "bfloat16", "float64")
    types = [x.compute_dtype for x in model._flatten_layers()]
    types += [keras.backend.standardize_dtype(x.dtype) for x in model.inputs]
    if not set(types) & set(others):
        return model

    def change(config):
        if isinstance(config, dict):
            return {key: change(value) for key, value in config.items()}
        if isinstance(config, (list, tuple)):
            return type(config)(change(value) for value in config)
        policies = (*others, *(f"mixed_{name}" for name in others))
        return "float32" if config in policies else config

    copy = rebuild(model, change(model.get_config()))
    for ours, theirs in zip(copy.inputs, model.inputs, strict=True):
        ours.name = theirs.name  # Keras takes the layer's, which may be another.
    copy.set_weights([w.astype("float32") for w in model.get_weights()])
    copy_adapted(copy, model)
    return copy
