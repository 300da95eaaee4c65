"""The peak of memory: of the accelerator where there is one, else of the process."""

import math
import os
import sys


def start_peak():
    """Starts counting anew, where that can be; returns the bytes held now."""
    device = _device_bytes()
    if device is not None:
        return device[0]
    try:
        # Linux: the peak becomes what is held now.
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass
    return _status("VmRSS") or _peak_of_process()


def peak_bytes():
    """The most bytes held since `start_peak`, or since the process began."""
    device = _device_bytes()
    if device is not None:
        return device[1]
    return _status("VmHWM") or _peak_of_process()


def has_accelerator():
    """Whether there is a device with memory of its own."""
    return _device_bytes() is not None


def _device_bytes():
    """(held, peak) of the first accelerator, or None."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        stats = jax.devices()[0].memory_stats()
        return stats and (stats["bytes_in_use"], stats["peak_bytes_in_use"])
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return None
    info = tf.config.experimental.get_memory_info("GPU:0")
    return info["current"], info["peak"]


def _status(name):
    if not os.path.exists("/proc/self/status"):
        return None
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None


def _peak_of_process():
    """Where there is no /proc; not known on Windows, which has no such module."""
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, all else in KiB.
    return peak if sys.platform == "darwin" else 1024 * peak
