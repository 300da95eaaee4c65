"""What is said twice, because tools cannot share it, is said alike."""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What only TensorFlow needs.
TENSORFLOW = {"tensorflow", "tensorflow-datasets", "importlib_resources", "tf2onnx"}


def name(requirement):
    return re.match(r"[\w-]+", requirement)[0]


def test_jax_needs_all_but_tensorflow():
    needed = {r for r in PROJECT["dependencies"] if name(r) not in TENSORFLOW}
    needed.update(PROJECT["optional-dependencies"]["jax"])
    lines = (ROOT / "requirements-jax.txt").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == needed


def test_one_version_of_the_linter():
    (linter,) = (r for r in PROJECT["optional-dependencies"]["dev"] if "ruff" in r)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall("rev: v(.*)", hooks) == [linter.removeprefix("ruff==")]
