"""Measures files on an engine: warmed up, interleaved, resumable.

In each round every file is opened anew, in another order, warmed up until it is stable,
and run for a while. So whatever slows the machine for a moment hits one round of a few
files, and a run that was stopped goes on with the rounds it lacks. Two statistics:

    median  the median of the rounds' medians; spread: 1.4826 MAD of the rounds
    floor   the lower quartile of the rounds' lowest deciles; spread: likewise, of the
            lower half of the rounds

The median is for a quiet machine, and for one that is busy all the time, with more
rounds. The floor is for a machine that others use now and then: they add to some of the
runs, up to twice the time, and subtract from none; but where no run is undisturbed, the
floor is only the luckiest.

Example:
    >>> with open_engine("onnxruntime") as engine:                 # doctest: +SKIP
    ...     results = measure({"a": "a.onnx"}, engine, "log.jsonl")
    >>> results["a"]["median_ms"]                                  # doctest: +SKIP
"""

import dataclasses
import json
import math
import os
import time

import numpy as np

from .engines import EngineError
from .progress import progress
from .statistics import spread

_FIGURE = {"key", "round", "median_ms", "low_ms", "samples"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How thoroughly to measure.

    Args:
        rounds: How often each file is opened and measured.
        seconds: How long each is run in a round.
        min_runs: How often it is run in a round at least.
        warmup_seconds: After which a file that is not stable is taken as it is.
        tolerance: Medians of two runs of warm-up that differ by less are stable.
        seed: Seed of the order.
        statistic: "median" or "floor".
    """

    rounds: int = 11
    seconds: float = 0.1
    min_runs: int = 5
    warmup_seconds: float = 2.0
    tolerance: float = 0.02
    seed: int = 0
    statistic: str = "median"

    def __post_init__(self):
        if self.rounds < 1 or not 0 <= self.seconds < math.inf:
            raise ValueError(
                "Expected rounds >= 1 and a number of seconds >= 0. "
                f"Received: rounds={self.rounds}, seconds={self.seconds}"
            )


def measure(files, engine, log, settings=None, what="", verbose=True):
    """Measures files, and notes what fails.

    Args:
        files: A dict from key to path.
        engine: An `Engine`.
        log: A file that each figure is appended to as soon as it is there, and that a
            run which was stopped goes on from.
        settings: `Settings`.
        what: Identifies the files; a log of others is refused.
        verbose: Whether to show progress.

    Returns:
        A dict from key to a dict: "latency_ms" (the statistic), "spread_ms",
        "median_ms", "rounds" and "samples", or "error" where the engine failed.

    Raises:
        ValueError: The log is of another device or engine, of other files or settings.
    """
    settings = settings or Settings()
    identity = {
        **engine.describe(),
        "what": what,
        # Of more rounds, a log has those it lacks measured; the rest is one figure's.
        **{
            name: value
            for name, value in dataclasses.asdict(settings).items()
            if name not in ("rounds", "statistic")
        },
    }
    with _Log(log, identity) as done:
        todo = [
            (number, key)
            for number in range(settings.rounds)
            for key in _order(files, settings.seed, number)
            if (key, number) not in done.figures
        ]
        with progress(len(todo), what or "measure", verbose) as show:
            for number, key in todo:
                if key not in done.errors:
                    done.add(key, number, _one_round(engine, files[key], settings))
                show.update()
    return {key: _summary(key, done, settings) for key in files}


def _order(files, seed, number):
    keys = sorted(files)
    return [
        keys[i] for i in np.random.default_rng((seed, number)).permutation(len(keys))
    ]


def _one_round(engine, path, settings):
    try:
        with engine.open(path) as runner:
            per_run = _warm_up(runner, settings)
            runs = int(settings.seconds * 1000 / max(per_run, 1e-6))
            times = runner.time(int(np.clip(runs, settings.min_runs, 10_000)))
    except EngineError as error:
        return {"error": str(error)[:500]}
    low, median = np.percentile(times, (10, 50))
    return {"median_ms": median, "low_ms": low, "samples": len(times)}


def _warm_up(runner, settings):
    """Runs until two medians in a row agree; returns the last."""
    end = time.monotonic() + settings.warmup_seconds
    last = float(np.median(runner.time(settings.min_runs)))
    while time.monotonic() < end:
        # As long as a fifth of what is measured, so that clocks have time to rise.
        runs = int(settings.seconds * 200 / max(last, 1e-6))
        now = float(np.median(runner.time(int(np.clip(runs, settings.min_runs, 1000)))))
        if abs(now - last) <= settings.tolerance * last:
            return now
        last = now
    return last


def _summary(key, log, settings):
    figures = log.figures.items()
    rounds = [f for (k, n), f in figures if k == key and n < settings.rounds]
    if not rounds:
        return {"error": log.errors.get(key, "not measured")}
    values = [r["median_ms"] for r in rounds]
    median = latency = float(np.median(values))
    if settings.statistic == "floor":
        values = np.sort([r["low_ms"] for r in rounds])
        latency = float(np.percentile(values, 25))
        values = values[: max(2, (len(values) + 1) // 2)]
    return {
        "latency_ms": latency,
        "spread_ms": spread(values),
        "median_ms": median,
        "rounds": len(rounds),
        "samples": sum(r["samples"] for r in rounds),
    }


class _Log:
    """A file of JSON lines: first what is measured on what, then a line a figure."""

    def __init__(self, path, identity):
        self.path = path
        self.identity = identity
        self.figures = {}
        # Failures count for this run only: the next one tries again.
        self.errors = {}

    def __enter__(self):
        with open(self.path, "a+", errors="replace") as old:
            _lock(old)
            old.seek(0)
            lines = [_parse(line) for line in old]
            if lines:
                self._check(lines[0])
                for line in lines[1:]:
                    if line.keys() >= _FIGURE:
                        self.figures[line["key"], line["round"]] = line
            # Written anew: the last line of a run that was killed may be half a line.
            self.file = open(f"{self.path}.tmp", "w")
            _lock(self.file)
            for line in [self.identity, *self.figures.values()]:
                self._write(line)
            os.replace(f"{self.path}.tmp", self.path)
        return self

    def __exit__(self, *_):
        self.file.close()

    def add(self, key, number, figure):
        """Notes one round of one file."""
        figure = {"key": key, "round": number, **figure}
        if "error" in figure:
            self.errors[key] = figure["error"]
        else:
            self.figures[key, number] = figure
        self._write(figure)

    def _write(self, line):
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def _check(self, known):
        if "what" not in known:
            raise ValueError(
                f"{self.path} is where measurements are noted, and is another file. "
                "Remove it, or give the table another name."
            )
        names = sorted(set(known) | set(self.identity))
        differing = {
            name: (known.get(name), self.identity.get(name))
            for name in names
            if known.get(name) != self.identity.get(name)
        }
        if differing:
            lines = [
                f"{name}: expected {was!r}, received {now!r}"
                for name, (was, now) in differing.items()
            ]
            raise ValueError(
                f"{self.path} notes other measurements, and figures of different "
                f"devices, engines, files or settings are not mixed. "
                f"{'; '.join(lines)}. Remove it to measure anew, or give the table "
                "another name."
            )


def _lock(file):
    """Refuses a file that another process writes to: figures of one would be lost.

    The system unlocks it when it is closed, or this process ends.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"{file.name} is in use: another process measures and notes it there. Wait "
            "for its end, or give the table another name."
        ) from error
    except OSError:  # Of file systems that lock nothing.
        pass


def _parse(line):
    """A line's dict; an empty one if it is damaged."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
