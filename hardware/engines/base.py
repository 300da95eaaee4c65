"""What every engine offers: it opens files, and times them."""

import numpy as np


class EngineError(RuntimeError):
    """An engine that cannot be had, or cannot run a file."""


class Engine:
    """A context manager that opens ONNX files.

    Subclasses define `open` and `describe`.
    """

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Gives back what the engine holds."""

    def open(self, path):
        """Opens a file and returns a `Runner`.

        Raises:
            EngineError: The engine cannot run the file.
        """
        raise NotImplementedError

    def describe(self):
        """What was measured on: device, driver, engine, engine_version, precision, ...

        Two measurements with equal descriptions may be mixed, others not.
        """
        raise NotImplementedError

    def clocks(self):
        """The device's clocks now, as a dict; None where they cannot be read."""
        return None


class Runner:
    """A context manager that times one file."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Gives back what the runner holds."""

    def time(self, runs):
        """Runs the file some times and returns how long each took, in ms."""
        raise NotImplementedError


def random_input(rng, shape, dtype):
    """An input to time a file with, which every network of that type can take."""
    dtype = np.dtype(dtype)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape).astype(dtype)
    if dtype.kind in "iu":
        # The one index that embeddings of every size have.
        return np.zeros(shape, dtype)
    if dtype == np.bool_:
        # A mask that leaves nothing out.
        return np.ones(shape, dtype)
    return rng.standard_normal(shape).astype(dtype)


def check_typed(version, precision, files):
    """Refuses what TensorRT 11 and later cannot: they take types from the file.

    Raises:
        EngineError: The precision is not the files' own.
    """
    if precision != files:
        advice = f"export blocks with --precision {precision}, or use an older one"
        if precision == "int8":
            advice = "int8 needs TensorRT 10 or older"
        raise EngineError(
            f"TensorRT {version} computes in the files' own types, {files}: {advice}. "
            f"Received: precision={precision!r}"
        )
