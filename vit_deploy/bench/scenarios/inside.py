"""A scenario inside the worker process of a case: steps are staged, timed, and put behind LoadGen.

Answers, as plain data:

    play("Calibration", …)  -> {sample_ms, images_per_s, harness_us, version}
    play(scenario, …)       -> what :mod:`.run` puts into its results, without the case's key
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.scenarios import loadgen
from vit_deploy.bench.scenarios.settings import PERCENTILES, ScenarioSettings, available
from vit_deploy.bench.scenarios.sut import SystemUnderTest
from vit_deploy.bench.statistics import median, samples_needed
from vit_deploy.bench.timing import time_steps
from vit_deploy.errors import BackendMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.scenarios.summary import Summary
    from vit_deploy.protocols import Arrays, Session, Step
    from vit_deploy.spec import IOSpec

CALIBRATION = "Calibration"
WARM_UP_S, WINDOW_NS = 2.0, 100_000_000
STABLE = 0.05
HARNESS_QUERIES = 2000

REPLAYS = 3
"""LoadGen makes its queries before a play, so many as what was measured before lets expect. On a machine that
was busy just then, the play runs out of them and is played again, by what it showed itself."""

_RATES = {
    "SingleStream": "QPS w/ loadgen overhead",
    "Offline": "Samples per second",
    "Server": "Completed samples per second",
}
"""The line of LoadGen's summary that says images per second; MultiStream has none."""


class NullStep:
    """A step that does nothing: what is left is the harness."""

    def __call__(self) -> None:
        """Nothing."""

    def synchronize(self) -> None:
        """Nothing."""


class Player:
    """Plays scenarios on one open session.

    Args:
        session: opened for ``case``.
        case: says the largest batch and the number of streams.
        spec: of the artefact: which batch sizes it takes.
        inputs_at: inputs of a batch size.
    """

    def __init__(self, session: Session, case: Case, spec: IOSpec, inputs_at: Callable[[int], Arrays]) -> None:
        self._session, self._case, self._spec, self._inputs_at = session, case, spec, inputs_at
        self._staged: dict[int, list[Step]] = {}
        self._seconds: dict[int, float] = {}
        self._harness: dict[bool, float] = {}

    def play(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Play one scenario, or calibrate.

        Args:
            name: of :data:`vit_deploy.bench.scenarios.SCENARIOS`, or :data:`CALIBRATION`.
            settings: the fields of :class:`~vit_deploy.bench.scenarios.ScenarioSettings`.

        Raises:
            BackendMissing: when LoadGen is not installed.
            RunFailed: when an inference failed, or LoadGen gave no result.
        """
        found = available()
        if not found.ok:
            raise BackendMissing(found.reason, expected="MLPerf's LoadGen", next_command=found.mend)
        if name == CALIBRATION:
            return self._calibrate(found.version)
        return self._scenario(name, ScenarioSettings(**settings))

    def _calibrate(self, version: str) -> dict[str, Any]:
        sample = self._time(self._sizes("SingleStream")[0])
        return {
            "sample_ms": sample * 1e3,
            "images_per_s": self._throughput(),
            "harness_us": {"inline": self._harness_us(True), "queued": self._harness_us(False)},
            "version": version,
        }

    def _scenario(self, name: str, settings: ScenarioSettings) -> dict[str, Any]:
        count = 1 if name == "SingleStream" else self._case.streams
        inline = count == 1 and name in ("SingleStream", "MultiStream")
        sizes = self._sizes(name)
        streams = [{size: self._steps(size)[number] for size in sizes} for number in range(count)]
        expected = self._expected(name, settings, sizes)
        for _ in range(REPLAYS):
            made = loadgen.test_settings(name, settings, expected)
            system = SystemUnderTest(streams, merge=name == "Server", inline=inline)
            summary = loadgen.run_test(made, system)
            if not loadgen.ran_out(name, summary):
                break
            expected = loadgen.Expected(summary.latency_ms["p50"] / 1e3, system.rate)
        verdict, why = loadgen.judge(summary, loadgen.shortened(name, made))
        rate = summary.number(_RATES.get(name, ""))
        return {
            "verdict": verdict,
            "why": why,
            "target_rate": made.server_target_qps if name == "Server" else None,
            "achieved_rate": system.rate if rate is None else rate,
            "queries": system.queries,
            "samples": system.samples,
            "samples_per_query": system.samples // max(1, system.queries),
            "elapsed_s": system.elapsed_s,
            "latency_ms": _latencies(name, summary, system.queries),
            "batches": {str(size): runs for size, runs in sorted(system.batches.items())},
            "harness_us": self._harness_us(inline),
            "loadgen": {
                "version": available().version,
                "result": "VALID" if summary.valid else "INVALID",
                "satisfied": dict(summary.satisfied),
                "lines": list(summary.lines),
                "errors": list(summary.errors),
            },
            "asked": _asked(name, made),
        }

    def _sizes(self, name: str) -> list[int]:
        """The batch sizes that a scenario may run, falling to one that a single sample fits or is padded to."""
        batch, most = self._spec.batch, self._case.batch_size
        if batch.is_fixed or name == "Offline":
            return [most]
        powers = [2**power for power in range(most.bit_length()) if 2**power <= most]
        able = sorted({size for size in [*powers, most] if size >= batch.minimum}) or [most]
        return able[:1] if name == "SingleStream" else able

    def _steps(self, size: int) -> list[Step]:
        """The step of each stream at a batch size; staged once, and run once.

        All streams in turn, also where one alone is played on: a runtime gives out its streams in that order.
        """
        if size not in self._staged:
            inputs = self._inputs_at(size)
            steps = [self._session.stage(inputs) for _ in range(self._case.streams)]
            for step in steps:
                step()
                step.synchronize()
            self._staged[size] = steps
        return self._staged[size]

    def _time(self, size: int) -> float:
        """Seconds of an inference of that size on one stream: its median once two windows' agree."""
        if size not in self._seconds:
            step, previous, deadline = self._steps(size)[0], 0.0, time.monotonic() + WARM_UP_S
            while True:
                present = median(time_steps(step, WINDOW_NS, minimum=3))
                if abs(present - previous) <= STABLE * previous or time.monotonic() > deadline:
                    break
                previous = present
            self._seconds[size] = max(present / 1e9, 1e-7)
        return self._seconds[size]

    def _throughput(self) -> float:
        """Images per second that full batches on all streams would give, were streams not to share a thing."""
        size = self._case.batch_size
        return self._case.streams * size / self._time(size)

    def _expected(self, name: str, settings: ScenarioSettings, sizes: list[int]) -> loadgen.Expected:
        samples = settings.samples_per_query if name == "MultiStream" else 1
        each = -(-samples // (self._case.streams * sizes[-1]))
        return loadgen.Expected(query_s=each * self._time(sizes[-1]), images_per_s=self._throughput())

    def _harness_us(self, inline: bool) -> float:
        """Microseconds that LoadGen and this harness add to a query: the median of a step of nothing."""
        if inline not in self._harness:
            asked = ScenarioSettings(min_duration_s=0.02, max_duration_s=1, min_queries=HARNESS_QUERIES)
            made = loadgen.test_settings("SingleStream", asked, loadgen.Expected(4e-6, 1e5))
            summary = loadgen.run_test(made, SystemUnderTest([{1: NullStep()}], inline=inline))
            self._harness[inline] = summary.latency_ms["p50"] * 1e3
        return self._harness[inline]


def _latencies(name: str, summary: Summary, queries: int) -> dict[str, float | None]:
    """By percentile; ``None`` where the queries are too few to bound it.

    In Offline, where all is asked at once, a latency says nothing but the place in the line.
    """
    return {
        percentile: summary.latency_ms.get(percentile)
        if name != "Offline" and queries >= samples_needed(share)
        else None
        for percentile, share in PERCENTILES.items()
    }


def _asked(name: str, made: Any) -> dict[str, Any]:
    """What LoadGen was told, as far as it governs the scenario."""
    asked = {
        "min_duration_s": made.min_duration_ms / 1e3,
        "max_duration_s": made.max_duration_ms / 1e3,
        "min_queries": made.min_query_count,
        "seeds": [str(getattr(made, seed)) for seed in loadgen.SEEDS],  # too long for a number in JSON
    }
    if name == "Server":
        asked["target_latency_ms"] = made.server_target_latency_ns / 1e6
        asked["percentile"] = made.server_target_latency_percentile
        asked["max_outstanding"] = made.server_max_async_queries
    return asked
