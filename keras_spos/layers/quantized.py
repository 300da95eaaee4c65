"""Convolutions that compute with few bits, and one that offers several bit widths.

`QuantizedConv2D` quantizes its input (PACT) and its weight (DoReFa). It is what an
extracted network is made of. `ElasticQuantizedConv2D` holds the shared weight of a
mixed-precision supernet (SPOS, section 3, "Mixed-Precision Quantization Search").

Example:
    >>> layer = ElasticQuantizedConv2D((8, 16), 3, bits=[(1, 2), (4, 4)])
    >>> layer.at(width=0, bits=1)  # 8 filters, 4-bit weights and inputs
"""

import keras
from keras import layers

from keras_spos.layers.sliceable import SliceableConv2D
from keras_spos.quantizers import FLOAT, check_bits, dorefa, pact

# Reference implementations start the clipping range between 6 and 8.
ALPHA = 6.0


@keras.saving.register_keras_serializable("keras_spos")
class PACT(layers.Layer):
    """Clips to [0, alpha] and rounds to k bits; alpha is learned. Stands for a ReLU.

    Args:
        bits: The bit width, 1 to 8; 32 is a ReLU without alpha.
        alpha: Where alpha starts.
        alpha_regularizer: Alpha's own decay.
        **kwargs: Other arguments of a layer.
    """

    def __init__(self, bits, alpha=ALPHA, alpha_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.bits = check_bits(bits)
        self.alpha_start = float(alpha)
        self.alpha_regularizer = keras.regularizers.get(alpha_regularizer)

    def build(self, input_shape):
        """Creates alpha."""
        if self.bits != FLOAT:
            self.alpha = _add_alpha(self, "alpha")

    def call(self, inputs):
        """Quantizes."""
        if self.bits == FLOAT:
            return keras.ops.relu(inputs)
        return pact(inputs, self.alpha, self.bits)

    def compute_output_shape(self, input_shape):
        """The input's shape."""
        return input_shape

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "bits": self.bits,
            "alpha": self.alpha_start,
            "alpha_regularizer": keras.regularizers.serialize(self.alpha_regularizer),
        }


@keras.saving.register_keras_serializable("keras_spos")
class QuantizedConv2D(layers.Conv2D):
    """A convolution of a quantized input with a quantized weight.

    Args:
        filters: As for `keras.layers.Conv2D`.
        kernel_size: As for `keras.layers.Conv2D`.
        weight_bits: Bit width of the weight, 1 to 8 or 32.
        activation_bits: Bit width of the input, 1 to 8 or 32. Below 32, what is
            negative in the input counts as 0.
        alpha: Where the input's clipping range starts.
        alpha_regularizer: Its own decay.
        **kwargs: Other arguments of `keras.layers.Conv2D`.
    """

    # Those of Conv2D know kernel and bias alone.
    save_own_variables = layers.Layer.save_own_variables
    load_own_variables = layers.Layer.load_own_variables

    def __init__(
        self,
        filters,
        kernel_size,
        weight_bits=FLOAT,
        activation_bits=FLOAT,
        alpha=ALPHA,
        alpha_regularizer=None,
        **kwargs,
    ):
        super().__init__(filters, kernel_size, **kwargs)
        self.weight_bits = check_bits(weight_bits)
        self.activation_bits = check_bits(activation_bits)
        self.alpha_start = float(alpha)
        self.alpha_regularizer = keras.regularizers.get(alpha_regularizer)

    def build(self, input_shape):
        """Creates the weight, and alpha if the input is quantized."""
        super().build(input_shape)
        if self.activation_bits != FLOAT:
            self.alpha = _add_alpha(self, "alpha")

    def call(self, inputs):
        """Quantizes, and convolves."""
        if self.activation_bits != FLOAT:
            inputs = pact(inputs, self.alpha, self.activation_bits)
        kernel = dorefa(self.kernel, self.weight_bits)
        x = self.convolution_op(inputs, kernel)
        if self.use_bias:
            shape = (-1, 1, 1) if self.data_format == "channels_first" else (-1,)
            x = x + keras.ops.reshape(keras.ops.cast(self.bias, x.dtype), shape)
        return self.activation(x)

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "alpha": self.alpha_start,
            "alpha_regularizer": keras.regularizers.serialize(self.alpha_regularizer),
        }


@keras.saving.register_keras_serializable("keras_spos")
class ElasticQuantizedConv2D(SliceableConv2D):
    """A weight for several numbers of filters and several pairs of bit widths.

    All share the weight. Each bit width of the input has a clipping range of its own,
    which other bit widths leave alone.

    Args:
        filters: Numbers of filters, in increasing order.
        kernel_size: As for `keras.layers.Conv2D`.
        bits: Pairs (bit width of the weight, bit width of the input).
        alpha: Where the clipping ranges start.
        alpha_regularizer: Their own decay.
        **kwargs: Other arguments of `SliceableConv2D`.

    Call arguments:
        inputs: A tensor.
        width: Index into `filters`; the largest by default.
        bits: Index into `bits`; float by default.
    """

    # Those of Conv2D know kernel and bias alone.
    save_own_variables = layers.Layer.save_own_variables
    load_own_variables = layers.Layer.load_own_variables

    def __init__(
        self,
        filters,
        kernel_size,
        bits,
        alpha=ALPHA,
        alpha_regularizer=None,
        **kwargs,
    ):
        super().__init__(filters, kernel_size, **kwargs)
        self.bits = check_pairs(bits)
        self.alpha_start = float(alpha)
        self.alpha_regularizer = keras.regularizers.get(alpha_regularizer)

    def build(self, input_shape):
        """Allocates the weight, and alpha for each bit width of the input."""
        super().build(input_shape)
        activation_bits = sorted({a for _, a in self.bits if a != FLOAT})
        self.alphas = {str(a): _add_alpha(self, f"alpha_{a}") for a in activation_bits}

    def at(self, width=None, bits=None):
        """A `QuantizedConv2D`; a `Conv2D` in float."""
        weight_bits, activation_bits = self._pair(bits)
        return QuantizedConv2D.from_config(
            {
                **self._config_at(width),
                "weight_bits": weight_bits,
                "activation_bits": activation_bits,
                "alpha": self.alpha_start,
                "alpha_regularizer": self.alpha_regularizer,
            }
        )

    def weights_at(self, bits=None):
        """Kernel, bias if there is one, and the alpha of the input's bit width."""
        activation_bits = self._pair(bits)[1]
        sources = [self.kernel, self.bias] if self.use_bias else [self.kernel]
        if activation_bits != FLOAT:
            sources.append(self.alphas[str(activation_bits)])
        return sources

    def _pair(self, bits):
        return (FLOAT, FLOAT) if bits is None else self.bits[bits]

    def call(self, inputs, width=None, bits=None):
        """Quantizes, and convolves with the leading slice of the weight."""
        weight_bits, activation_bits = self._pair(bits)
        if activation_bits != FLOAT:
            alpha = self.alphas[str(activation_bits)]
            inputs = pact(inputs, alpha, activation_bits)
        return self.convolve(inputs, width, lambda w: dorefa(w, weight_bits))

    def compute_output_spec(self, inputs, width=None, bits=None):
        """Shape and type of the output at a width."""
        return super().compute_output_spec(inputs, width)

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(),
            "bits": [list(pair) for pair in self.bits],
            "alpha": self.alpha_start,
            "alpha_regularizer": keras.regularizers.serialize(self.alpha_regularizer),
        }


def check_pairs(pairs):
    """Checks pairs (weight bits, activation bits) and returns them as tuples."""
    pairs = [tuple(p) if isinstance(p, (tuple, list)) else (p,) for p in pairs]
    if not pairs or any(len(p) != 2 for p in pairs):
        raise ValueError(
            "Expected pairs (weight bits, activation bits), at least one. "
            f"Received: {pairs}"
        )
    return tuple((check_bits(w), check_bits(a)) for w, a in pairs)


def _add_alpha(layer, name):
    if layer.alpha_start <= 0:
        raise ValueError(f"Expected alpha above 0. Received: {layer.alpha_start}")
    return layer.add_weight(
        name=name,
        shape=(),
        initializer=keras.initializers.Constant(layer.alpha_start),
        regularizer=layer.alpha_regularizer,
    )
