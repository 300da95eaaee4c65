"""Models of functions of `keras.ops`, for the ONNX writer; see `models.model_of`."""

import numpy as np
from keras import layers, ops


def dealt(x):
    """Channels taken apart after a convolution, and the input's, into uneven parts."""
    pairs = layers.Reshape((8, 7, 3, 2))(layers.Conv2D(6, 1)(x))
    a, b = ops.unstack(pairs, axis=-1)
    c, d = ops.split(x, [2], axis=-1)
    e, f = ops.split(layers.Conv2D(4, 1)(x), 2, axis=-1)
    return layers.Conv2D(4, 1)(a), b, c, layers.Conv2D(4, 1)(d), layers.Add()([e, f])


def operations(x):
    """Functions instead of layers, before and after a convolution."""
    y = ops.relu(layers.Conv2D(6, 1)(x))
    z = ops.concatenate([ops.maximum(x, y), ops.minimum(y, 0.3)], axis=-1)
    z = ops.reshape(z, (-1, 8, 7, 3, 4))
    z = ops.transpose(z, (0, 1, 2, -1, 3))
    return [
        layers.Conv2D(2, 1)(ops.reshape(z, (-1, 8, 7, 12))),
        ops.mean(y, (1, 2)),
        ops.max(y, -1, keepdims=True),
        ops.sum(y, 1),
        ops.mean(ops.transpose(x, (0, 3, 2, 1)), -1),
    ]


def attention_by_hand(x):
    """Products of tensors, and of numbers; an einsum and a product of matrices."""
    x = ops.reshape(layers.Conv2D(4, 1)(x), (-1, 56, 4))
    scores = ops.einsum("nqc,nkc->nqk", x, ops.sqrt(ops.square(x) + 0.1))
    total = ops.exp(-ops.absolute(scores))
    y = ops.matmul(total / ops.sum(total, -1, keepdims=True), x)
    rows = np.linspace(-1, 1, 2 * 56, dtype="float32").reshape(2, 56)
    return ops.log(ops.square(y) + 1), ops.matmul(rows, y), y @ rows.reshape(4, 28)


def activations(x):
    x = layers.Conv2D(4, 1)(x)
    functions = ("gelu", "hard_sigmoid", "hard_silu", "relu6", "selu", "sigmoid")
    functions += ("silu", "softplus", "softsign", "tanh")
    outputs = [getattr(ops, name)(x) for name in functions]
    outputs += [ops.gelu(x, approximate=False), ops.softmax(x, axis=1)]
    return [*outputs, ops.leaky_relu(x, 0.3), ops.elu(x, 0.5)]


def more_and_fewer_axes(x):
    """Around a convolution, whose channels come first in the file."""
    y = ops.expand_dims(layers.Conv2D(3, 1)(x), (1, -1))
    z = layers.GlobalAveragePooling2D(keepdims=True)(ops.squeeze(y, (1, 5)))
    return y, ops.squeeze(z, (1, -2)), ops.expand_dims(ops.squeeze(z, 1), -2)


def positions(x):
    """Numbers that are no layer's: of each row, of each row and channel, of each."""
    row = np.linspace(-1, 1, 8, dtype="float32")[:, None, None]
    rows_and_channels = ops.convert_to_tensor(row * np.arange(3, dtype="float32"))
    y = layers.Conv2D(3, 1)(x) * rows_and_channels
    return x + row, y, y - np.float32(0.3)


def masks(x):
    """Of floats before and after a convolution, and of integers; two are outputs."""
    y = layers.Conv2D(6, 1)(x)
    large, small = ops.greater(y, 0.1), ops.less(x, y)
    whole = ops.cast(4 * x, "int32")
    even = ops.equal(whole, np.arange(6)) | (whole >= 2)
    chosen = ops.where(large & ~small, y, 0.0)
    row = ops.squeeze(ops.not_equal(whole, 0)[:, :1], 1)
    apart = row & ops.less_equal(whole[:, 0], 1)
    numbers = ops.cast(
        ops.transpose(ops.reshape(even, (-1, 7, 8, 6)), (0, 3, 1, 2)), "float32"
    )
    return chosen, layers.Conv2D(2, 1)(ops.where(large, -1.5, x)), whole, apart, numbers


OPERATIONS = {
    "dealt": [dealt],
    "operations": [operations],
    "attention_by_hand": [attention_by_hand],
    "functional_activations": [activations],
    "masks": [masks],
    "more_and_fewer_axes": [more_and_fewer_axes],
    "positions": [positions],
    "slices": [lambda x: layers.Conv2D(3, 1)(x)[:, 1:, :-1:2, 1::2]],
    "indices": [lambda x: layers.Conv2D(3, 1)(x)[:, 0, ::2, -1], lambda x: x[:, 2]],
    "ellipsis": [lambda x: x[..., :2], layers.Conv2D(2, 1)],
    "arithmetic": [lambda x: (x * 2 + x - 1.5) / 4],
}
