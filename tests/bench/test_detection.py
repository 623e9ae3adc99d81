"""The script that shows the power of a comparison: what it counts, and that its delay is a delay."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def detection(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("detection")


def trial(detection, kind, interval, seconds=30.0):
    return detection.Trial(kind, 0, 1.0, interval, seconds, 100, 10.0, True, (), "")


def test_a_slow_down_is_seen_above_one_and_in_time(detection):
    trials = [
        trial(detection, "power", (1.01, 1.03)),
        trial(detection, "power", (0.99, 1.03)),
        trial(detection, "power", (0.95, 0.99)),
        trial(detection, "power", (1.01, 1.03), seconds=61),
        trial(detection, "power", None),
        trial(detection, "alarm", (0.95, 0.99)),
        trial(detection, "alarm", (0.99, 1.01)),
    ]
    told = detection.summary(trials, 60.0)
    assert (told["power"]["seen"], told["power"]["trials"], told["power"]["within_limit"]) == (1, 5, 4)
    assert (told["alarm"]["seen"], told["alarm"]["trials"]) == (1, 2)
    low, high = told["power"]["share_interval"]
    assert low < 0.2 < high
    assert not detection.verdict(told)
    assert detection.verdict(detection.summary([trial(detection, "power", (1.01, 1.03))] * 10, 60.0))


def test_the_delay_lies_inside_the_step(detection):
    class Step:
        def __call__(self):
            pass

        def synchronize(self):
            pass

    slowed = importlib.import_module("_slowed_worker").Slowed(Step(), 3_000_000)
    began = time.perf_counter_ns()
    slowed()
    assert time.perf_counter_ns() - began >= 3_000_000
