"""What the device is called, its driver, and its clocks where they can be read."""

import glob
import os
import platform
import subprocess


def cpu_name():
    """The processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.split(":", 1) for line in file if ":" in line]
        fields = {key.strip(): value.strip() for key, value in lines}
        name = fields.get("model name") or fields.get("Model") or name
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def cpu_clocks():
    """MHz of each core now, or None."""
    paths = sorted(glob.glob("/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"))
    try:
        clocks = [round(int(_read(p)) / 1000) for p in paths]
        if not clocks:
            with open("/proc/cpuinfo") as file:
                clocks = [
                    round(float(line.split(":")[1]))
                    for line in file
                    if line.startswith("cpu MHz")
                ]
    except (OSError, ValueError):
        return None
    return {"cpu_mhz": clocks} if clocks else None


def gpu():
    """Name and driver of the GPU that is used: the first that CUDA is shown."""
    values = _query("name,driver_version")
    return {
        "device": values[0] if values else "unknown GPU",
        "driver": values[1] if values else "unknown",
    }


def gpu_clocks():
    """MHz of that GPU's processor and memory now, or None."""
    values = _query("clocks.sm,clocks.mem,clocks.max.sm")
    names = ("sm_mhz", "memory_mhz", "sm_max_mhz")
    return dict(zip(names, values, strict=True)) if values else None


def _query(fields):
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    # An index or a "GPU-..."; of a part of a GPU ("MIG-...") nvidia-smi says nothing.
    if shown and not shown.startswith("MIG"):
        command.append(f"--id={shown}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return None
    return [value.strip() for value in lines[0].split(",")]


def _read(path):
    with open(path) as file:
        return file.read()
