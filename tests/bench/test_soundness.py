from __future__ import annotations

import random
from dataclasses import replace

import pytest

from vit_deploy.bench import Settings, run_bench, soundness
from vit_deploy.bench.measured import Measured

KEYS = {"sound", "ratio", "ratio_interval", "key", "reason"}


def test_the_fastest_case_is_measured_against_itself(fake_cases):
    cases = fake_cases((1, 2), slow={"step_us": 3000}, quick={"step_us": 300})
    settings = Settings(duration_s=0.5, turn_s=0.02, precision_target=1e-9, timeout_s=60)
    result = run_bench(cases, settings)
    quick = next(case for case in cases if case.artefact == "quick")
    assert set(result.soundness) == KEYS
    assert result.soundness["key"] == quick.key
    low, high = result.soundness["ratio_interval"]
    assert result.soundness["sound"] == (low <= 1 <= high)
    # A sleep of 0.3 ms is as long in one process as in another, more or less.
    assert 0.8 < result.soundness["ratio"] < 1.25
    assert len(result.rows) == 4
    twin = len(cases)
    groups = [set(entry) for entry in result.order]
    assert all(twin in members for members in groups if 0 in members)
    assert all(twin not in members for members in groups if 0 not in members)


def test_no_twin_where_none_is_asked_for(fake_cases):
    settings = Settings(duration_s=0.1, rounds=2, soundness=False, timeout_s=60)
    result = run_bench(fake_cases(only={}), settings)
    assert result.soundness is None
    assert all(entry == (0,) for entry in result.order)


@pytest.fixture
def pair(fake_cases):
    (case,) = fake_cases(only={})

    def make(factor, rounds=60):
        generator = random.Random(3)
        base, twin = Measured(case), Measured(soundness.twin_of(case))
        for _ in range(rounds):
            base.rounds.append([round(1e6 * generator.gauss(1, 0.01)) for _ in range(5)])
            twin.rounds.append([round(1e6 * factor * generator.gauss(1, 0.01)) for _ in range(5)])
        base.launch_lengths = twin.launch_lengths = [rounds // 5] * 5
        return base, twin

    return make


def test_a_twin_that_differs_makes_a_run_unsound(pair):
    base, twin = pair(1.02)
    verdict = soundness.judge(twin, [base])
    assert not verdict["sound"]
    assert verdict["ratio"] == pytest.approx(1.02, rel=0.01)
    assert "which is not 1" in verdict["reason"]
    base, twin = pair(1.0)
    assert soundness.judge(twin, [base])["sound"]


def test_what_cannot_be_told_is_not_sound(pair):
    base, twin = pair(1.0, rounds=3)
    verdict = soundness.judge(twin, [base])
    assert not verdict["sound"]
    assert "too few rounds" in verdict["reason"]
    twin.error = "killed by SIGKILL"
    assert "killed by SIGKILL" in soundness.judge(twin, [base])["reason"]
    assert not soundness.judge(replace(twin, error=""), [])["sound"]


def test_parts_of_a_run_are_sound_only_together():
    assert soundness.worst([]) is None
    assert soundness.worst([{"sound": True, "key": "a"}, {"sound": True, "key": "b"}])["key"] == "b"
    assert soundness.worst([{"sound": False, "key": "a"}, {"sound": True, "key": "b"}])["key"] == "a"
