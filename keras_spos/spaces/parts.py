"""What the networks of several spaces are made of.

Example:
    >>> coupled_l2(4e-5)                  # the papers' weight decay of 4e-5
    >>> even_padding(kernel_size=5, stride=2)
"""

import keras
from keras import layers, ops


def coupled_l2(l2):
    """The papers' weight decay, which is added to the gradient; None for 0."""
    # Keras' L2(c) adds c w^2, whose gradient is 2 c w.
    return keras.regularizers.L2(l2 / 2) if l2 else None


def is_small(input_shape, argument):
    """Whether images have less than 64 pixels, as a default of `argument` depends on.

    Args:
        input_shape: Image shape (height, width, channels).
        argument: What takes the place of the default, for the error.
    """
    if None in input_shape[:2]:
        raise ValueError(
            f"Expected a {argument} for images of open sizes, on which its default "
            f"depends. Received: input_shape={input_shape}, {argument}=None"
        )
    return min(input_shape[:2]) < 64


def even_padding(kernel_size, stride):
    """Layers, none or one, that pad before a convolution with padding "valid".

    With stride 2, "same" would pad one side more than the other.
    """
    if stride == 1 or kernel_size == 1:
        return []
    return [layers.ZeroPadding2D(kernel_size // 2)]


def padded(x, kernel_size, stride):
    """What `even_padding` makes of a tensor."""
    for layer in even_padding(kernel_size, stride):
        x = layer(x)
    return x


def padding_of(stride):
    """The convolution's own padding, beside `even_padding`."""
    return "same" if stride == 1 else "valid"


def deal(x, parts):
    """Deals a tensor's channels out: i, n + i, 2n + i, ... for each i of n parts.

    This is a channel shuffle. Slices ``x[..., i::n]`` are the same, but TensorFlow's
    CPU kernels for them and their gradient take five times as long.
    """
    *size, channels = x.shape[1:]
    if None in size:
        return [x[..., i::parts] for i in range(parts)]
    x = layers.Reshape((*size, channels // parts, parts))(x)
    return ops.unstack(x, axis=-1)


def norm(affine=True, name=None):
    """A batch norm with PyTorch's default settings.

    Args:
        affine: Whether it has scale and offset.
        name: The layer's name.
    """
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=affine, scale=affine, name=name
    )


def plain_convolution(
    channels, kernel_size, stride=1, l2=0.0, initializer="he_normal", groups=1
):
    """A convolution without bias; with a stride, `even_padding` goes before it."""
    return layers.Conv2D(
        channels,
        kernel_size,
        stride,
        padding=padding_of(stride),
        groups=groups,
        use_bias=False,
        kernel_initializer=initializer,
        kernel_regularizer=coupled_l2(l2),
    )
