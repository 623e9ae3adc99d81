from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from vit_deploy.bench.cases import cases_for
from vit_deploy.bench.grid import Grid
from vit_deploy.bench.process import CaseFailed, CaseWorker
from vit_deploy.facts import Device
from vit_deploy.worker_process import thread_settings, worker_environment

TIMEOUT_S = 60


@pytest.fixture
def start(fake_cases):
    """Start a worker on one fake artefact."""
    workers = []

    def make(batch_size=1, **told):
        (case,) = fake_cases((batch_size,), only=told)
        worker = CaseWorker(case)
        workers.append(worker)
        return worker, case

    yield make
    for worker in workers:
        worker.close(at_once=True)


def open_case(worker, case):
    return worker.ask("open", TIMEOUT_S, case=case.to_dict(), spawned_ns=worker.spawned_ns)


def test_the_protocol_from_cold_to_finished(start):
    worker, case = start()
    opened = open_case(worker, case)
    assert opened["facts"]["backend"] == "fake"
    assert opened["facts"]["threads"] == 1
    assert list(opened["cold_start_ns"]) == ["import", "check", "open", "first"]
    assert all(phase > 0 for phase in opened["cold_start_ns"].values())
    warm = worker.ask("warm", TIMEOUT_S, limit_ns=300_000_000, tolerance=10.0)
    assert warm["settled"]
    assert warm["steps"] >= 4
    assert warm["step_ns"] >= 200_000
    taken = worker.ask("measure", TIMEOUT_S, budget_ns=0, minimum=9, maximum=9)
    assert len(taken["samples_ns"]) == 9
    assert taken["rested"]
    assert taken["elapsed_ns"] >= sum(taken["samples_ns"])
    peaks = worker.ask("finish", TIMEOUT_S)
    assert peaks["peak_device_bytes"] is None
    assert peaks["peak_rss_bytes"] > 1_000_000
    assert psutil.Process(worker.pid).wait(10) == 0


def test_the_peak_is_the_workers_own(start):
    # ru_maxrss would start at this process's peak.
    ballast = bytearray(os.urandom(1 << 16)) * 8192
    worker, case = start()
    open_case(worker, case)
    assert worker.ask("finish", TIMEOUT_S)["peak_rss_bytes"] < len(ballast)


def test_an_error_of_the_backend_is_told_in_its_own_words(start):
    worker, case = start(refuse="an unknown operator")
    with pytest.raises(CaseFailed) as failed:
        open_case(worker, case)
    assert str(failed.value).startswith("an unknown operator")
    assert "a better artefact" in str(failed.value)
    assert failed.value.exit_code == 1


@pytest.mark.parametrize("fact", [{"threads": 64}, {"precision": "bf16"}, {"device": "cuda:0"}])
def test_facts_that_are_not_what_was_asked_fail_the_case(start, fact):
    worker, case = start(**fact)
    with pytest.raises(CaseFailed, match=f"reports {next(iter(fact))} {next(iter(fact.values()))}"):
        open_case(worker, case)


def test_a_worker_checks_its_files_again(start):
    from vit_deploy.bundle import Bundle

    worker, case = start()
    Bundle.open(case.bundle).artefact(case.artefact).path.write_text('{"step_us": 0}')
    with pytest.raises(CaseFailed, match="was changed since") as failed:
        open_case(worker, case)
    assert failed.value.exit_code == 6


def test_a_fixed_batch_is_no_other_batch(fake_cases):
    from vit_deploy.spec import BatchRange

    (fitting,) = fake_cases((4,), batch=BatchRange(4, 4, 4), only={})
    case = replace(fitting, batch_size=2)
    with CaseWorker(case) as worker, pytest.raises(CaseFailed, match="batch of 4, not of 2"):
        open_case(worker, case)


def test_a_killed_worker_is_told_by_its_signal(start):
    worker, case = start(crash_after=5)
    open_case(worker, case)
    with pytest.raises(CaseFailed, match="killed by SIGKILL") as failed:
        worker.ask("measure", TIMEOUT_S, budget_ns=10**9, minimum=1, maximum=100)
    assert failed.value.worker_exit == -9


def test_a_dead_workers_last_words_are_kept(start):
    worker, case = start(exit_after=5)
    open_case(worker, case)
    with pytest.raises(CaseFailed, match=r"exit code 3 .* the library gave up") as failed:
        worker.ask("measure", TIMEOUT_S, budget_ns=10**9, minimum=1, maximum=100)
    assert failed.value.worker_exit == 3


def test_a_hung_worker_is_killed(start):
    worker, case = start(hang_after=5)
    open_case(worker, case)
    with pytest.raises(CaseFailed, match=r"did not answer 'measure' within 0.3 s"):
        worker.ask("measure", 0.3, budget_ns=10**9, minimum=1, maximum=100)
    assert not psutil.pid_exists(worker.pid)


def test_an_unexpected_exception_is_a_failure_with_its_type(start):
    worker, case = start(raise_after=5)
    open_case(worker, case)
    with pytest.raises(CaseFailed, match="RuntimeError: out of tensors"):
        worker.ask("measure", TIMEOUT_S, budget_ns=10**9, minimum=1, maximum=100)


def test_a_worker_ends_when_its_stdin_closes():
    receiving, sending = os.pipe()
    command = [sys.executable, "-m", "vit_deploy.bench.worker", str(sending)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(sending,)) as worker:
        worker.stdin.close()
        assert worker.wait(TIMEOUT_S) == 0
    os.close(sending)
    assert os.read(receiving, 1) == b""
    os.close(receiving)


def test_a_waiting_worker_is_idle(fake_bundle):
    """Eager PyTorch, whose threads spin when they are let."""
    from vit_deploy import registry

    bundle = fake_bundle(only={})
    grid = Grid(batch_sizes=(2,), threads=(2,))
    (case,), _ = cases_for(bundle, registry.runtime("eager"), Device("cpu"), grid)
    assert case.artefact == "pytorch-fp32"
    with CaseWorker(case) as worker:
        assert open_case(worker, case)["facts"]["threads"] == 2
        worker.ask("measure", TIMEOUT_S, budget_ns=0, minimum=3, maximum=3)
        used = psutil.Process(worker.pid).cpu_percent(interval=1.0)
        assert used < 2.0


def test_every_library_is_told_the_same_threads(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    told = worker_environment(3)
    assert {told[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"3"}
    assert told["OMP_WAIT_POLICY"] == "PASSIVE"
    assert told["PATH"] == os.environ["PATH"]


def test_what_the_user_says_of_waiting_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert thread_settings(1)["OMP_WAIT_POLICY"] == "ACTIVE"


def test_streams_measure_side_by_side(fake_cases):
    (case,) = fake_cases((1,), only={"step_us": 10_000, "threads": 2})
    case = replace(case, streams=2, threads=2)
    with CaseWorker(case) as worker:
        open_case(worker, case)
        worker.ask("warm", TIMEOUT_S, limit_ns=50_000_000, tolerance=1.0)
        taken = worker.ask("measure", TIMEOUT_S, budget_ns=200_000_000, minimum=2, maximum=1000)
        worker.ask("finish", TIMEOUT_S)
    # Two sleeps at once: a sample for each 5 ms, though each of them lasts 10.
    rate = len(taken["samples_ns"]) * 1e9 / taken["elapsed_ns"]
    assert 110 < rate <= 200
    assert min(taken["samples_ns"]) >= 10_000_000
