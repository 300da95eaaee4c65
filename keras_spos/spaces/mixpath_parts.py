"""Layers of MixPath's networks, with the first weights of the authors' released code.

Kernels are N(0, 2 / (k^2 output channels)), those of depthwise convolutions too, and
the classifier's are uniform within 1 / sqrt(classes).

Example:
    >>> kernel = depthwise(kernel_size=5, stride=2, l2=1e-5)
"""

from keras import initializers, layers

from keras_spos.spaces.parts import coupled_l2, padding_of, plain_convolution


def convolution(channels, kernel_size, stride=1, l2=0.0):
    """A convolution without bias; with a stride, `even_padding` goes before it."""
    return plain_convolution(channels, kernel_size, stride, l2, normal())


def depthwise(kernel_size, stride=1, l2=0.0):
    """A depthwise convolution without bias, likewise."""
    return layers.DepthwiseConv2D(
        kernel_size,
        stride,
        padding=padding_of(stride),
        use_bias=False,
        # Keras counts all channels as inputs of each, and one as its output.
        depthwise_initializer=normal("fan_in"),
        depthwise_regularizer=coupled_l2(l2),
    )


def classifier(num_classes, l2=0.0):
    """The last layer."""
    return layers.Dense(
        num_classes,
        kernel_initializer=initializers.VarianceScaling(1 / 3, "fan_out", "uniform"),
        kernel_regularizer=coupled_l2(l2),
        name="classifier",
    )


def normal(mode="fan_out"):
    """A new initializer: Keras' give equal weights to layers of equal shape."""
    return initializers.VarianceScaling(2.0, mode, "untruncated_normal")
