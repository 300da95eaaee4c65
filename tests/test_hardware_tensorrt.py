"""Engines of TensorRT, on stand-ins: what they ask of each version, and read of it.

The tool and the package cannot be had where tests run. The stand-in of trtexec takes
and writes what the tool's sources do, of versions 8.6, 10 and 11.
"""

import json
import os
import pathlib
import stat
import sys
import types

import numpy as np
import pytest

from hardware import engines
from hardware.engines import device

# Logs on stdout, errors on stderr; unknown options fail; times exclude warming up.
TRTEXEC = """#!{python}
import json, sys
version = {version}
words = dict(w.partition("=")[::2] for w in sys.argv[1:])
with open({asked!r}, "a") as file:
    file.write(json.dumps(words) + "\\n")
print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{{version}}] # trtexec")
known = {{"--onnx", "--saveEngine", "--loadEngine", "--timingCacheFile", "--duration",
    "--skipInference", "--iterations", "--warmUp", "--exportTimes", "--help",
    "--noDataTransfers", "--useSpinWait"}}
known |= {{"--noCudaGraph"}} if version >= 110000 else {{"--fp16", "--int8"}}
print("=== Model Options ===\\n" * 50)
if "--help" in words:
    sys.exit(0)
for unknown in set(words) - known:
    print(f"[11/27/2026-12:00:00] [E] Unknown option: {{unknown}}", file=sys.stderr)
    sys.exit(1)
if "--onnx" in words:
    if "broken" in words["--onnx"]:
        for why in ("ModelImporter.cpp:949: no such node", "Engine set up failed"):
            print(f"[11/27/2026-12:00:00] [E] {{why}}", file=sys.stderr)
        sys.exit(1)
    open(words["--saveEngine"], "w").close()
if "--exportTimes" in words:
    with open(words["--exportTimes"], "w") as file:
        file.write("[\\n")
        sep = "  "
        for i in range(int(words["--iterations"]) + 1):
            file.write(sep + "{{ ")
            sep = ", "
            file.write(f'"startEnqMs" : 1{{sep}}"h2dMs" : 0{{sep}}')
            file.write(f'"computeMs" : {{i / 10}}{{sep}}"d2hMs" : 0{{sep}}')
            file.write('"latencyMs" : 9 }}\\n')
        file.write("]\\n")
"""


def executable(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A function that puts a version of trtexec on the PATH, and one for its words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    asked = tmp_path / "asked"

    def install(version):
        text = TRTEXEC.format(python=sys.executable, version=version, asked=str(asked))
        executable(folder / "trtexec", text)

    return install, lambda: [
        json.loads(line) for line in asked.read_text().split("\n")[:-1]
    ]


@pytest.mark.parametrize("version", [8601, 100001, 101601, 110100])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_each_version_of_trtexec_times_a_file(version, precision, tool, tmp_path):
    install, words = tool
    install(version)
    file = tmp_path / "block.onnx"
    file.write_bytes(b"content")
    cache = str(tmp_path / "cache")
    with engines.open_engine(
        "trtexec", "cuda", precision, cache=cache, files=precision
    ) as engine:
        assert engine.describe()["engine_version"] == str(version)
        with engine.open(str(file)) as runner:
            assert runner.time(3) == [0.1, 0.2, 0.3]
        engine.open(str(file))  # The engine that was built is used again.
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"other content")
        with pytest.raises(engines.EngineError, match=r"failed \(1\): .*no such node"):
            engine.open(str(broken))
    _, build, timing, _ = words()
    assert ("--fp16" in build) == (precision == "fp16" and version < 110000)
    assert ("--noDataTransfers" in timing) == (version < 110000)


@pytest.mark.parametrize(
    "precision, files, message",
    [
        ("fp16", "fp32", "own types, fp32: export blocks with --precision fp16"),
        ("fp32", "fp16", "own types, fp16: export blocks with --precision fp32"),
        ("int8", "fp16", "int8 needs TensorRT 10 or older"),
    ],
)
def test_what_version_11_cannot_is_said_at_once(
    precision, files, message, tool, monkeypatch
):
    tool[0](110100)
    with pytest.raises(engines.EngineError, match=message):
        engines.open_engine("trtexec", "cuda", precision, files=files)
    monkeypatch.setitem(sys.modules, "tensorrt", package(11))
    monkeypatch.setattr("hardware.engines.tensor_rt.TensorRT.is_installed", lambda: 1)
    with pytest.raises(engines.EngineError, match=message):
        engines.open_engine("tensorrt", "cuda", precision, files=files)


def package(version, starts=True):
    """What the package's interface is, as far as opening goes."""
    flags = {"TF32": 1} | ({} if version >= 11 else {"FP16": 0, "INT8": 2})

    def builder(logger):
        if not starts:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return object()

    return types.SimpleNamespace(
        __version__=f"{version}.1.0",
        BuilderFlag=types.SimpleNamespace(**flags),
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda *_: None}),
        Builder=builder,
    )


@pytest.mark.parametrize("version, flags", [(10, ("FP16",)), (11, ())])
def test_the_package_takes_files_of_half_precision(version, flags, monkeypatch):
    monkeypatch.setattr("hardware.engines.tensor_rt.Cuda", object)
    monkeypatch.setattr("hardware.engines.tensor_rt.TensorRT.is_installed", lambda: 1)
    monkeypatch.setitem(sys.modules, "tensorrt", package(version))
    engine = engines.open_engine("tensorrt", "cuda", "fp16", files="fp16")
    assert engine.flags == flags
    monkeypatch.setitem(sys.modules, "tensorrt", package(version, starts=False))
    with pytest.raises(engines.EngineError, match="did not start.* no GPU"):
        engines.open_engine("tensorrt", "cuda", "fp16", files="fp16")


def test_the_package_times_indices_and_masks_that_every_network_takes():
    """As ONNX Runtime does: an embedding has no row for a random index."""
    from hardware.engines.tensor_rt import _Plan

    types_ = {"x": "float32", "words": "int64", "image": "uint8", "mask": "bool"}
    names, uploaded = [*types_, "output"], []
    engine = types.SimpleNamespace(
        num_io_tensors=len(names),
        get_tensor_name=lambda index: names[index],
        get_tensor_shape=lambda name: (50, 3),
        get_tensor_dtype=lambda name: np.dtype(types_.get(name, "float32")),
        get_tensor_mode=lambda name: "in" if name in types_ else "out",
        create_execution_context=lambda: types.SimpleNamespace(
            set_tensor_address=lambda name, address: None
        ),
    )
    trt = types.SimpleNamespace(
        Runtime=lambda logger: types.SimpleNamespace(
            deserialize_cuda_engine=lambda plan: engine
        ),
        nptype=lambda dtype: dtype.type,
        TensorIOMode=types.SimpleNamespace(INPUT="in"),
    )
    cuda = types.SimpleNamespace(
        stream=lambda: 0,
        event=lambda: 0,
        upload=uploaded.append,
        allocate=lambda size: None,
    )
    _Plan(trt, None, cuda, b"")
    x, words, image, mask = uploaded
    assert [str(array.dtype) for array in uploaded] == list(types_.values())
    assert abs(x.std() - 1) < 0.2 and not words.any() and mask.all()
    assert image.min() < 30 and image.max() > 225


def test_each_gpu_has_a_cache_of_its_own(tool, tmp_path, monkeypatch):
    """And it is the GPU that CUDA is shown, not the first there is."""
    tool[0](100001)
    executable(
        pathlib.Path(os.environ["PATH"].split(os.pathsep)[0]) / "nvidia-smi",
        f"#!{sys.executable}\nimport sys\n"
        "print('RTX 2, 1' if '--id=1' in sys.argv else 'RTX 1, 1\\nRTX 2, 1')\n",
    )
    folders = []
    for shown in ("", "1,0", "MIG-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        engine = engines.open_engine("trtexec", "cuda", cache=str(tmp_path / "cache"))
        folders.append(os.path.relpath(engine.cache, tmp_path))
        assert device.gpu()["device"].replace(" ", "-") == folders[-1].split("/")[1]
    assert folders == ["cache/RTX-1", "cache/RTX-2", "cache/RTX-1"]


def test_a_cached_engine_is_that_of_the_same_content(tmp_path):
    """ONNX Runtime would take one of the same names for it."""
    from hardware.engines.onnx_runtime import OnnxRuntime

    engine = OnnxRuntime.__new__(OnnxRuntime)
    engine.provider, engine.precision, engine.cache = "tensorrt", "fp16", str(tmp_path)
    file = tmp_path / "0.onnx"
    folders = []
    for content in (b"batch 1", b"batch 32", b"batch 1"):
        file.write_bytes(content)
        options = engine._provider_options(str(file))
        folders.append(options["trt_engine_cache_path"])
        assert os.path.isdir(folders[-1])
        assert options["trt_timing_cache_path"] == str(tmp_path)
    assert folders[0] == folders[2] != folders[1]
