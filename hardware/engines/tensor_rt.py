"""TensorRT through its Python package: builds engines, with a timing cache.

Written against the interfaces of TensorRT 8.6, 10.0, 10.16 and 11.4; **not run** with
any yet.
"""

import hashlib
import importlib.util
import os

import numpy as np

from . import device as devices
from .base import Engine, EngineError, Runner, check_typed, random_input
from .cuda import Cuda

# What the builder may use beside weights; blocks are small.
_WORKSPACE = 4 << 30


class TensorRT(Engine):
    """Builds an engine for each file, and keeps it on disk for the next round.

    INT8 engines get made-up ranges for all tensors: right for timing, not for results.

    Args:
        precision: "fp32", "fp16" or "int8"; the last two allow the slower types where
            they are faster. From version 11 on, the files' own.
        cache: A folder for built engines and the timing cache, or None.
        files: The precision that the files were exported in.
    """

    def __init__(self, precision, cache=None, files="fp32"):
        try:
            import tensorrt
        except ImportError as error:
            raise EngineError(
                "The tensorrt engine needs TensorRT's Python package (pip install "
                "tensorrt, or NVIDIA's installer), or the tool trtexec on the PATH."
            ) from error
        self.flags = {"fp32": (), "fp16": ("FP16",), "int8": ("FP16", "INT8")}[
            precision
        ]
        if not hasattr(tensorrt.BuilderFlag, "FP16"):
            check_typed(tensorrt.__version__, precision, files)
            self.flags = ()
        self.trt = tensorrt
        self.precision = precision
        self.cache = cache
        self.logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self.cuda = Cuda()
        try:
            self.builder = tensorrt.Builder(self.logger)
        except TypeError as error:  # What its bindings raise instead.
            raise EngineError(
                "TensorRT did not start; what it printed says why, such as no GPU or a "
                f"driver that is too old ({error})."
            ) from error
        if cache:
            os.makedirs(cache, exist_ok=True)

    @staticmethod
    def is_installed():
        """Whether the package is there."""
        return importlib.util.find_spec("tensorrt") is not None

    def describe(self):
        """See `Engine.describe`."""
        return {
            **devices.gpu(),
            "engine": "tensorrt",
            "engine_version": self.trt.__version__,
            "provider": None,
            "precision": self.precision,
            "threads": None,
            "clock": "cuda events",
        }

    def clocks(self):
        """Clocks now, where readable."""
        return devices.gpu_clocks()

    def open(self, path):
        """Builds the engine, or takes it from the cache."""
        plan = self._cached(path)
        if plan is None:
            plan = self._build(path)
            if self.cache:
                _write(self._plan_path(path), plan)
        return _Plan(self.trt, self.logger, self.cuda, plan)

    def _plan_path(self, path):
        with open(path, "rb") as file:
            content = hashlib.sha1(file.read()).hexdigest()[:16]
        name = f"{content}-{self.precision}-{self.trt.__version__}.plan"
        return os.path.join(self.cache, name)

    def _cached(self, path):
        if not self.cache or not os.path.exists(self._plan_path(path)):
            return None
        with open(self._plan_path(path), "rb") as file:
            return file.read()

    def _build(self, path):
        trt = self.trt
        builder = self.builder
        # Needed up to version 9, the only kind of network since.
        flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, self.logger)
        with open(path, "rb") as file:
            if not parser.parse(file.read()):
                errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
                raise EngineError(f"TensorRT cannot read {path}: {errors}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
        for name in self.flags:
            config.set_flag(getattr(trt.BuilderFlag, name))
        if self.precision == "int8":
            _set_ranges(network)
        timing = self._timing_cache(config)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(f"TensorRT could not build an engine for {path}.")
        if timing:
            _write(timing, bytes(config.get_timing_cache().serialize()))
        return bytes(plan)

    def _timing_cache(self, config):
        """Reuses what earlier builds timed; returns the cache's path."""
        if not self.cache:
            return None
        path = os.path.join(self.cache, f"timing-{self.trt.__version__}.cache")
        known = b""
        if os.path.exists(path):
            with open(path, "rb") as file:
                known = file.read()
        cache = config.create_timing_cache(known)
        # One of another driver is not taken, nor a damaged one.
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)
        return path


def _write(path, content):
    """Writes a file; it is complete or is not there."""
    with open(f"{path}.tmp", "wb") as file:
        file.write(content)
    os.replace(f"{path}.tmp", path)


class _Plan(Runner):
    """An engine with its memory on the device."""

    def __init__(self, trt, logger, cuda, plan):
        self.cuda = cuda
        # The runtime has to outlive the engine.
        self.runtime = trt.Runtime(logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise EngineError("TensorRT could not load the engine that it built.")
        self.context = self.engine.create_execution_context()
        self.stream, self.start, self.end = cuda.stream(), cuda.event(), cuda.event()
        self.memory = []
        rng = np.random.default_rng(0)
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            shape = tuple(self.engine.get_tensor_shape(name))
            dtype = trt.nptype(self.engine.get_tensor_dtype(name))
            if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                address = cuda.upload(random_input(rng, shape, dtype))
            else:
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                address = cuda.allocate(size)
            self.memory.append(address)
            self.context.set_tensor_address(name, address)

    def time(self, runs):
        """See `Runner.time`.

        Between events on the stream: what the GPU does, and its waiting where kernels
        are shorter than the host takes to launch the next.
        """
        result = []
        for _ in range(runs):
            self.cuda.record(self.start, self.stream)
            if not self.context.execute_async_v3(self.stream.value):
                raise EngineError("TensorRT failed to run the engine.")
            self.cuda.record(self.end, self.stream)
            result.append(self.cuda.milliseconds(self.start, self.end))
        return result

    def close(self):
        """Frees memory, stream and events."""
        for address in self.memory:
            self.cuda.free(address)
        self.memory = []
        self.context = self.engine = self.runtime = None
        self.cuda.call("cudaEventDestroy", self.start)
        self.cuda.call("cudaEventDestroy", self.end)
        self.cuda.call("cudaStreamDestroy", self.stream)


def _set_ranges(network):
    """Gives every tensor the range of -4 to 4."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        tensors += [layer.get_output(i) for i in range(layer.num_outputs)]
    for tensor in tensors:
        tensor.dynamic_range = (-4.0, 4.0)
