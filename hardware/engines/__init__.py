"""Inference engines; each is imported only when it is used.

Example:
    >>> with open_engine("onnxruntime", "cpu") as engine:          # doctest: +SKIP
    ...     with engine.open("block.onnx") as runner:
    ...         print(runner.time(10))
"""

import os
import re
import shutil

from . import device as devices
from .base import Engine, EngineError, Runner

ENGINES = ("onnxruntime", "onnxruntime-tensorrt", "tensorrt", "trtexec")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "fp16", "int8")

__all__ = [
    "DEVICES",
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "EngineError",
    "Runner",
    "open_engine",
]


def open_engine(
    name,
    device="cpu",
    precision="fp32",
    threads=1,
    clock="wall",
    cache=None,
    files="fp32",
):
    """Opens an engine.

    Args:
        name: "onnxruntime" (its CPU or CUDA provider), "onnxruntime-tensorrt" (its
            TensorRT provider), "tensorrt" (its Python package, or trtexec where only
            that is installed) or "trtexec".
        device: "cpu" or "cuda".
        precision: "fp32", "fp16" or "int8": what the engine computes in.
        threads: Threads of a CPU engine.
        clock: "wall", or "cpu" for the processor time of the calling thread, which on a
            machine that is shared leaves out when others ran (one CPU thread only).
        cache: A folder for engines and timing caches of TensorRT, which go into a
            folder of their own for each GPU there.
        files: The precision that the files were exported in. TensorRT 11 and later
            compute in no other.

    Returns:
        An `Engine`, a context manager.

    Raises:
        EngineError: The engine cannot be had here; it says what to install.
    """
    for value, known, label in (
        (name, ENGINES, "engine"),
        (device, DEVICES, "device"),
        (precision, PRECISIONS, "precision"),
        (clock, ("wall", "cpu"), "clock"),
    ):
        if value not in known:
            raise ValueError(f"{label} is one of {known}. Received: {value!r}")
    if threads < 1:
        raise ValueError(f"Expected threads >= 1. Received: threads={threads}")
    if clock == "cpu" and (device != "cpu" or threads != 1):
        raise ValueError(
            "The cpu clock measures one CPU thread. Received: "
            f"device={device!r}, threads={threads}."
        )
    if device == "cuda":
        # As nvidia-smi counts GPUs, which says what is measured; CUDA's own order is
        # from the fastest to the slowest.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        if cache:
            # An engine that was built on another GPU may run, and be slower.
            gpu = re.sub(r"\W+", "-", devices.gpu()["device"])
            cache = os.path.join(cache, gpu)
    if name.startswith("onnxruntime"):
        from .onnx_runtime import OnnxRuntime

        provider = "tensorrt" if name.endswith("tensorrt") else device
        return OnnxRuntime(provider, device, precision, threads, clock, cache)
    if device != "cuda":
        raise ValueError(f"{name} runs on device 'cuda'. Received: {device!r}")
    from .trtexec import Trtexec

    if name == "tensorrt":
        from .tensor_rt import TensorRT

        if TensorRT.is_installed() or not shutil.which("trtexec"):
            return TensorRT(precision, cache, files)
    return Trtexec(precision, cache, files)
