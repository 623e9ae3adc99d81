from __future__ import annotations

import pytest

from vit_deploy.bench.scenarios import ScenarioSettings, find_rate, parse_slo
from vit_deploy.bench.scenarios.search import CONFIRMATIONS, LONGER, SPAN
from vit_deploy.bench.statistics import samples_needed
from vit_deploy.protocols import Silent

CAPACITY, SERVICE_MS = 100.0, 10.0
SETTINGS = ScenarioSettings(min_duration_s=1, max_duration_s=4, probes=6)


class Server:
    """A queue whose latencies are those of theory, near enough: service over one minus the load."""

    def __init__(self, longer_is_slower=1.0, errors=()):
        self.asked = []
        self.longer_is_slower = longer_is_slower
        self.errors = list(errors)

    def __call__(self, settings):
        self.asked.append(settings)
        load = settings.target_rate / CAPACITY
        latency = SERVICE_MS / (1 - load)
        if settings.min_duration_s > SETTINGS.min_duration_s:
            latency *= self.longer_is_slower
        return {
            "latency_ms": {"p99": latency, "p90": latency / 2},
            "achieved_rate": settings.target_rate,
            "queries": settings.min_queries,
            "loadgen": {"errors": self.errors},
            "verdict": "short run",
            "why": "",
            "target_rate": settings.target_rate,
        }


def search(text, play, sample_ms=SERVICE_MS, settings=SETTINGS):
    slo = parse_slo(text)
    return find_rate(slo, settings, capacity=CAPACITY, sample_ms=sample_ms, play=play, progress=Silent())


@pytest.mark.parametrize(("limit_ms", "exact"), [(20, 50.0), (40, 75.0), (12.5, 20.0)])
def test_the_highest_rate_is_found_from_below(limit_ms, exact):
    found = search(f"p99={limit_ms}ms", Server())
    assert found["slo"]["met"]
    resolution = SPAN ** (2.0**-SETTINGS.probes)
    assert exact / resolution <= found["slo"]["rate"] <= exact
    assert found["target_rate"] == found["slo"]["rate"]
    assert found["latency_ms"]["p99"] <= limit_ms
    assert found["slo"]["capacity"] == CAPACITY


def test_a_probe_is_long_enough_for_its_percentile_and_the_confirmation_longer():
    play = Server()
    search("p99=20ms", play)
    *probes, last = play.asked
    assert len(probes) == SETTINGS.probes
    for asked in probes:
        assert asked.min_queries == samples_needed(0.99)
        assert asked.max_duration_s == 0  # nothing may cut it short
        assert asked.target_latency_s == pytest.approx(0.02)
        assert asked.percentile == 0.99
        assert asked.max_outstanding >= asked.target_rate * 0.02
    assert last.min_queries == LONGER * samples_needed(0.99)
    assert last.min_duration_s == LONGER * SETTINGS.min_duration_s


def test_a_rate_that_is_not_confirmed_is_lowered():
    found = search("p99=20ms", Server(longer_is_slower=1.05))
    tries = [probe for probe in found["slo"]["probes"] if probe["confirms"]]
    assert [probe["held"] for probe in tries] == [False] * (len(tries) - 1) + [True]
    assert 1 < len(tries) <= CONFIRMATIONS
    assert found["slo"]["rate"] == tries[-1]["rate"] < tries[0]["rate"]


def test_one_that_is_never_confirmed_is_not_met():
    found = search("p99=20ms", Server(longer_is_slower=3.0))
    assert not found["slo"]["met"]
    assert found["slo"]["rate"] is None
    assert "could not be confirmed" in found["why"]


def test_one_that_cannot_be_met_says_the_best_that_was_seen():
    found = search("p99=10.1ms", Server())
    assert not found["slo"]["met"]
    assert found["verdict"] == "invalid"
    best = found["slo"]["best"]
    assert best["latency_ms"] == min(probe["latency_ms"] for probe in found["slo"]["probes"])
    assert best["rate"] == min(probe["rate"] for probe in found["slo"]["probes"])
    assert f"{best['latency_ms']:.4g} ms at best, at {best['rate']:.4g} queries/s" in found["why"]


def test_a_model_slower_than_the_limit_takes_one_probe():
    play = Server()
    found = search("p99=9ms", play)
    assert len(play.asked) == 1
    assert play.asked[0].target_rate == CAPACITY / SPAN
    assert "cannot be met" in found["why"]


def test_a_probe_that_loadgen_gave_up_holds_nothing():
    found = search("p99=50ms", Server(errors=["Ending early: Too many outstanding queries"]))
    assert not any(probe["held"] for probe in found["slo"]["probes"])
    assert not found["slo"]["met"]
