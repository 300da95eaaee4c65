"""Where is the data on this machine? An argument, or `KERAS_SPOS_DATA`."""

import os
import pathlib

# Version 4.9.10 of the first imports the second without requiring it.
TFDS_PACKAGES = "tensorflow-datasets importlib_resources"


def data_directory(data_dir=None):
    """Returns `data_dir`, else the variable `KERAS_SPOS_DATA`, else None."""
    data_dir = data_dir or os.environ.get("KERAS_SPOS_DATA")
    return pathlib.Path(data_dir).expanduser() if data_dir else None


def cache_directory(cache_dir=None):
    """Returns `cache_dir`, else `keras_spos` in the user's cache directory."""
    if cache_dir:
        return pathlib.Path(cache_dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "keras_spos"


def announce_tfds(name, directory):
    """Says that TensorFlow Datasets is asked for a data set, which may take long."""
    where = directory or "its own folder"
    print(
        f"Asking tensorflow-datasets for {name!r} in {where}: it downloads and "
        "prepares what is not there yet.",
        flush=True,
    )
