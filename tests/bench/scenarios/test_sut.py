"""The system under test, with LoadGen in this process and steps that are known."""

from __future__ import annotations

import threading
import time

import pytest

from vit_deploy.bench.scenarios import ScenarioSettings
from vit_deploy.bench.scenarios import loadgen as seam
from vit_deploy.bench.scenarios.inside import NullStep
from vit_deploy.bench.scenarios.sut import SystemUnderTest, _fit
from vit_deploy.errors import RunFailed


class Sleep:
    """A step of a fixed time, that counts itself, and those that run beside it."""

    running = 0
    most_at_once = 0

    def __init__(self, seconds=0.001, fails_at=None):
        self.seconds, self.fails_at = seconds, fails_at
        self.count = 0
        self.threads = set()

    def __call__(self):
        self.count += 1
        self.threads.add(threading.get_ident())
        if self.count == self.fails_at:
            raise MemoryError("out of tensors")
        Sleep.running += 1
        Sleep.most_at_once = max(Sleep.most_at_once, Sleep.running)
        time.sleep(self.seconds)
        Sleep.running -= 1

    def synchronize(self):
        pass


def play(name, system, expected_s=0.001, images_per_s=1000.0, **settings):
    given = {"min_duration_s": 0.3, "max_duration_s": 3.0, "min_queries": 100, **settings}
    asked = ScenarioSettings(**given)
    made = seam.test_settings(name, asked, seam.Expected(expected_s, images_per_s))
    return seam.run_test(made, system)


def test_a_slow_system_shows_its_queue():
    """No coordinated omission: latency counts from when a query was to be sent, not from when it was taken.

    At 200 queries a second of 10 ms each, half of them have no one to serve them. The last of half a second's
    waits for about as long again, and the median for half of that; from its own start each takes 10 ms.
    """
    found = play("Server", SystemUnderTest([{1: Sleep(0.01)}]), target_rate=200.0, min_duration_s=0.5)
    assert found.latency_ms["p50"] > 125
    assert found.latency_ms["p99"] > 300
    assert found.satisfied["Performance constraints"] is False
    assert found.number("Completed samples per second") < 105
    # The same system, asked in a closed loop, hides it.
    closed = play(
        "SingleStream", SystemUnderTest([{1: Sleep(0.01)}], inline=True), expected_s=0.01, min_queries=30
    )
    assert closed.latency_ms["p90"] < 30


def test_a_pause_of_the_system_is_charged_to_all_that_were_due_in_it():
    class Pause(Sleep):
        def __call__(self):
            super().__call__()
            if self.count == 20:
                time.sleep(0.5)

    found = play("Server", SystemUnderTest([{1: Pause(0.0005)}]), target_rate=100.0, min_duration_s=1.0)
    # Some 50 of 100 queries were due while it paused; a closed loop would show one that is slow.
    assert found.latency_ms["p90"] > 150


def test_every_query_is_answered_once_and_batches_are_filled():
    steps = {size: Sleep(0.001) for size in (1, 2, 4)}
    system = SystemUnderTest([steps], merge=True)
    found = play("Server", system, target_rate=2000.0)
    assert found.valid
    assert sum(size * runs for size, runs in system.batches.items()) == system.samples == system.queries
    assert system.batches[4] > 0  # 2000 a second would be too many at batch 1
    assert sum(step.count for step in steps.values()) == sum(system.batches.values()) + 3  # and the warm-up


def test_streams_run_side_by_side_each_in_its_thread():
    Sleep.running = Sleep.most_at_once = 0
    streams = [{4: Sleep(0.002)}, {4: Sleep(0.002)}]
    system = SystemUnderTest(streams)
    found = play("Offline", system, images_per_s=4000.0)
    assert found.valid
    assert Sleep.most_at_once == 2
    assert [len(steps[4].threads) for steps in streams] == [1, 1]
    assert streams[0][4].threads != streams[1][4].threads
    assert system.samples >= 0.3 * 4000


def test_a_query_of_many_samples_is_shared_among_streams():
    streams = [{1: Sleep(0.0005), 4: Sleep(0.001)}, {1: Sleep(0.0005), 4: Sleep(0.001)}]
    system = SystemUnderTest(streams)
    found = play("MultiStream", system, expected_s=0.001)
    assert system.samples == 8 * system.queries
    assert streams[0][4].count > 50
    assert streams[1][4].count > 50
    assert found.latency_ms["p50"] < 4  # two batches beside each other, not eight after each other


def test_a_fixed_batch_is_padded():
    system = SystemUnderTest([{4: Sleep(0.0005)}], inline=True)
    play("SingleStream", system)
    assert set(system.batches) == {4}
    assert system.batches[4] == system.queries


def test_a_step_that_fails_ends_the_play_with_its_words():
    started = time.monotonic()
    with pytest.raises(RunFailed, match="MemoryError: out of tensors"):
        play("Server", SystemUnderTest([{1: Sleep(0.001, fails_at=30)}]), target_rate=200.0)
    with pytest.raises(RunFailed, match="MemoryError: out of tensors"):
        play("SingleStream", SystemUnderTest([{1: Sleep(0.001, fails_at=1)}]))  # before LoadGen began
    assert time.monotonic() - started < 10
    assert threading.active_count() == 1 or not [
        thread for thread in threading.enumerate() if thread.name.startswith("stream-")
    ]


@pytest.mark.parametrize("inline", [True, False])
def test_the_harness_adds_microseconds_to_a_query(inline):
    found = play("SingleStream", SystemUnderTest([{1: NullStep()}], inline=inline), expected_s=4e-6)
    assert found.latency_ms["p50"] < 0.2  # 2 µs and 6 µs on a quiet machine


def test_the_size_to_run_is_the_largest_that_is_filled():
    assert _fit([1, 2, 4, 6]) == [1, 1, 2, 2, 4, 4, 6]
    assert _fit([4]) == [4, 4, 4, 4, 4]
    assert _fit([2, 8]) == [2, 2, 2, 2, 2, 2, 2, 2, 8]


@pytest.mark.parametrize("name", ["SingleStream", "Offline"])
def test_a_play_that_ran_out_of_queries_is_known(name):
    wrong = {"expected_s": 0.1, "images_per_s": 10.0, "min_queries": 1}
    assert seam.ran_out(name, play(name, SystemUnderTest([{1: Sleep(0.001)}]), **wrong))
    right = {"expected_s": 0.001, "images_per_s": 1000.0}
    assert not seam.ran_out(name, play(name, SystemUnderTest([{1: Sleep(0.001)}]), **right))


@pytest.mark.parametrize("name", ["SingleStream", "MultiStream", "Offline", "Server"])
def test_official_settings_are_mlperfs_own_and_nothing_less(name):
    expected = seam.Expected(0.001, 1000.0)
    made = seam.test_settings(name, ScenarioSettings(official=True, min_duration_s=1), expected)
    assert made.min_duration_ms == 600_000
    assert made.max_duration_ms == 0
    assert made.min_query_count >= {"MultiStream": 662, "Offline": 24_576}.get(name, 100)
    assert made.qsl_rng_seed != 0
    assert seam.shortened(name, made) == []
    as_long = ScenarioSettings(min_duration_s=600, max_duration_s=0, min_queries=24_576)
    assert seam.shortened(name, seam.test_settings(name, as_long, expected)) == []


@pytest.mark.parametrize(
    "less",
    [
        {"min_duration_s": 599.0},
        {"max_duration_s": 700.0},
        {"min_queries": 10},
        {"percentile": 0.9},
        {"seed": 7},
    ],
)
def test_whatever_is_less_than_mlperfs_rules_is_told(less):
    by_rule = {"min_duration_s": 600.0, "max_duration_s": 0.0, "min_queries": 24_576}
    made = seam.test_settings("Server", ScenarioSettings(**{**by_rule, **less}), seam.Expected(0.001, 1000.0))
    assert len(seam.shortened("Server", made)) == 1
