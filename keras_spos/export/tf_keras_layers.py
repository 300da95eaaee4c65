"""Layers of tf_keras (Keras 2) that do what an operation of Keras 3 does.

They are those that quantization-aware training can round, and of which TensorFlow Lite
makes integers: factors and offsets of channels are depthwise convolutions of 1x1.
"""

import inspect

import keras
import numpy as np
from keras import layers
from keras.src.ops import core
from keras.src.ops import numpy as functions

# Layers that are alike in either Keras, and whose names and arguments are the same.
_ALIKE = (
    layers.Activation,
    layers.Add,
    layers.AveragePooling2D,
    layers.BatchNormalization,
    layers.Concatenate,
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.Cropping2D,
    layers.Dense,
    layers.DepthwiseConv2D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.MaxPooling2D,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Permute,
    layers.ReLU,
    layers.Reshape,
    layers.Softmax,
    layers.SpatialDropout2D,
    layers.Subtract,
    layers.UpSampling2D,
    layers.ZeroPadding2D,
)

# Activations that quantization-aware training knows inside of a layer.
_INSIDE = ("linear", "relu", "softmax", "sigmoid", "tanh")

# Layers of many tensors in which what two of them make would stay a float.
PAIRWISE = (
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
)

# Functions of two tensors that are layers, too.
_MERGES = {
    functions.Add: "Add",
    functions.Maximum: "Maximum",
    functions.Minimum: "Minimum",
    functions.Multiply: "Multiply",
    functions.Subtract: "Subtract",
}

# What hands numbers on as they are.
_MOVES = (
    layers.Identity,
    core.Unstack,
    functions.ExpandDims,
    functions.Flip,
    functions.GetItem,
    functions.Reshape,
    functions.Split,
    functions.Squeeze,
    functions.Swapaxes,
    functions.Transpose,
)


def counterparts(node, make, alone):
    """What does the same as a node of a graph.

    Args:
        node: The node.
        make: An `operation_maker`.
        alone: Whether no other node reads the node's first input.

    Returns:
        Layers of tf_keras, one to be called after the other, each with its weights as
        arrays.

    Raises:
        ValueError: There is none.
    """
    import tf_keras

    operation = node.operation
    kind = type(operation)
    if kind in _MERGES and len(node.input_tensors) == 2:
        return [(getattr(tf_keras.layers, _MERGES[kind])(), [])]
    shape = node.input_tensors[0].shape
    if kind is layers.Average and len(shape) == 4:
        share = 1 / len(node.input_tensors)
        return [(tf_keras.layers.Add(), []), _affine(shape[-1], share)]
    if kind in (layers.Rescaling, layers.Normalization):
        factors = _factors(operation, shape)
        return [_call(node, make) if factors is None else _affine(shape[-1], *factors)]
    if kind is layers.Activation:
        return _activation(operation.activation, operation.name, shape, make)
    if kind not in (*_ALIKE, layers.SeparableConv2D):
        return [_call(node, make)]
    weights = operation.get_weights()
    after, changed = [], {}
    function = getattr(operation, "activation", keras.activations.linear)
    if keras.activations.serialize(function) not in _INSIDE:
        shape = node.outputs[0].shape
        after = _activation(function, operation.name, shape, make)
        changed = {"activation": "linear"}
    if kind is layers.SeparableConv2D:
        first = {"activation": "linear", "use_bias": False}
        last = {"kernel_size": 1, "strides": 1, "dilation_rate": 1, **changed}
        own = [
            (_alike(operation, "DepthwiseConv2D", first), weights[:1]),
            (_alike(operation, "Conv2D", last), weights[1:]),
        ]
    else:
        own = [(_alike(operation, kind.__name__, changed), weights)]
    if kind is layers.BatchNormalization and len(shape) == 4:
        if not (alone and _folds(node.input_tensors[0])):
            own.insert(0, _affine(shape[-1], 1.0))
    return own + after


def pair_layer(operation):
    """The layer that makes one of two of the tensors that one of `PAIRWISE` takes."""
    import tf_keras

    name = type(operation).__name__
    return getattr(tf_keras.layers, "Add" if name == "Average" else name)()


def operation_maker():
    """A function that makes a tf_keras layer of a function of tensors."""
    import tf_keras

    class Operation(tf_keras.layers.Layer):
        """Calls a function."""

        known = []  # A config holds a place in it, as configs are compared and copied.

        def __init__(self, number, **kwargs):
            super().__init__(**kwargs)
            self.number = number
            self.function, self.moves = self.known[number]

        def call(self, inputs):
            values = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            return self.function(*values)

        def get_config(self):
            return {**super().get_config(), "number": self.number}

    def make(function, moves):
        Operation.known.append((function, moves))
        return Operation(len(Operation.known) - 1)

    return make


def _alike(operation, name, changed):
    """A layer of tf_keras with the arguments of one of Keras 3."""
    import tf_keras

    kind = getattr(tf_keras.layers, name)
    known = inspect.signature(kind).parameters
    config = {
        key: value
        for key, value in operation.get_config().items()
        if key in known
        and not key.endswith(("initializer", "regularizer", "constraint"))
    }
    return kind(**{**config, **changed})


def _folds(tensor):
    """Whether a batch norm of a tensor becomes a part of the kernel before it."""
    history = tensor._keras_history
    kinds = (
        layers.Conv2D,
        layers.Dense,
        layers.DepthwiseConv2D,
        layers.SeparableConv2D,
    )
    layer = history.operation
    linear = keras.activations.linear
    return type(layer) in kinds and layer.activation is linear


def _affine(channels, factor, offset=None):
    """Each channel times a factor, plus an offset: a depthwise convolution of 1x1."""
    import tf_keras

    # Constants: of a factor of 1/255, the gradients would be those of 255.
    layer = tf_keras.layers.DepthwiseConv2D(
        1, use_bias=offset is not None, trainable=False
    )
    weights = [np.broadcast_to(np.float32(factor), channels).reshape(1, 1, -1, 1)]
    if offset is not None:
        weights.append(np.broadcast_to(np.float32(offset), channels))
    return layer, weights


def _factors(operation, shape):
    """Factors and offsets of channels, or None if it is not channels that have them."""
    if type(operation) is layers.Rescaling:
        factor, offset = np.array(operation.scale), np.array(operation.offset)
    elif operation.invert:
        return None
    else:
        mean, variance = map(np.array, (operation.mean, operation.variance))
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
        factor, offset = 1 / deviation, -mean / deviation
    sizes = [np.size(x) for x in (factor, offset)]
    if len(shape) != 4 or not all(
        size == 1 or size == x.shape[-1] == shape[-1]
        for size, x in zip(sizes, (factor, offset), strict=True)
    ):
        return None
    return factor.ravel(), offset.ravel()


def _activation(function, name, shape, make):
    """The layers of an activation function."""
    import tf_keras

    known = keras.activations.serialize(function)
    if known in _INSIDE:
        return [(tf_keras.layers.Activation(known), [])]
    if known == "hard_sigmoid" and len(shape) == 4:
        six = tf_keras.layers.ReLU(6.0)  # Of Keras 2, it is another function.
        return [_affine(shape[-1], 1.0, 3.0), (six, []), _affine(shape[-1], 1 / 6)]
    return [(make(_of_keras(function, name), moves=False), [])]


def _call(node, make):
    """A layer that calls the operation itself."""
    operation = node.operation
    if type(operation) is functions.GetItem:
        match node.arguments.args[1]:
            case (rest, slice() as channels) if rest is ...:  # In any backend.
                return make(lambda x: x[..., channels], moves=True), []
    # What a `Normalization` reads are constants.
    if type(operation) is not layers.Normalization and getattr(
        operation, "weights", ()
    ):
        raise ValueError(
            f"{operation.name!r} is a {type(operation).__name__}, which has no "
            "counterpart here in tf_keras. Post-training quantization (without "
            "training=, or to a path that ends in .onnx) has more."
        )
    given = [id(tensor) for tensor in node.input_tensors]

    def call(*tensors):
        args, kwargs = node.arguments.fill_in(dict(zip(given, tensors, strict=True)))
        return operation(*args, **kwargs)

    return make(_of_keras(call, operation.name), type(operation) in _MOVES), []


def _of_keras(function, name):
    """A function of Keras 3 that is to be called on tensors of TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{name!r} has no counterpart in tf_keras. With KERAS_BACKEND=tensorflow "
            "it is called as it is."
        )
    return function
