"""Layers of several widths that share one weight, allocated at the largest width.

A width uses the leading channels of the weight, ``w[..., :c_in, :c_out]`` (SPOS,
section 3, "Channel Number Search", Figure 3 (b)). The number of input channels is that
of the input; the number of output channels is picked.

Example:
    >>> layer = SliceableConv2D((4, 8, 16), kernel_size=1)
    >>> layer(images, width=0).shape[-1]                           # doctest: +SKIP
    4
    >>> layer.at(width=0)  # a stock Conv2D with 4 filters         # doctest: +SKIP
"""

from collections.abc import Iterable

import keras
from keras import layers, ops

from keras_spos.layers.elastic import ElasticLayer


@keras.saving.register_keras_serializable("keras_spos")
class SliceableConv2D(ElasticLayer, layers.Conv2D):
    """A convolution with several numbers of filters.

    Args:
        filters: Numbers of filters, in increasing order.
        kernel_size: As for `keras.layers.Conv2D`.
        kernel_initializer: An initializer, or one for each width. The last one draws
            the shared weight; the others are for networks that are trained anew.
        **kwargs: Other arguments of `keras.layers.Conv2D`, except `groups`.

    Call arguments:
        inputs: A tensor with at most as many channels as the layer was built for.
        width: Index into `filters`; the largest by default.
    """

    def __init__(
        self, filters, kernel_size, kernel_initializer="glorot_uniform", **kwargs
    ):
        self.widths = check_widths(filters)
        self.initializers = _each(kernel_initializer, len(self.widths))
        super().__init__(
            self.widths[-1],
            kernel_size,
            kernel_initializer=self.initializers[-1],
            **kwargs,
        )
        if self.groups != 1:
            raise ValueError(f"Expected groups=1. Received: groups={self.groups}")
        _check_channels_last(self)

    def at(self, width=None, bits=None):
        """A stock `Conv2D`."""
        return layers.Conv2D.from_config(self._config_at(width))

    def _config_at(self, width):
        width = -1 if width is None else width
        return {
            **layers.Conv2D.get_config(self),
            "filters": self.widths[width],
            "kernel_initializer": self.initializers[width],
        }

    def build(self, input_shape):
        """Allocates the weight for the largest width."""
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs, width=None):
        """Convolves with the leading slice of the weight."""
        return self.convolve(inputs, width)

    def convolve(self, inputs, width, change=lambda kernel: kernel):
        """Convolves with the leading slice of the weight, changed by a function."""
        channels, filters = _check_input(self, inputs), self._filters(width)
        x = self.convolution_op(inputs, change(self.kernel[..., :channels, :filters]))
        if self.use_bias:
            x = x + ops.cast(self.bias[:filters], x.dtype)
        return self.activation(x)

    def compute_output_spec(self, inputs, width=None):
        """Shape and type of the output at a width."""
        shape = layers.Conv2D.compute_output_shape(self, inputs.shape)
        return keras.KerasTensor(
            (*shape[:-1], self._filters(width)), dtype=self.compute_dtype
        )

    def _filters(self, width):
        return self.widths[-1 if width is None else width]

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "filters": list(self.widths),
            "kernel_initializer": _serialized(self.initializers),
        }


@keras.saving.register_keras_serializable("keras_spos")
class SliceableDense(ElasticLayer, layers.Dense):
    """A fully connected layer with several numbers of units.

    Args:
        units: Numbers of units, in increasing order.
        kernel_initializer: As for `SliceableConv2D`.
        **kwargs: Other arguments of `keras.layers.Dense`.

    Call arguments:
        inputs: A tensor with at most as many features as the layer was built for.
        width: Index into `units`; the largest by default.
    """

    def __init__(self, units, kernel_initializer="glorot_uniform", **kwargs):
        self.widths = check_widths(units)
        self.initializers = _each(kernel_initializer, len(self.widths))
        super().__init__(
            self.widths[-1], kernel_initializer=self.initializers[-1], **kwargs
        )

    def at(self, width=None, bits=None):
        """A stock `Dense`."""
        width = -1 if width is None else width
        return layers.Dense.from_config(
            {
                **layers.Dense.get_config(self),
                "units": self.widths[width],
                "kernel_initializer": self.initializers[width],
            }
        )

    def build(self, input_shape):
        """Allocates the weight for the largest width."""
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def call(self, inputs, width=None):
        """Multiplies by the leading slice of the weight."""
        features = _check_input(self, inputs)
        units = self.widths[-1 if width is None else width]
        x = ops.matmul(inputs, self.kernel[:features, :units])
        if self.use_bias:
            x = x + ops.cast(self.bias[:units], x.dtype)
        return x if self.activation is None else self.activation(x)

    def compute_output_spec(self, inputs, width=None):
        """Shape and type of the output at a width."""
        units = self.widths[-1 if width is None else width]
        return keras.KerasTensor((*inputs.shape[:-1], units), dtype=self.compute_dtype)

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "units": list(self.widths),
            "kernel_initializer": _serialized(self.initializers),
        }


@keras.saving.register_keras_serializable("keras_spos")
class SliceableDepthwiseConv2D(ElasticLayer, layers.DepthwiseConv2D):
    """A depthwise convolution that takes inputs of fewer channels than it has.

    Its arguments are those of `keras.layers.DepthwiseConv2D`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _check_channels_last(self)

    def at(self, width=None, bits=None):
        """A stock `DepthwiseConv2D`; its width is its input's."""
        return layers.DepthwiseConv2D.from_config(self.get_config())

    def build(self, input_shape):
        """Allocates the weight for the largest width."""
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs):
        """Convolves with the leading slice of the weight."""
        channels = _check_input(self, inputs)
        x = ops.depthwise_conv(
            inputs,
            self.kernel[:, :, :channels],
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        if self.use_bias:
            bias = self.bias[: channels * self.depth_multiplier]
            x = x + ops.cast(bias, x.dtype)
        return self.activation(x)


@keras.saving.register_keras_serializable("keras_spos")
class SliceableBatchNormalization(ElasticLayer, layers.BatchNormalization):
    """A batch norm that takes inputs of fewer channels than it has.

    In training mode it updates the statistics of the channels that it was given. Its
    arguments are those of `keras.layers.BatchNormalization`, of the last axis.
    """

    def __init__(self, axis=-1, **kwargs):
        super().__init__(axis, **kwargs)
        if self.axis != -1 or self.synchronized or self.renorm:
            raise ValueError(
                "Expected axis=-1, neither synchronized nor renorm. Received: "
                f"axis={self.axis}, {self.synchronized=}, {self.renorm=}"
            )

    def at(self, width=None, bits=None):
        """A stock `BatchNormalization`; its width is its input's."""
        return layers.BatchNormalization.from_config(self.get_config())

    def build(self, input_shape):
        """Allocates the weights for the largest width."""
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape))

    def call(self, inputs, training=None):
        """Normalizes with the leading slices of the weights."""
        channels = _check_input(self, inputs)
        # At least single precision, as in Keras.
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = self.moving_mean[:channels], self.moving_variance[:channels]
        if training and self.trainable:
            old = mean, variance
            axes = list(range(len(x.shape) - 1))
            mean, variance = ops.moments(x, axes)
            statistics = (self.moving_mean, mean), (self.moving_variance, variance)
            for (variable, new), before in zip(statistics, old, strict=True):
                moved = before * self.momentum + new * (1.0 - self.momentum)
                whole = ops.convert_to_tensor(variable)
                variable.assign(ops.slice_update(whole, (0,), moved))
        x = ops.batch_normalization(
            x,
            mean,
            variance,
            axis=-1,
            offset=self.beta[:channels] if self.center else None,
            scale=self.gamma[:channels] if self.scale else None,
            epsilon=self.epsilon,
        )
        return ops.cast(x, self.compute_dtype)


def check_widths(widths):
    """Checks numbers of channels and returns them as a tuple of integers."""
    widths = tuple(widths) if isinstance(widths, Iterable) else widths
    if not isinstance(widths, tuple) or not _are_widths(widths):
        raise ValueError(
            "Widths are a list of numbers of channels of at least 1, in increasing "
            f"order. Received: {widths}"
        )
    return tuple(int(w) for w in widths)


def _are_widths(numbers):
    increasing = all(a <= b for a, b in zip(numbers, numbers[1:], strict=False))
    return bool(numbers) and increasing and all(w == int(w) >= 1 for w in numbers)


def _check_input(layer, inputs):
    channels = inputs.shape[-1]
    kernel = getattr(layer, "kernel", None)
    known = (
        layer.moving_mean.shape[0]
        if kernel is None
        else kernel.shape[0 if len(kernel.shape) == 2 else 2]
    )
    if channels > known:
        raise ValueError(
            f"{layer.name!r} was built for at most {known} input channels. "
            f"Received: {channels}."
        )
    return channels


def _check_channels_last(layer):
    if layer.data_format != "channels_last":
        raise ValueError(
            f"Expected channels_last. Received: data_format={layer.data_format!r}"
        )


def _each(initializer, count):
    given = initializer if isinstance(initializer, (list, tuple)) else [initializer]
    if len(given) not in (1, count):
        raise ValueError(
            f"Expected one kernel_initializer, or one for each width ({count}). "
            f"Received: {len(given)}."
        )
    made = [keras.initializers.get(i) for i in given]
    return made * count if len(made) == 1 else made


def _serialized(initializers):
    if all(i is initializers[0] for i in initializers):
        initializers = initializers[:1]
    return [keras.initializers.serialize(i) for i in initializers]
