"""Scenarios on cases, in worker processes: the fake runtime, and one real artefact."""

from __future__ import annotations

import json
from dataclasses import replace

import psutil
import pytest

from vit_deploy.bench.process import CaseWorker
from vit_deploy.bench.scenarios import SCENARIOS, ScenarioSettings, parse_slo, run_scenarios
from vit_deploy.bench.scenarios.settings import PERCENTILES
from vit_deploy.errors import UsageFailed

QUICK = ScenarioSettings(min_duration_s=0.4, max_duration_s=2.0, min_queries=40, timeout_s=30.0)


def test_every_scenario_in_one_worker(fake_cases):
    cases = fake_cases((4,), only={"step_us": 500})
    pids, told = [], []

    def start(case):
        worker = CaseWorker(case)
        pids.append(worker.pid)
        return worker

    results = run_scenarios(cases, SCENARIOS, QUICK, start_worker=start, finished=told.append)
    assert told == results
    assert [result["scenario"] for result in results] == list(SCENARIOS)
    for result in results:
        assert result["ok"], result["error"]
        assert result["key"] == cases[0].key
        assert result["verdict"] == "short run"
        assert "600 s" in result["why"]
        assert set(result["latency_ms"]) == set(PERCENTILES)
        assert result["achieved_rate"] > 100
        assert 0 < result["harness_us"] < 500
        assert "Result is" in "\n".join(result["loadgen"]["lines"])
        json.dumps(result, allow_nan=False)
    single, multi, offline, server = results
    assert single["batches"].keys() == {"1"}
    assert multi["samples_per_query"] == 8
    assert multi["batches"].keys() == {"4"}
    assert offline["batches"].keys() == {"4"}
    assert offline["latency_ms"]["p50"] is None
    assert server["target_rate"] > 1000
    assert server["batches"]["1"] > 0
    assert 0.5 < single["latency_ms"]["p50"] < 5
    assert multi["latency_ms"]["p99"] is None  # 368 queries would tell, some 350 were asked at most
    assert len(pids) == 1
    assert not psutil.pid_exists(pids[0])


def test_nothing_is_left_behind(fake_cases, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    # A file of this name where the test runs would change LoadGen's settings, were it read.
    (here / "audit.config").write_text("*.*.min_query_count = 1000000\n")
    (result,) = run_scenarios(fake_cases(only={}), ["SingleStream"], QUICK)
    assert result["asked"]["min_queries"] == 40
    assert result["queries"] < 100_000
    assert [path.name for path in here.iterdir()] == ["audit.config"]
    assert not list(tmp_path.glob("*loadgen*"))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"crash_after": 400}, "SIGKILL"),
        ({"raise_after": 400}, "out of tensors"),
        ({"refuse": "not this one"}, "not this one"),
    ],
)
def test_a_worker_that_dies_is_a_failed_result(fake_cases, told, words):
    cases = fake_cases(bad={"step_us": 1000, **told}, good={"step_us": 1000})
    results = run_scenarios(cases, ["SingleStream"], QUICK)
    found = {result["key"].partition("/")[0]: result for result in results}
    assert found["good"]["ok"]
    bad = found["bad"]
    assert not bad["ok"]
    assert words in bad["error"]
    assert bad["verdict"] == "invalid"
    assert set(bad) == set(found["good"])
    json.dumps(bad, allow_nan=False)


def test_after_a_death_the_next_scenario_has_a_new_worker(fake_cases):
    started = []

    def start(case):
        started.append(CaseWorker(case))
        return started[-1]

    # Some 200 steps at least are taken before a scenario begins, so that none gets to its end.
    cases = fake_cases(only={"step_us": 1000, "crash_after": 400})
    results = run_scenarios(cases, ["SingleStream", "Offline"], QUICK, start_worker=start)
    assert [result["ok"] for result in results] == [False, False]
    assert len(started) == 2


def test_one_that_hangs_is_killed(fake_cases):
    settings = ScenarioSettings(min_duration_s=0.5, max_duration_s=0.5, timeout_s=4.0)
    cases = fake_cases(only={"step_us": 500, "hang_after": 700})
    (result,) = run_scenarios(cases, ["SingleStream"], settings)
    assert not result["ok"]
    assert "was killed" in result["error"]


def test_a_slo_that_holds(fake_cases):
    settings = replace(QUICK, probes=3)
    slo = parse_slo("p90=15ms")
    (result,) = run_scenarios(fake_cases(only={"step_us": 3000}), [], settings, slo)
    assert result["scenario"] == "Server"
    assert result["slo"]["met"], result
    # Theory has p90 of a queue with a fixed service time of 3 ms at 15 ms for a load of about 0.85.
    assert 0.3 < result["slo"]["rate"] / result["slo"]["capacity"] < 0.98
    assert result["latency_ms"]["p90"] <= 15
    assert len(result["slo"]["probes"]) >= 4
    assert result["target_rate"] == result["slo"]["rate"]


def test_a_slo_that_cannot_be_met(fake_cases):
    (result,) = run_scenarios(fake_cases(only={"step_us": 4000}), ["Server"], QUICK, parse_slo("p90=2ms"))
    assert result["ok"]
    assert not result["slo"]["met"]
    assert result["slo"]["best"]["latency_ms"] > 4
    assert "p90=2ms cannot be met: p90 was" in result["why"]


def test_nothing_to_play_is_refused(fake_cases):
    (case,) = fake_cases(only={})
    with pytest.raises(UsageFailed):
        run_scenarios([replace(case, role="twin")], ["Server"], QUICK)
    with pytest.raises(UsageFailed):
        run_scenarios([case], [], QUICK)


def test_a_real_artefact(tmp_path, small_model):
    pytest.importorskip("onnxruntime", reason="pip install 'vit-deploy[cpu]'")
    from vit_deploy import registry
    from vit_deploy.bench.cases import cases_for
    from vit_deploy.bench.grid import Grid
    from vit_deploy.bundle import Bundle
    from vit_deploy.deploy.export import export_model
    from vit_deploy.facts import Device

    export_model(small_model, tmp_path / "bundle", ["onnx"], verify=False)
    bundle = Bundle.open(tmp_path / "bundle")
    runtime = registry.runtime("onnxruntime")
    cases, _ = cases_for(bundle, runtime, Device("cpu"), Grid(batch_sizes=(4,), threads=(2,), streams=(2,)))
    offline, server = run_scenarios(cases, ["Offline", "Server"], QUICK)
    for result in (offline, server):
        assert result["ok"], result["error"]
        assert result["verdict"] in ("short run", "invalid")
        assert result["samples"] > 100
    assert offline["loadgen"]["result"] == "VALID"
    assert server["latency_ms"]["p50"] > 0


@pytest.mark.parametrize("name", ["SingleStream", "Offline"])
def test_what_was_measured_on_a_busy_machine_is_mended(fake_cases, name):
    # The first 7 steps, which are all that is timed before the play, take a hundred times as long.
    cases = fake_cases(only={"step_us": 500, "slow_until": 7, "slow_us": 50_000})
    (result,) = run_scenarios(cases, [name], QUICK)
    assert result["verdict"] == "short run", result["why"]
    assert result["loadgen"]["result"] == "VALID", result["why"]
    assert result["achieved_rate"] > 500
