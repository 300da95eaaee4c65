"""A device whose latencies are known, for the tests of latency tables."""

import pathlib

from hardware import engines
from hardware.manifest import read_manifest
from hardware.measure import Settings, measure
from hardware.table import make_table

QUICK = Settings(rounds=3, seconds=0.002, warmup_seconds=0.01)
# What each option of the small net costs in the made-up engine below.
COSTS = {"k3": 2.0, "k5": 3.0, "residual": 1.0, "fixed_0": 10.0, "fixed_3": 0.5}


class Stopwatch(engines.Engine):
    """An engine whose times are known: by label, the same in every run."""

    def __init__(self, costs=COSTS, fails=(), device="a clock", offset=0.0):
        self.costs, self.fails, self.device = costs, fails, device
        self.offset = offset
        self.opened = []

    def describe(self):
        return {"device": self.device, "engine": "stopwatch", "precision": "fp32"}

    def open(self, path):
        label = pathlib.Path(path).stem.rsplit("-", 1)[0]
        self.opened.append(label)
        if label in self.fails:
            raise engines.EngineError(f"cannot run {label}")
        return Ticks(self.costs[label] + self.offset)


class Ticks(engines.Runner):
    def __init__(self, ms):
        self.ms = ms

    def time(self, runs):
        return [self.ms] * runs


def measured(folder, engine, tmp_path, name="table"):
    manifest = read_manifest(folder)
    files = {key: manifest.path(f) for key, f in manifest.files.items()}
    results = measure(files, engine, tmp_path / f"{name}.log", QUICK, verbose=False)
    table = make_table(
        manifest, results, engine.describe(), {"statistic": QUICK.statistic}
    )
    table.save(tmp_path / f"{name}.json")
    return table
