from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path

from vit_deploy.bench import timing


class Step:
    def __init__(self, *seconds):
        self.seconds = list(seconds)
        self.calls = []

    def __call__(self):
        self.calls.append("step")
        assert not gc.isenabled()
        if self.seconds:
            time.sleep(self.seconds.pop(0))

    def synchronize(self):
        self.calls.append("synchronize")


def test_every_step_is_synchronised_and_counted_once():
    step = Step()
    samples = timing.time_steps(step, 10**12, maximum=5)
    assert len(samples) == 5
    assert step.calls == ["synchronize"] + ["step", "synchronize"] * 5
    assert all(isinstance(sample, int) and sample > 0 for sample in samples)


def test_the_minimum_is_taken_whatever_the_budget():
    assert len(timing.time_steps(Step(), 0, minimum=7)) == 7


def test_the_budget_ends_the_loop():
    samples = timing.time_steps(Step(*[0.01] * 100), 50_000_000)
    assert 1 <= len(samples) <= 5
    assert sum(samples) >= 50_000_000 * 0.9


def test_garbage_collection_is_as_it_was():
    timing.time_steps(Step(), 0)
    assert gc.isenabled()


def test_a_warm_up_goes_on_until_two_windows_agree(monkeypatch):
    windows = iter([[900] * 2, [500] * 2, [300] * 2, [299] * 2, [1] * 2])
    monkeypatch.setattr(timing, "time_steps", lambda *_, **__: next(windows))
    result = timing.warm_up(Step(), 10**12, 0.05)
    assert (result.steps, result.settled) == (8, True)


def test_a_warm_up_that_never_settles_ends_in_time(monkeypatch):
    sizes = iter(range(1, 10_000))

    def window(*_, **__):
        time.sleep(0.001)
        return [2 ** next(sizes)] * 2

    monkeypatch.setattr(timing, "time_steps", window)
    result = timing.warm_up(Step(), 5_000_000, 0.05)
    assert not result.settled
    assert result.elapsed_ns >= 5_000_000


def test_rest_tells_whether_a_thread_still_runs(monkeypatch):
    assert timing.rest()
    monkeypatch.setattr(timing, "REST_LIMIT_NS", 20_000_000)
    monkeypatch.setattr(timing.time, "process_time_ns", time.perf_counter_ns)
    assert not timing.rest()


def test_the_loop_measures_itself():
    script = Path(__file__).parents[2] / "benchmarks" / "timing_loop.py"
    command = [sys.executable, str(script), "--count", "100", "--repeats", "2", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    document = json.loads(run.stdout)
    assert document["inside_a_sample_us"] > 0
    assert document["limit_us"] == 20.0
    assert run.returncode == (0 if document["ok"] else 5)
