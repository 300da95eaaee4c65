"""The leading part of a variable, as options of several widths share it.

An option of width 12 uses ``kernel[..., :12]`` of a kernel that is preallocated for the
largest width (SPOS, section 3, "channel number search").
"""

import contextlib

import keras
from keras import ops
from keras.src.backend.common import global_state


class WeightSlice:
    """Stands for ``variable[:shape[0], :shape[1], ...]``.

    Args:
        variable: The whole `keras.Variable`.
        shape: Shape of the leading part, no larger than the variable's.
    """

    def __init__(self, variable, shape):
        shape = tuple(int(n) for n in shape)
        whole = tuple(variable.shape)
        if len(shape) != len(whole) or any(
            not 0 < n <= m for n, m in zip(shape, whole, strict=True)
        ):
            raise ValueError(
                f"A slice of {variable.path!r} has a shape within {whole}. "
                f"Received: shape={shape}"
            )
        self.variable = variable
        self.shape = shape

    @property
    def dtype(self):
        """Type of the values."""
        return self.variable.dtype

    @property
    def path(self):
        """Path of the whole variable."""
        return self.variable.path

    @property
    def is_whole(self):
        """Whether the slice is the whole variable."""
        return self.shape == tuple(self.variable.shape)

    @property
    def index(self):
        """The slice as an index."""
        return tuple(slice(0, n) for n in self.shape)

    @property
    def value(self):
        """Current values."""
        whole = ops.convert_to_tensor(self.variable)
        return whole if self.is_whole else whole[self.index]

    def assign(self, value):
        """Sets the slice; the rest of the variable stays."""
        if not self.is_whole:
            whole = ops.convert_to_tensor(self.variable)
            value = ops.cast(value, whole.dtype)
            value = ops.slice_update(whole, (0,) * len(self.shape), value)
        self.variable.assign(value)


def whole(source):
    """The variable behind a variable or a `WeightSlice`."""
    return source.variable if isinstance(source, WeightSlice) else source


def is_part(source):
    """Whether this is a `WeightSlice` of less than the whole variable."""
    return isinstance(source, WeightSlice) and not source.is_whole


@contextlib.contextmanager
def placeholders():
    """Inside, layers make variables without values, to stand for slices of others.

    The layers of 20 blocks x 4 options x 8 widths have 7 times the weights that they
    share.
    """
    name = "uninitialized_variables"
    known = len(global_state.get_global_attribute(name, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Keras would give them values when the next scope ends.
        waiting = global_state.get_global_attribute(name, [])
        global_state.set_global_attribute(name, waiting[:known])
