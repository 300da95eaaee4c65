"""Tiny supernets, samplers and data that the tests share.

Builders name every layer, so that two nets of one builder differ in nothing.
"""

import contextlib
import unittest.mock

import keras
import numpy as np
from keras import layers

from keras_spos import ChoiceBlock, Decision, Supernet
from keras_spos.layers import SearchableLayer

SHAPE = (6, 6, 3)
CLASSES = 4


@keras.saving.register_keras_serializable("tests")
class FromList:
    """Draws from a list of paths; what is not listed is never sampled."""

    def __init__(self, paths):
        self.paths = [tuple(p) for p in paths]

    def draw(self, space, rng):
        return self.paths[rng.integers(len(self.paths))]

    def get_config(self):
        return {"paths": [list(p) for p in self.paths]}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def convolution(name, kernel_size, filters=4, **arguments):
    """A list of layers: convolution, batch norm, activation."""
    return [
        layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            use_bias=False,
            name=f"{name}_conv",
            **arguments,
        ),
        layers.BatchNormalization(momentum=0.9, name=f"{name}_norm"),
        layers.ReLU(name=f"{name}_relu"),
    ]


def residual(name, filters=4, **arguments):
    """A small graph: a depthwise and a pointwise convolution beside a shortcut."""
    inputs = keras.Input((*SHAPE[:2], filters), name=f"{name}_in")
    x = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_dw")(inputs)
    x = layers.BatchNormalization(center=False, scale=False, name=f"{name}_dwnorm")(x)
    x = layers.Conv2D(filters, 1, name=f"{name}_pw", **arguments)(x)
    x = layers.BatchNormalization(momentum=0.8, name=f"{name}_pwnorm")(x)
    return keras.Model(inputs, layers.Add(name=f"{name}_add")([inputs, x]), name=name)


def options(name, kernel_size=5, **arguments):
    """Four options of different structure; the last has no weights."""
    return [
        convolution(f"{name}_k3", 3, **arguments),
        convolution(f"{name}_k5", kernel_size, **arguments),
        residual(f"{name}_residual", **arguments),
        layers.Identity(name=f"{name}_skip"),
    ]


@keras.saving.register_keras_serializable("tests")
class Grid(SearchableLayer):
    """Two decisions, a kernel size and an activation, each pair with its own layers."""

    def __init__(self, filters, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.filters = filters
        self.cells = [
            keras.Sequential(
                [
                    layers.Conv2D(filters, size, padding="same", name=f"{name}_{size}"),
                    layers.BatchNormalization(name=f"{name}_norm_{size}"),
                    layers.Activation(activation, name=f"{name}_{activation}_{size}"),
                ],
                name=f"{name}_{size}_{activation}",
            )
            for size in (1, 3)
            for activation in ("tanh", "relu", "sigmoid")
        ]

    @property
    def decisions(self):
        return (
            Decision(f"{self.name}_kernel", ("1", "3")),
            Decision(f"{self.name}_activation", ("tanh", "relu", "sigmoid")),
        )

    def picked(self, choices):
        return self.cells[3 * choices[0] + choices[1]]

    def build(self, input_shape):
        for cell in self.cells:
            if not cell.built:
                cell.build(input_shape)
        self.add_choice_weights()

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def small_net(sampler=None, seed=0, dropout=0.0, l2=None, blocks=2, kernel_size=5):
    """A chain: stem, choice blocks with four options each, head.

    Another `kernel_size` makes another network, with options of the same names.
    """
    arguments = {"kernel_regularizer": keras.regularizers.L2(l2)} if l2 else {}
    x = inputs = keras.Input(SHAPE, name="image")
    for layer in convolution("stem", 3, **arguments):
        x = layer(x)
    for i in range(blocks):
        name = f"block_{i}"
        x = ChoiceBlock(
            options(name, kernel_size, **arguments),
            labels=("k3", "k5", "residual", "skip"),
            name=name,
        )(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
        x = layers.Dropout(dropout, name="dropout_too")(x)
    outputs = layers.Dense(CLASSES, name="classifier", **arguments)(x)
    return Supernet(inputs, outputs, name="small", sampler=sampler, seed=seed)


def dense_net(sampler=None, seed=0, **arguments):
    """The smallest supernet: vectors, two choices of two; starts in a moment."""
    x = inputs = keras.Input((3,), name="features")
    for i in range(2):
        x = ChoiceBlock(
            [
                layers.Dense(5, activation=activation, name=f"block_{i}_{activation}")
                for activation in ("tanh", "sigmoid")
            ],
            name=f"block_{i}",
        )(x)
    outputs = layers.Dense(CLASSES, name="classifier")(x)
    return Supernet(inputs, outputs, name="tiny", sampler=sampler, seed=seed)


def data(n=8, shape=SHAPE, seed=0):
    """Images and integer labels."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n, *shape)).astype("float32"),
        rng.integers(0, CLASSES, n).astype("int32"),
    )


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def randomize(model, seed=0, scale=0.3):
    """Gives every weight a value of its own; batch norm variances stay positive."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        value = rng.normal(size=variable.shape) * scale
        if "variance" in variable.path or "gamma" in variable.path:
            value = 1 + np.abs(value)
        variable.assign(value)
    return model


@contextlib.contextmanager
def undrawn_weights():
    """Inside, kernels are zeros: drawing those of a large net takes JAX a minute."""

    def zeros(self, shape, dtype=None):
        return keras.ops.convert_to_tensor(np.zeros(shape, dtype or "float32"))

    kinds = (keras.initializers.RandomNormal, keras.initializers.VarianceScaling)
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(unittest.mock.patch.object(kind, "__call__", zeros))
        yield


def values(variables):
    """Copies of the values of variables."""
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


def model_of(*graph, shape=(8, 7, 6)):
    """A model that runs its functions, or layers, one after the other."""
    x = inputs = keras.Input(shape, name="image")
    for function in graph:
        x = function(x)
    return randomize(keras.Model(inputs, x), scale=0.5)


def plain_model(shape, build):
    """A model without choices, ``build(inputs)``, with weights that are not negative.

    Variances are among them.
    """
    inputs = keras.Input(shape)
    model = keras.Model(inputs, build(inputs))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(size=w.shape) for w in model.get_weights()])
    return model


class Doubled(layers.BatchNormalization):
    """A batch norm of the user's, which computes something else."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


# Batch norms that the engine is to leave to Keras.
OTHER_NORMS = {
    "frozen": lambda: layers.BatchNormalization(trainable=False),
    "renorm": lambda: layers.BatchNormalization(renorm=True),
    "axis": lambda: layers.BatchNormalization(axis=1),
    "subclass": Doubled,
}
