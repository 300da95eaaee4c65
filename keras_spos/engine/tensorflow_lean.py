"""What `keras_spos.engine.lean` puts in the place of Keras' own on TensorFlow.

Measured on x86 CPUs (TensorFlow 2.21): the filter gradient of a depthwise convolution
costs as much as the forward pass up to a width of three, and ten times as much beyond;
with explicit padding, another kernel is run, three times as fast at stride 2 (and the
input's gradient six times as slow). Stacking two tensors in the last axis costs ten
times as much as adding them.
"""

import tensorflow as tf


def normalize(x, gamma, beta, epsilon):
    """Batch norm of images."""
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=tf.zeros([0], gamma.dtype),
        variance=tf.zeros([0], gamma.dtype),
        epsilon=epsilon,
        is_training=True,
    )
    # The op's variance is the unbiased estimate.
    count = tf.size(x, tf.int64) // tf.size(mean, tf.int64)
    count = tf.cast(count, variance.dtype)
    return y, mean, variance * ((count - 1) / count)


def multiply(x, kernel):
    """A 1x1 convolution of images, as a product of matrices."""
    given, made = kernel.shape[-2:]
    y = tf.reshape(x, [-1, given]) @ tf.reshape(kernel, [given, made])
    y = tf.reshape(y, tf.concat([tf.shape(x)[:-1], [made]], 0))
    return tf.ensure_shape(y, [*x.shape[:-1], made])


def depthwise(x, kernel, stride, padding):
    """A depthwise convolution, whose gradients are taken the cheapest way."""
    if x.dtype != tf.float32 or (stride == 1 and kernel.shape[1] <= 3):
        return tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], padding)
    if stride > 1:
        return _strided_depthwise(x, kernel, stride, padding)
    return _wide_depthwise(x, kernel, padding)


def _wide_depthwise(x, kernel, padding):
    """Of stride 1, whose filter gradient is taken three columns at a time."""
    options = {"strides": [1, 1, 1, 1], "padding": padding}

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(dy):
            dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **options
            )
            return dx, _filter_gradient(x, kernel.shape, dy, padding)

        y = tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options)
        return y, gradient

    return convolve(x, kernel)


def _filter_gradient(x, shape, dy, padding):
    height, width, *channels = shape
    if padding == "SAME":
        x = tf.pad(x, [(0, 0), *_same_paddings(x, shape, 1), (0, 0)])
    parts = []
    for first in range(0, width, 3):
        count = min(3, width - first)
        parts.append(
            tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x[:, :, first : first + dy.shape[2] + count - 1],
                filter_sizes=[height, count, *channels],
                out_backprop=dy,
                strides=[1, 1, 1, 1],
                padding="VALID",
            )
        )
    return tf.concat(parts, 1)


def _strided_depthwise(x, kernel, stride, padding):
    """With explicit padding: for it, the kernel that does not slow down is taken."""
    if padding == "SAME":
        rows, columns = _same_paddings(x, kernel.shape, stride)
    else:
        x, rows, columns = _before_padding(x)
    strides = [1, stride, stride, 1]
    explicit = {
        "strides": strides,
        "padding": "EXPLICIT",
        "explicit_paddings": [0, 0, *rows, *columns, 0, 0],
    }

    @tf.custom_gradient
    def convolve(x, kernel):
        height, width = x.shape[1:3]

        def gradient(dy):
            size = [height + sum(rows), width + sum(columns), x.shape[3]]
            # The other way round: here explicit padding is the slow one.
            dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.concat([tf.shape(x)[:1], size], 0),
                filter=kernel,
                out_backprop=dy,
                strides=strides,
                padding="VALID",
            )
            (top, _), (left, _) = rows, columns
            if (rows, columns) != ((0, 0), (0, 0)):
                dx = dx[:, top : top + height, left : left + width]
            dkernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x, filter_sizes=kernel.shape, out_backprop=dy, **explicit
            )
            return dx, dkernel

        y = tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **explicit)
        return y, gradient

    return convolve(x, kernel)


def _before_padding(x):
    """What was padded to give a tensor of a graph, and by how much: rows, columns.

    A convolution that pads by itself spares writing, keeping and cutting the padded
    copy. An operation whose result nobody uses is not run.
    """
    if not tf.is_symbolic_tensor(x) or x.op.type != "Pad":
        return x, (0, 0), (0, 0)
    paddings = tf.get_static_value(x.op.inputs[1])
    if paddings is None or paddings[[0, 3]].any():
        return x, (0, 0), (0, 0)
    rows, columns = (tuple(int(n) for n in pair) for pair in paddings[1:3])
    return x.op.inputs[0], rows, columns


def _same_paddings(x, shape, stride):
    """What "SAME" pads: ((top, bottom), (left, right))."""
    return tuple(
        _same_padding(given, -(-given // stride), kernel, stride)
        for given, kernel in zip(x.shape[1:3], shape[:2], strict=True)
    )


def _same_padding(given, made, kernel, stride):
    total = max((made - 1) * stride + kernel - given, 0)
    return total // 2, total - total // 2


@tf.custom_gradient
def _concatenate(*tensors):
    # TensorFlow's own gradient keeps the tensors, for their sizes.
    sizes = [x.shape[-1] for x in tensors]
    return tf.concat(tensors, -1), lambda dy: tf.split(dy, sizes, -1)


def concatenate(tensors):
    """Concatenates along the last axis."""
    return _concatenate(*tensors)


@tf.custom_gradient
def unstack(x):
    """Unstacks a last axis of 2."""

    def gradient(first, second):
        # A complex number is its real part, then its imaginary part.
        return tf.bitcast(tf.complex(first, second), tf.float32)

    return tf.unstack(x, axis=-1), gradient
