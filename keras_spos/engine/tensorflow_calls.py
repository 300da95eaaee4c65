"""Calls traced TensorFlow functions: cheaply, and ahead of the device.

A call returns tensors that may not have been computed yet. Asking one for its shape
would wait for it, so functions note the shapes of what they return.
"""

import contextlib
import copy

import tensorflow as tf
from tensorflow.python.eager import context, executor


class Compiled:
    """A concrete function, called with a flat list of tensors.

    Args:
        concrete: The concrete function.
        keep_captures: Whether to append what it captures to the tensors.
        parallel: Whether its operations may run side by side, as the two gradients of
            a convolution can. For a chain of operations, starting that costs more than
            it saves.
    """

    def __init__(self, concrete, keep_captures=True, parallel=False):
        self.concrete = concrete
        self.types = [t.dtype for t in concrete.outputs]
        self.captures = list(concrete.captured_inputs) if keep_captures else []
        # The raw op, whose operations run in turn on its own thread, leaves XLA out.
        xla = bool(concrete.function_def.attr["_XlaMustCompile"].b)
        self.by_name = parallel or xla
        self._shapes = {}

    def __call__(self, tensors):
        """Outputs as a flat list."""
        tensors = [*tensors, *self.captures]
        if self.by_name:
            return context.context().call_function(
                self.concrete.name, tensors, len(self.types)
            )
        return tf.raw_ops.StatefulPartitionedCall(
            args=tensors, Tout=self.types, f=self.concrete
        )

    def with_captures(self, captures):
        """The same function on other captured tensors."""
        other = copy.copy(self)
        other.captures = captures
        return other

    def note_shapes(self, inputs, outputs):
        """Notes the shapes of outputs where they follow from those of the inputs."""
        given = tuple(shape_of(x) for x in inputs)
        if given not in self._shapes:
            static = [y.shape for y in self.concrete.outputs[: len(outputs)]]
            self._shapes[given] = [
                tuple(y.shape) if s.rank and None not in s[1:] else None
                for y, s in zip(outputs, static, strict=True)
            ]
        for y, shape in zip(outputs, self._shapes[given], strict=True):
            y._noted_shape = shape


class Queue:
    """Runs what is called inside `queueing` in order, while Python goes on."""

    def __init__(self):
        self._executor = None

    @contextlib.contextmanager
    def queueing(self):
        """Inside, calls return before they have run.

        On leaving, all have run; what failed raises there or where its result is read.
        """
        if self._executor is None:
            self._executor = executor.new_executor(enable_async=True)
        try:
            with context.executor_scope(self._executor):
                yield
                self._executor.wait()
        except BaseException:
            with contextlib.suppress(tf.errors.OpError):
                self._executor.wait()
            self._executor.clear_error()
            raise


def shape_of(x):
    """A tensor's shape as a tuple, if possible without waiting for the tensor."""
    noted = getattr(x, "_noted_shape", None)
    return tuple(x.shape) if noted is None else noted


def shaped_as(x, result):
    """A result of the same shape as a tensor, with that shape noted."""
    result._noted_shape = getattr(x, "_noted_shape", None)
    return result
