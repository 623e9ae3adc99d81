"""The trial of the libraries, and the worker that goes on with the best of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vit_deploy.bench.cases import Case
from vit_deploy.bench.ceiling import ceiling_cases, describe_ceiling, probe, providers
from vit_deploy.bench.ceiling.operands import Wanted
from vit_deploy.bench.measured import Measured
from vit_deploy.bench.process import CaseFailed, start_worker
from vit_deploy.facts import Device
from vit_deploy.model.counts import Gemm

GEMMS = (Gemm("qkv", 7, 16, 48, times=12), Gemm("head", 1, 16, 5))
WANTED = Wanted(GEMMS, "fp32", Device("cpu"), 1)


def outcomes(monkeypatch, **told):
    asked = {}

    def try_alone(name, wanted):
        asked[name] = wanted
        return told[name]

    monkeypatch.setattr(probe, "_try_alone", try_alone)
    monkeypatch.setattr(providers, "NAMES", tuple(told))
    monkeypatch.setattr(probe, "able", lambda precision, device: list(told))
    return asked


def test_the_fastest_is_chosen_and_the_others_are_told_of(monkeypatch):
    asked = outcomes(
        monkeypatch, numpy={"best_ns": 4000}, torch={"best_ns": 1000}, openvino={"reason": "not installed"}
    )
    best, told = probe.choose(WANTED)
    short = sum(gemm.flops for gemm in probe.trial_gemms(GEMMS))
    assert best == "torch"
    assert told == {"numpy": short / 4000, "torch": short / 1000, "openvino": "not installed"}
    assert [gemm.times for gemm in asked["numpy"].gemms] == [probe.LAYERS, 1]


def test_none_is_chosen_where_none_is_able(monkeypatch):
    outcomes(monkeypatch, numpy={"reason": "broken"}, torch={"reason": "not installed"})
    assert probe.choose(WANTED) == (None, {"numpy": "broken", "torch": "not installed"})


def test_a_single_library_needs_no_trial(monkeypatch):
    asked = outcomes(monkeypatch, numpy={"best_ns": 1})
    assert probe.choose(WANTED)[0] == "numpy"
    assert asked == {}


def test_a_trial_in_a_process_of_its_own():
    outcome = probe._try_alone("numpy", replace(WANTED, gemms=GEMMS[1:]))
    assert outcome["best_ns"] > 0


def test_a_library_that_is_not_able_says_why():
    outcome = probe._try_alone("numpy", replace(WANTED, precision="fp8"))
    assert outcome == {"reason": "KeyError: 'fp8'"}


def test_a_library_that_is_not_installed_is_not_started(monkeypatch):
    monkeypatch.setattr(probe, "package_version", lambda name: None)
    assert probe._try_alone("numpy", WANTED) == {"reason": "not installed"}


def test_a_library_that_crashes_or_hangs_is_out_of_the_race(monkeypatch):
    monkeypatch.setattr(probe.sys, "executable", "/bin/false")
    assert probe._try_alone("numpy", WANTED) == {"reason": "it ended with exit code 1"}
    monkeypatch.undo()
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.01)
    assert probe._try_alone("numpy", WANTED) == {"reason": "no answer within 0.01 s"}


@pytest.fixture
def case(fake_bundle) -> Case:
    bundle = fake_bundle(quick={})
    return Case(
        bundle=str(bundle.path),
        artefact="quick",
        format="fake",
        precision="int8",
        backend="fake",
        device="cpu",
        batch_size=2,
        threads=1,
        verified=True,
        files={"orders.json": "0"},
        image_size=bundle.config.image_size,
    )


def test_a_ceiling_is_measured_as_a_case_is(case):
    pytest.importorskip("onnxruntime", reason="pip install 'vit-deploy[cpu]'")
    (ceiling,) = ceiling_cases([case])
    measured = Measured(ceiling)
    with start_worker(ceiling) as worker:
        opened = worker.ask("open", 120, case=ceiling.to_dict(), spawned_ns=worker.spawned_ns)
        measured.facts = opened["facts"]
        assert set(opened["cold_start_ns"]) == {"import", "check", "open", "first"}
        assert all(value > 0 for value in opened["cold_start_ns"].values())
        worker.ask("warm", 60, limit_ns=200_000_000, tolerance=0.5)
        taken = worker.ask("measure", 60, budget_ns=20_000_000, minimum=3, maximum=50)
        measured.rounds.append(taken["samples_ns"])
        peaks = worker.ask("finish", 60)
    assert len(taken["samples_ns"]) >= 3
    assert peaks["peak_rss_bytes"] > 0
    told = describe_ceiling(measured)
    assert told["ok"]
    assert told["provider"] in ("onnxruntime", "openvino")
    assert set(told["providers"]) == {"onnxruntime", "openvino"}
    assert told["gflops_per_s"] > 0


def test_a_precision_that_nothing_multiplies_in_has_no_ceiling(case):
    (ceiling,) = ceiling_cases([replace(case, precision="fp8")])
    with start_worker(ceiling) as worker, pytest.raises(CaseFailed, match="in fp8 on cpu, so there is no"):
        worker.ask("open", 60, case=ceiling.to_dict(), spawned_ns=worker.spawned_ns)
