"""The highest rate of Server that holds a latency: bisection between measured limits, then a confirmation.

MLPerf's rules have LoadGen search such a rate in the same way, "a binary search to find a candidate value",
then smaller steps down until it is stable (inference_rules.adoc, "LoadGen Operation").
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.statistics import samples_needed

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.bench.scenarios.settings import ScenarioSettings, Slo
    from vit_deploy.protocols import Progress

    Play = Callable[[ScenarioSettings], dict[str, Any]]
    """Plays Server once, and gives its result."""

SPAN = 20.0
"""The search begins between a share 1 / SPAN of the throughput and all of it. At the lower end hardly a
query finds another one before it: what does not hold there holds nowhere."""

STEP_DOWN = 0.95
CONFIRMATIONS = 4
LONGER = 2
"""A confirmation has so many times the queries, and lasts so many times as long."""

QUEUE = 10
LEAST_QUEUE = 100
"""LoadGen gives a rate up when more queries wait than QUEUE times those which arrive within the limit."""


@dataclass(frozen=True)
class Probe:
    """One rate that was tried.

    Attributes:
        rate: queries per second that were asked for.
        latency_ms: the SLO's percentile; ``None`` where too few queries were done to tell.
        achieved_rate: queries per second that were done.
        queries: how many were issued.
        held: whether the percentile was within the limit, over enough queries.
        confirms: whether it was one of the longer runs at the end.
    """

    rate: float
    latency_ms: float | None
    achieved_rate: float
    queries: int
    held: bool
    confirms: bool


def find_rate(
    slo: Slo,
    settings: ScenarioSettings,
    *,
    capacity: float,
    sample_ms: float,
    play: Play,
    progress: Progress,
) -> dict[str, Any]:
    """The result of Server at the highest rate that holds the SLO; at the best that was seen if none does.

    Args:
        slo: what must hold.
        settings: of each probe; its length is at least what the percentile needs to be bounded.
        capacity: images per second of the Offline scenario: no higher rate can be held.
        sample_ms: what one image takes alone. Where that is above the limit, one probe shows it.
        play: plays Server.
        progress: told of each probe.

    Returns:
        The scenario's result; its ``slo`` has ``met``, ``rate``, ``capacity``, ``best`` and ``probes``.
    """
    search = _Search(slo, settings, play, progress)
    if sample_ms > slo.limit_ms:
        search.probe(capacity / SPAN, "the lowest rate")
    else:
        search.bisect(capacity / SPAN, capacity)
        search.confirm()
    return search.result(capacity)


class _Search:
    def __init__(self, slo: Slo, settings: ScenarioSettings, play: Play, progress: Progress) -> None:
        self._slo, self._settings = slo, settings
        self._play, self._progress = play, progress
        self._tried: list[tuple[Probe, dict[str, Any]]] = []

    def bisect(self, low: float, high: float) -> None:
        """Halve the bracket, in logarithms, a fixed number of times."""
        total = self._settings.probes
        for number in range(1, total + 1):
            middle = math.sqrt(low * high)
            if self.probe(middle, f"probe {number} of {total}"):
                low = middle
            else:
                high = middle

    def confirm(self) -> None:
        """Play the highest rate that held once more, longer, and a lower one each time that does not hold.

        A probe is short, so that the highest of those which held is held by luck at times.
        """
        held = [probe.rate for probe, _ in self._tried if probe.held]
        if not held:
            return
        for number in range(CONFIRMATIONS):
            text = f"confirmation {number + 1}"
            if self.probe(max(held) * STEP_DOWN**number, text, confirms=True):
                return

    def probe(self, rate: float, text: str, *, confirms: bool = False) -> bool:
        """Play one rate; whether it held."""
        times = LONGER if confirms else 1
        needed = samples_needed(self._slo.percentile)
        asked = replace(
            self._settings,
            official=False,
            target_rate=rate,
            target_latency_s=self._slo.limit_s,
            percentile=self._slo.percentile,
            min_duration_s=self._settings.min_duration_s * times,
            max_duration_s=0.0,
            min_queries=needed * times,
            max_outstanding=max(LEAST_QUEUE, math.ceil(QUEUE * rate * self._slo.limit_s)),
        )
        seconds = max(asked.min_duration_s, asked.min_queries / rate)
        self._progress.phase(f"{self._slo}: {text}, {rate:.4g} queries/s for {seconds:.0f} s")
        found = self._play(asked)
        latency = found["latency_ms"][self._slo.name]
        whole = not found["loadgen"]["errors"]
        held = whole and latency is not None and latency <= self._slo.limit_ms
        made = Probe(rate, latency, found["achieved_rate"], found["queries"], held, confirms)
        self._tried.append((made, found))
        self._progress.advance()
        return held

    def result(self, capacity: float) -> dict[str, Any]:
        """The confirmed play, or the best of those that did not hold, with what was tried."""
        probes = [probe for probe, _ in self._tried]
        confirmed = [entry for entry in self._tried if entry[0].confirms and entry[0].held]
        best, found = confirmed[-1] if confirmed else min(self._tried, key=_badness)
        told = {
            "text": str(self._slo),
            "percentile": self._slo.name,
            "limit_ms": self._slo.limit_ms,
            "met": bool(confirmed),
            "rate": best.rate if confirmed else None,
            "capacity": capacity,
            "best": {"latency_ms": best.latency_ms, "rate": best.rate},
            "probes": [asdict(probe) for probe in probes],
        }
        if confirmed:
            return {**found, "slo": told}
        return {**found, "slo": told, "verdict": "invalid", "why": self._cannot(best)}

    def _cannot(self, best: Probe) -> str:
        """Why no rate is given."""
        at = f"at {best.rate:.4g} queries/s"
        if best.latency_ms is None:
            return f"{self._slo} cannot be met: at every rate too many queries waited, {at} too"
        seen = f"{self._slo.name} was {best.latency_ms:.4g} ms at best, {at}"
        if best.held:
            return f"{self._slo} could not be confirmed: {seen} in a short probe, and longer ones were late"
        return f"{self._slo} cannot be met: {seen}"


def _badness(entry: tuple[Probe, dict[str, Any]]) -> float:
    latency = entry[0].latency_ms
    return math.inf if latency is None else latency
