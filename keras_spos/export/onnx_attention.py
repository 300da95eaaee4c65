"""How multi-head attention is written in ONNX: five products of matrices."""

import keras
import numpy as np

from keras_spos.export.onnx_functions import UnsupportedLayerError

_PLAIN = (0, 1, 2)


def attention(
    g,
    layer,
    shape,
    query,
    value,
    key=None,
    use_causal_mask=False,
    attention_mask=None,
):
    """Writes a call of `MultiHeadAttention`; see `onnx_layers`."""
    key = value if key is None else key
    query, value, key = (g.cast(x, "float32") for x in (query, value, key))
    if any(len(x.shape) != 3 for x in (query, value, key)) or len(shape) != 3:
        raise UnsupportedLayerError("its inputs and output must have three axes.")
    for name in ("_sliding_window", "_use_gate"):
        if getattr(layer, name, None):
            raise UnsupportedLayerError(f"{name[1:]}={getattr(layer, name)}.")
    # [n, heads, queries, keys]
    queries = _heads(g, layer.query_dense, query, "query", (0, 2, 1, 3))
    keys = _heads(g, layer.key_dense, key, "key", (0, 2, 3, 1))
    values = _heads(g, layer.value_dense, value, "value", (0, 2, 1, 3))
    scale = g.constant(layer.key_dim**-0.5, "scale")
    scores = g.add("MatMul", [g.add("Mul", [queries, scale]), keys])
    mask = _mask(g, attention_mask, use_causal_mask, (query.shape[1], value.shape[1]))
    if mask:
        least = g.constant(-1e9, "least")
        scores = g.add("Where", [mask, scores, least])
    shares = g.add("Softmax", [scores], axis=-1)
    if mask and layer.dropout:
        # As Keras does then: a query that meets no key gets zeros, not a mean.
        shares = g.add("Where", [mask, shares, g.constant(0.0, "none")])
    met = g.add("MatMul", [shares, values])
    met = g.add("Transpose", [met], perm=[0, 2, 1, 3])
    width = layer.num_heads * layer.value_dim
    target = np.array([0, shape[1], width])  # 0: as it is
    met = g.add("Reshape", [met, g.constant(target, "shape")])
    return _project(g, layer.output_dense, met, (width, shape[2]), "output"), _PLAIN


def _mask(g, given, causal, size):
    """The name of [n, heads, queries, keys], True where they meet; None if all do."""
    names = []
    if given is not None:
        rank = len(getattr(given, "order", ()))
        if rank not in (3, 4):
            raise UnsupportedLayerError("a mask must be a tensor of 3 or 4 axes.")
        name = g.arrange(g.cast(given, "bool"), range(rank))
        if rank == 3:  # The same for each head.
            name = g.add("Unsqueeze", [name, g.constant(np.array([1]), "axes")])
        names.append(name)
    if causal:  # No query meets keys that come after it.
        names.append(g.constant(np.tri(*size, dtype=bool), "causal_mask"))
    if not names:
        return None
    return g.add("And", names) if len(names) == 2 else names[0]


def _heads(g, dense, x, label, order):
    """Projects, and parts what is projected into heads."""
    channels, heads, width = dense.kernel.shape
    size = (channels, heads * width)
    name = _project(g, dense, g.arrange(x, _PLAIN), size, label)
    target = np.array([0, x.shape[1], heads, width])
    name = g.add("Reshape", [name, g.constant(target, f"{label}_shape")])
    return g.add("Transpose", [name], perm=order)


def _project(g, dense, name, size, label):
    def constant(variable, kind, shape):
        array = keras.ops.convert_to_numpy(variable).reshape(shape)
        return g.constant(array, f"{label}_{kind}")

    name = g.add("MatMul", [name, constant(dense.kernel, "kernel", size)])
    if dense.bias is None:
        return name
    return g.add("Add", [name, constant(dense.bias, "bias", -1)])
