"""Device memory, a stream and events through the CUDA runtime library alone."""

import ctypes
import ctypes.util
import glob
import os
import sys

from .base import EngineError

_HOST_TO_DEVICE = 1


class Cuda:
    """The few calls of libcudart that timing an engine takes."""

    def __init__(self):
        self.runtime = _load()
        self.runtime.cudaGetErrorString.restype = ctypes.c_char_p

    def call(self, name, *arguments):
        """Calls a function and raises if it fails."""
        status = getattr(self.runtime, name)(*arguments)
        if status:
            text = self.runtime.cudaGetErrorString(status).decode()
            raise EngineError(f"{name} failed: {text}")

    def upload(self, array):
        """Copies a contiguous array to new device memory; returns its address."""
        address = self.allocate(array.nbytes)
        self.call(
            "cudaMemcpy",
            ctypes.c_void_p(address),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
            _HOST_TO_DEVICE,
        )
        return address

    def allocate(self, size):
        """Device memory; returns its address."""
        pointer = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(1, size)))
        return pointer.value

    def free(self, address):
        """Frees device memory."""
        self.call("cudaFree", ctypes.c_void_p(address))

    def stream(self):
        """A new stream."""
        return self._new("cudaStreamCreate")

    def event(self):
        """A new event."""
        return self._new("cudaEventCreate")

    def record(self, event, stream):
        """Records an event on a stream."""
        self.call("cudaEventRecord", event, stream)

    def milliseconds(self, start, end):
        """Waits for an event, and returns the time since another."""
        self.call("cudaEventSynchronize", end)
        elapsed = ctypes.c_float()
        self.call("cudaEventElapsedTime", ctypes.byref(elapsed), start, end)
        return elapsed.value

    def _new(self, name):
        handle = ctypes.c_void_p()
        self.call(name, ctypes.byref(handle))
        return handle


def _load():
    names = [ctypes.util.find_library("cudart"), "libcudart.so"]
    names += [f"libcudart.so.{version}" for version in (13, 12, 11)]
    for folder in sys.path:
        # Where pip's nvidia-cuda-runtime puts it.
        names += glob.glob(os.path.join(folder, "nvidia", "*", "lib", "libcudart.so*"))
    for name in filter(None, names):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise EngineError(
        "The CUDA runtime library (libcudart) was not found: install CUDA, or pip "
        "install nvidia-cuda-runtime"
    )
