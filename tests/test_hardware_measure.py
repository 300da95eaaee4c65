"""How long a file is warmed up and run, and what its rounds are summed up to."""

import numpy as np
import pytest
from stopwatch import Stopwatch

from hardware import engines
from hardware.measure import Settings, measure


class Slowing(engines.Engine):
    """Rounds take 1, 4, 9.. ms a run; of its runs, the second takes twice the first."""

    def __init__(self, fails_at=None):
        self.opened, self.fails_at = 0, fails_at

    describe = Stopwatch.describe
    device = "a clock"

    def open(self, path):
        self.opened += 1
        if self.opened == self.fails_at:
            raise engines.EngineError("out of memory " * 99)
        return Runs(self.opened**2)


class Runs(engines.Runner):
    def __init__(self, ms):
        self.ms = ms

    def time(self, runs):
        return self.ms * np.arange(1.0, runs + 1)


def run(engine, tmp_path, rounds, **settings):
    settings = Settings(rounds, 0.0, min_runs=11, warmup_seconds=0.0, **settings)
    log = tmp_path / "log"
    return measure({"a": "a"}, engine, log, settings, verbose=False)["a"]


def test_rounds_are_summed_up(tmp_path):
    # Medians of 6, 24, 54, 96 and 150 ms, lowest deciles of 2, 8, 18, 32 and 50 ms.
    result = run(Slowing(), tmp_path, 5)
    assert result["latency_ms"] == result["median_ms"] == 54
    assert result["spread_ms"] == pytest.approx(1.4826 * 42)
    assert (result["rounds"], result["samples"]) == (5, 55)
    # Those of the log again: their lower quartile, and the spread of 2, 8 and 18.
    floor = run(Slowing(), tmp_path, 5, statistic="floor")
    assert (floor["latency_ms"], floor["median_ms"]) == (8, 54)
    assert floor["spread_ms"] == pytest.approx(1.4826 * 6)
    two = run(Slowing(), tmp_path, 2, statistic="floor")
    assert two["spread_ms"] == pytest.approx(1.4826 * 3)


def test_what_fails_has_the_rounds_before(tmp_path):
    engine = Slowing(fails_at=3)
    assert run(engine, tmp_path, 5)["rounds"] == 2 and engine.opened == 3
    # What an engine says may fill pages.
    (tmp_path / "log").unlink()
    assert len(run(Slowing(fails_at=1), tmp_path, 5)["error"]) == 500


class Script(Stopwatch):
    """Calls take these times, one after the other, and the last from then on."""

    def __init__(self, *times):
        self.times, self.calls = list(times), []
        self.device = "a clock"

    def open(self, path):
        return ScriptRunner(self)


class ScriptRunner(engines.Runner):
    def __init__(self, script):
        self.script = script

    def time(self, runs):
        self.script.calls.append(runs)
        times = self.script.times
        return [times.pop(0) if len(times) > 1 else times[0]] * runs


@pytest.mark.parametrize(
    "times, calls",
    [
        # Warmed up for 200 ms at a time, until 3.95 is within 2 percent of 4 ms.
        ((8, 6, 4, 3.95), [5, 25, 33, 50, 253]),
        # No fewer runs than are asked for, and no more than the statistics need.
        ((1000,), [5, 5, 5]),
        ((0.0001,), [5, 1000, 10_000]),
        ((0,), [5, 1000, 10_000]),
    ],
)
def test_a_file_is_warmed_up_until_it_is_stable(times, calls, tmp_path):
    engine, settings = Script(*times), Settings(rounds=1, seconds=1.0)
    measure({"a": "a"}, engine, tmp_path / "log", settings, verbose=False)
    assert engine.calls == calls
