"""Imports point one way, and heavy packages are imported where they are used."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_spos"
# Each part imports from the lines above its own, and from itself.
PARTS = [
    ["optional"],
    [
        "batches",
        "space",
        "data",
        "graph",
        "layer_flops",
        "losses",
        "numpy_initializers",
        "quantizers",
        "ranking",
        "scores",
        "weight_slice",
        "whole_file",
    ],
    ["own_code"],
    ["signatures"],
    ["costs", "layers", "tabular"],
    ["dependence", "graph_checks"],
    ["samplers", "counting", "engine", "extraction"],
    ["multi_path_samplers", "loss_head", "recalibration"],
    ["path_trainer"],
    ["supernet"],
    [
        "evaluation",
        "search",
        "callbacks",
        "spaces",
        "export",
        "population",
    ],
    ["plots"],
]
# What the library may not import at once; Keras itself imports some, where installed.
HEAVY = [
    "tensorflow",
    "torch",
    "onnx",
    "onnxruntime",
    "tf2onnx",
    "tensorrt",
    "tensorflow_datasets",
    "tensorflow_model_optimization",
    "tf_keras",
    "matplotlib.pyplot",
    "sklearn",
]
IMPORT = f"""
import sys, keras
before = set(sys.modules)
import keras_spos, keras_spos.search, keras_spos.spaces, keras_spos.data
print([name for name in {HEAVY} if name in sys.modules and name not in before])
print("tensorflow" in sys.modules)
"""


def part(name):
    """The part that a module's full name belongs to."""
    return name.split(".")[1]


def imported(tree):
    """Full names of the package's modules that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "keras_spos":
            names = [f"keras_spos.{alias.name}" for alias in node.names]
        else:
            names = [getattr(node, "module", None) or ""]
        yield from (n for n in names if n.startswith("keras_spos."))


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    own = part(".".join(file.relative_to(ROOT).with_suffix("").parts))
    lines = [i for i, line in enumerate(PARTS) if own in line]
    assert lines, f"Give {own!r} its place among the parts above."
    allowed = {own, *(name for line in PARTS[: lines[0]] for name in line)}
    wrong = [n for n in imported(ast.parse(file.read_text())) if part(n) not in allowed]
    assert not wrong


def every_import(tree):
    """First names of everything that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    "folder, strangers",
    [
        ("", {"hardware", "recipes", "benchmarks", "tests"}),
        # Algorithms hold no model.
        ("search", {"keras", "tensorflow", "jax"}),
    ],
)
def test_knows_nothing_of(folder, strangers):
    for file in (PACKAGE / folder).rglob("*.py"):
        assert not strangers & set(every_import(ast.parse(file.read_text()))), file


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_an_import_brings_no_heavy_package(backend):
    pytest.importorskip(backend)
    result = subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-2:] == ["[]", str(backend == "tensorflow")]
