"""What compiled functions take: tensors, and variables by their handles.

A function reads a variable in a tenth of the time that Python takes.
"""

import tensorflow as tf

from keras_spos.engine.tensorflow_calls import shape_of
from keras_spos.weight_slice import is_part, whole


class Arguments:
    """What a unit's functions are called with.

    Args:
        unit: The unit.
        inputs: Tensors.
        state: What the unit reads of its non-trainable variables.
    """

    def __init__(self, unit, inputs, state):
        self.inputs = inputs
        self.variables = refer(unit.trainable), state

    def flat(self):
        """All of them as one list."""
        trainable, state = self.variables
        return [*self.inputs, *trainable, *state]

    def key(self):
        """Arguments of equal keys fit the same trace, whatever their batch sizes."""
        trainable, state = self.variables
        return (
            tuple((t.dtype, shape_of(t)[1:]) for t in self.inputs),
            tuple(x.dtype == tf.resource for x in trainable),
            tuple(x.dtype == tf.resource for x in state),
        )

    def specs(self):
        """What a function ``f(inputs, trainable, state)`` is traced for."""
        return specs(self.inputs), *([_spec(x) for x in y] for y in self.variables)


def specs(tensors):
    """What a function that takes tensors of any batch size is traced for."""
    return [
        tf.TensorSpec([None, *t.shape[1:]], t.dtype) if t.shape.rank else _spec(t)
        for t in tensors
    ]


def _spec(tensor):
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def read(sources):
    """The values of variables and slices."""
    return [_read(v) for v in sources]


def refer(sources):
    """Variables' handles; the values of slices."""
    return [_refer(v) for v in sources]


def values(unit, trainable, state):
    """In a function: the values that its arguments are or refer to."""
    return [
        [_dereferenced(x, v) for x, v in zip(arguments, variables, strict=True)]
        for arguments, variables in (
            (trainable, unit.trainable),
            (state, unit.non_trainable),
        )
    ]


def _read(source):
    variable = whole(source).value
    if not hasattr(variable, "handle"):
        value = tf.convert_to_tensor(variable)
    else:
        value = tf.raw_ops.ReadVariableOp(
            resource=variable.handle, dtype=variable.dtype
        )
    if is_part(source):
        value = tf.slice(value, [0] * len(source.shape), source.shape)
    return value


def _refer(source):
    variable = whole(source).value
    if is_part(source) or not hasattr(variable, "handle"):
        return _read(source)
    return variable.handle


def _dereferenced(argument, source):
    if argument.dtype != tf.resource:
        return argument
    dtype = whole(source).value.dtype
    value = tf.raw_ops.ReadVariableOp(resource=argument, dtype=dtype)
    return tf.ensure_shape(value, source.shape)
