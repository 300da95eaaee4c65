"""ONNX Runtime, with its CPU, CUDA or TensorRT provider.

The TensorRT provider is used as its sources and documentation say (of ONNX Runtime from
1.17 on, which has `trt_timing_cache_path`), and **not run** yet.
"""

import hashlib
import os
import time

import numpy as np

from . import device as devices
from .base import Engine, EngineError, Runner, random_input

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_CLOCKS = {"wall": time.perf_counter_ns, "cpu": time.thread_time_ns}


class OnnxRuntime(Engine):
    """Opens sessions of one provider, and refuses another that it falls back to.

    Args:
        provider: "cpu", "cuda" or "tensorrt".
        device: "cpu" or "cuda".
        precision: "fp32", "fp16", or "int8" (the TensorRT provider alone, on files with
            quantizers). The CPU and CUDA providers compute in the files' own type.
        threads: Threads of the CPU provider.
        clock: "wall" or "cpu"; see `open_engine`.
        cache: A folder for the TensorRT provider's engines.
    """

    def __init__(self, provider, device, precision, threads, clock, cache):
        needed = "onnxruntime" if provider == "cpu" else "onnxruntime-gpu"
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                f"The onnxruntime engine needs it: pip install {needed}"
            ) from error
        if provider == "tensorrt" and device != "cuda":
            raise ValueError(
                f"onnxruntime-tensorrt runs on device 'cuda'. Received: {device!r}"
            )
        if provider != "cpu" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA and cuDNN, where pip installed them.
        if _PROVIDERS[provider] not in onnxruntime.get_available_providers():
            raise EngineError(
                f"This ONNX Runtime has no {_PROVIDERS[provider]}, only "
                f"{onnxruntime.get_available_providers()}: pip install {needed}"
            )
        if precision == "int8" and provider != "tensorrt":
            raise ValueError(
                "int8 is for onnxruntime-tensorrt, tensorrt and trtexec. "
                f"Received: the {provider} provider."
            )
        self.module = onnxruntime
        self.provider = provider
        self.precision = precision
        self.threads = threads
        self.clock = clock
        self.cache = cache

    def describe(self):
        """See `Engine.describe`."""
        on_cpu = self.provider == "cpu"
        where = {"device": devices.cpu_name(), "driver": None}
        return {
            **(where if on_cpu else devices.gpu()),
            "engine": "onnxruntime",
            "engine_version": self.module.__version__,
            "provider": _PROVIDERS[self.provider],
            "precision": self.precision,
            "threads": self.threads if on_cpu else None,
            "clock": self.clock,
        }

    def clocks(self):
        """Clocks now, where readable."""
        return devices.cpu_clocks() if self.provider == "cpu" else devices.gpu_clocks()

    def open(self, path):
        """Opens a session with random inputs that are where they are needed."""
        options = self.module.SessionOptions()
        options.log_severity_level = 3
        if self.provider == "cpu":
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
            options.execution_mode = self.module.ExecutionMode.ORT_SEQUENTIAL
        name = _PROVIDERS[self.provider]
        try:
            session = self.module.InferenceSession(
                path, options, providers=[(name, self._provider_options(path))]
            )
            # It falls back to the CPU with no more than a warning.
            if session.get_providers()[0] != name:
                raise EngineError(
                    f"ONNX Runtime did not start {name}; it fell back to "
                    f"{session.get_providers()[0]}. Its log says which library of "
                    "CUDA, cuDNN or TensorRT is missing."
                )
            return _Session(session, self.provider, _CLOCKS[self.clock])
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error

    def _provider_options(self, path):
        if self.provider != "tensorrt":
            return {}
        options = {
            "trt_fp16_enable": str(self.precision in ("fp16", "int8")),
            "trt_int8_enable": str(self.precision == "int8"),
        }
        if self.cache:
            # The provider knows a built engine by names of file and layers alone, which
            # networks of other sizes or batches have, too.
            with open(path, "rb") as file:
                content = hashlib.sha1(file.read()).hexdigest()[:16]
            folder = os.path.join(self.cache, content)
            os.makedirs(folder, exist_ok=True)
            options |= {
                "trt_engine_cache_enable": "True",
                "trt_engine_cache_path": folder,
                "trt_timing_cache_enable": "True",
                "trt_timing_cache_path": self.cache,
            }
        return options


class _Session(Runner):
    def __init__(self, session, provider, clock):
        self.session = session
        self.clock = clock
        self.binding = session.io_binding()
        place = "cpu" if provider == "cpu" else "cuda"
        rng = np.random.default_rng(0)
        for tensor in session.get_inputs():
            if any(not isinstance(size, int) for size in tensor.shape):
                raise EngineError(
                    f"Expected files of a fixed batch size. Received: {tensor.name} of "
                    f"shape {tensor.shape}."
                )
            array = _random(rng, tensor)
            if provider == "cpu":
                self.binding.bind_cpu_input(tensor.name, array)
            else:
                import onnxruntime

                value = onnxruntime.OrtValue.ortvalue_from_numpy(array, place, 0)
                self.binding.bind_ortvalue_input(tensor.name, value)
        for tensor in session.get_outputs():
            self.binding.bind_output(tensor.name, place)

    def time(self, runs):
        """See `Runner.time`."""
        clock, run, binding = self.clock, self.session.run_with_iobinding, self.binding
        synchronize = binding.synchronize_outputs
        result = []
        for _ in range(runs):
            start = clock()
            run(binding)
            synchronize()
            result.append((clock() - start) / 1e6)
        return result

    def close(self):
        """Frees the session."""
        self.binding = self.session = None


def _random(rng, tensor):
    kinds = {
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(uint8)": np.uint8,
        "tensor(int32)": np.int32,
        "tensor(int64)": np.int64,
        "tensor(bool)": np.bool_,
    }
    if tensor.type not in kinds:
        raise EngineError(f"Inputs are among {list(kinds)}. Received: {tensor.type}.")
    return random_input(rng, tensor.shape, kinds[tensor.type])
