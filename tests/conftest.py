"""Sets the backend up and holds what is slow to build.

`KERAS_BACKEND` chooses the backend; the same tests run on TensorFlow and on JAX.
"""

import json
import os
import pathlib
import sys
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if os.environ.get("KERAS_BACKEND") == "jax":
    # What equal nets compile to is kept, from test to test and from run to run.
    cache = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Tests compile much and compute little.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * (os.environ.get("KERAS_BACKEND") == "jax"),
)

import keras
import pytest
from models import undrawn_weights

# What computes the same on every backend, or nothing, is tested on TensorFlow alone.
SAME_ON_EVERY_BACKEND = [
    "configs",
    "costs",
    "half",
    "hardware_check",
    "hardware_command",
    "hardware_damaged",
    "hardware_measure",
    "hardware_tables",
    "int8",
    "int8_arguments",
    "macro_search_recipe",
    "mixpath_spaces",
    "mobile_spaces",
    "multi_path_samplers",
    "nasbench_costs",
    "own_code",
    "plots",
    "plots_mixpath",
    "plots_ranks",
    "plots_settings",
    "population",
    "quantized_spaces",
    "ranking",
    "ranking_recipes",
    "recipes",
    "search_benchmark",
    "shufflenet_costs",
    "spos_recipes",
    "tabular",
    "tflite",
    "width_spaces",
]
if os.environ.get("KERAS_BACKEND") == "jax":
    collect_ignore = [f"test_{name}.py" for name in SAME_ON_EVERY_BACKEND]


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    _begin = tf.data.Dataset.__iter__

    def _begin_untuned(dataset):
        """Where all cores are busy, a tuned iterator may take many seconds to end."""
        options = tf.data.Options()
        options.autotune.enabled = False
        return _begin(dataset.with_options(options))

    tf.data.Dataset.__iter__ = _begin_untuned


def pytest_runtest_setup(item):
    """Before fixtures: a test draws alike in every run, and unlike the others."""
    keras.utils.set_random_seed(zlib.crc32(item.nodeid.encode()))


@pytest.fixture
def mixed_precision():
    """A function that sets the global dtype policy until the test ends."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """Runs a recipe's smoke preset; returns its folder and its report's result."""

    def run(recipe, *words):
        folder = tmp_path / recipe.__name__
        words = ["--preset", "smoke", "--output-dir", str(folder), *words]
        monkeypatch.setattr(sys, "argv", [recipe.__name__, *words])
        recipe.main()
        return folder, json.loads((folder / "report.json").read_text())["result"]

    return run


@pytest.fixture(scope="session")
def imagenet_net():
    """The full 224-pixel, 1000-class space of SPOS's Table 2, for counting."""
    from keras_spos import spaces

    with undrawn_weights():
        return spaces.shufflenet_v2()


@pytest.fixture(scope="session")
def blocks(tmp_path_factory):
    """The small net's blocks, its supernet, and where they are."""
    from models import small_net

    from hardware.blocks import export_blocks

    folder = tmp_path_factory.mktemp("hardware") / "blocks"
    net = small_net()
    export_blocks(net, folder, batch=2, networks=12, verbose=False)
    return folder, net
