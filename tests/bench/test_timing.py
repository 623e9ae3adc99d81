from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

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
    streams = timing.Streams([Step()])
    monkeypatch.setattr(streams, "time", lambda *_, **__: timing.Slice(next(windows), 1))
    result = timing.warm_up(streams, 10**12, 0.05)
    assert (result.steps, result.settled, result.step_ns) == (8, True, 299)


def test_a_warm_up_that_never_settles_ends_in_time(monkeypatch):
    sizes = iter(range(1, 10_000))

    def window(*_, **__):
        time.sleep(0.001)
        return timing.Slice([2 ** next(sizes)] * 2, 1)

    streams = timing.Streams([Step()])
    monkeypatch.setattr(streams, "time", window)
    result = timing.warm_up(streams, 5_000_000, 0.05)
    assert not result.settled
    assert result.elapsed_ns >= 5_000_000


def test_streams_start_together_and_none_ends_before_the_others():
    slow, quick = Step(*[0.02] * 100), Step(*[0.005] * 1000)
    streams = timing.Streams([slow, quick])
    taken = streams.time(60_000_000)
    streams.close()
    by_slow = [sample for sample in taken.samples if sample > 15_000_000]
    assert 2 <= len(by_slow) <= 4
    assert len(taken.samples) > 2 * len(by_slow)
    # 50 and 200 a second, however few samples there are.
    assert 150 < len(taken.samples) * 1e9 / taken.elapsed_ns <= 250
    assert quick.calls.count("step") >= len(taken.samples) - len(by_slow)


def test_each_stream_keeps_its_thread():
    class Threaded(Step):
        def __call__(self):
            super().__call__()
            self.calls.append(threading.current_thread().name)

    steps = [Threaded(), Threaded()]
    streams = timing.Streams(steps)
    for _ in range(3):
        streams.time(0, minimum=4)
    streams.close()
    threads = [{call for call in step.calls if call.startswith("stream")} for step in steps]
    assert [len(names) for names in threads] == [1, 1]
    assert threads[0] != threads[1]


def test_a_stream_that_fails_ends_all():
    class Broken(Step):
        def __call__(self):
            raise RuntimeError("out of tensors")

    streams = timing.Streams([Step(*[0.001] * 1000), Broken()])
    with pytest.raises(RuntimeError, match="out of tensors"):
        streams.time(10_000_000)
    streams.close()


def test_a_long_step_is_not_run_for_its_caches():
    step = Step()
    streams = timing.Streams([step])
    streams.settle(timing.LONGEST_SETTLING_NS)
    assert step.calls == []
    streams.settle(1_000_000)
    assert step.calls.count("step") == 1


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
    assert document["limit_us"] == 5.0
    assert run.returncode == (0 if document["ok"] else 5)
