"""TensorRT through its tool trtexec, where only that is installed.

Written against the sources of trtexec 8.6, 10.16 and 11.1; **not run** with any yet.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile

from . import device as devices
from .base import Engine, EngineError, Runner, check_typed

_FLAGS = {"fp32": (), "fp16": ("--fp16",), "int8": ("--fp16", "--int8")}
_TYPED = 110000  # Version 11.0.0, the first without flags of precision.


class Trtexec(Engine):
    """Builds an engine for each file, and times it in a process of its own.

    Args:
        precision: "fp32", "fp16" or "int8". From version 11 on, the files' own.
        cache: A folder for built engines and the timing cache; a temporary one if None.
        files: The precision that the files were exported in.
    """

    def __init__(self, precision, cache=None, files="fp32"):
        self.tool = shutil.which("trtexec")
        if not self.tool:
            raise EngineError(
                "The trtexec engine needs the tool trtexec on the PATH; it comes with "
                "TensorRT (NVIDIA's installer or container, in /usr/src/tensorrt/bin)."
            )
        self.version = self._version()
        self.typed = self.version.isdigit() and int(self.version) >= _TYPED
        if self.typed:
            check_typed(f"v{self.version}", precision, files)
        self.precision = precision
        self.temporary = None
        if not cache:
            self.temporary = tempfile.TemporaryDirectory()
            cache = self.temporary.name
        self.cache = cache
        os.makedirs(cache, exist_ok=True)

    def close(self):
        """Deletes what was temporary."""
        if self.temporary:
            self.temporary.cleanup()

    def describe(self):
        """See `Engine.describe`."""
        return {
            **devices.gpu(),
            "engine": "trtexec",
            "engine_version": self.version,
            "provider": None,
            "precision": self.precision,
            "threads": None,
            "clock": "trtexec's GPU compute time",
        }

    def clocks(self):
        """Clocks now, where readable."""
        return devices.gpu_clocks()

    def open(self, path):
        """Builds the engine, unless it is in the cache."""
        with open(path, "rb") as file:
            content = hashlib.sha1(file.read()).hexdigest()[:16]
        plan = os.path.join(
            self.cache, f"{content}-{self.precision}-{self.version}.trtexec"
        )
        if not os.path.exists(plan):
            self.run(
                f"--onnx={path}",
                f"--saveEngine={plan}.tmp",
                f"--timingCacheFile={os.path.join(self.cache, 'trtexec.cache')}",
                "--skipInference",
                *(() if self.typed else _FLAGS[self.precision]),
            )
            os.replace(f"{plan}.tmp", plan)
        return _Process(self, plan)

    def run(self, *arguments):
        """Runs the tool; the first errors that it logs are why it failed."""
        done = subprocess.run([self.tool, *arguments], capture_output=True, text=True)
        if done.returncode:
            said = done.stdout + done.stderr
            errors = [line for line in said.splitlines() if "[E]" in line]
            why = "; ".join(errors)[:400] or said[-400:]
            raise EngineError(f"trtexec failed ({done.returncode}): {why}")

    def _version(self):
        done = subprocess.run([self.tool, "--help"], capture_output=True, text=True)
        found = re.search(r"TensorRT v(\d+)", done.stdout + done.stderr)
        return found.group(1) if found else "unknown"


class _Process(Runner):
    def __init__(self, engine, plan):
        self.engine = engine
        self.plan = plan

    def time(self, runs):
        """See `Runner.time`; one enqueue each, in no version a CUDA graph."""
        flags = ("--noDataTransfers", "--useSpinWait")
        if self.engine.typed:  # That is the default there, and so are graphs.
            flags = ("--noCudaGraph",)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "times.json")
            self.engine.run(
                f"--loadEngine={self.plan}",
                f"--iterations={runs}",
                "--duration=0",
                "--warmUp=200",
                *flags,
                f"--exportTimes={path}",
            )
            with open(path) as file:
                return [line["computeMs"] for line in json.load(file)][-runs:]
