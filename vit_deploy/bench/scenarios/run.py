"""The coordinator's end: a worker for each case plays what it is asked; one that dies is a failed result."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.process import CaseFailed
from vit_deploy.bench.scenarios.search import find_rate
from vit_deploy.bench.scenarios.settings import PERCENTILES, available
from vit_deploy.errors import BackendMissing, UsageFailed
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.process import CaseWorker, StartWorker
    from vit_deploy.bench.scenarios.settings import ScenarioSettings, Slo
    from vit_deploy.protocols import Progress

CALIBRATION = "Calibration"
OFFICIAL_S, OFFICIAL_QUERIES = 600.0, 24_576
"""What MLPerf's rules ask for at most; for time limits alone, LoadGen itself knows the rules."""

BRIEF_S = 2.0
"""An Offline play that is there for its throughput alone lasts so long."""

SLACK = 4.0
"""How many times as long as it should take a play may take."""


def run_scenarios(
    cases: Sequence[Case],
    names: Sequence[str],
    settings: ScenarioSettings,
    slo: Slo | None = None,
    *,
    start_worker: StartWorker | None = None,
    progress: Progress | None = None,
    finished: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Play scenarios on each case, one after the other, each case in a worker process of its own.

    Args:
        cases: what is played on; only those of role ``case``.
        names: of :data:`vit_deploy.bench.scenarios.SCENARIOS`.
        settings: how long, how many queries, which rate.
        slo: search Server's highest rate that holds it; Server is played then, named or not.
        start_worker: starts the worker of a case; this environment's when ``None``.
        progress: told of each play.
        finished: told of each result as soon as it is there, so that an interruption loses none.

    Returns:
        A dict for each case and scenario: ``key``, ``scenario``, ``ok``, ``error``, ``verdict`` (``valid``,
        ``short run`` or ``invalid``), ``why``, ``target_rate`` and ``achieved_rate`` in images per second,
        ``queries``, ``latency_ms`` by percentile (``None`` where the queries are too few), ``slo`` (see
        :func:`vit_deploy.bench.scenarios.find_rate`), ``harness_us``, and what LoadGen said.

    Raises:
        BackendMissing: when LoadGen is not installed.
        UsageFailed: when there is nothing to play.
    """
    found = available()
    if not found.ok:
        raise BackendMissing(found.reason, expected="MLPerf's LoadGen", next_command=found.mend)
    wanted = list(dict.fromkeys([*names, *(["Server"] if slo else [])]))
    played = [case for case in cases if case.role == "case"]
    if not played or not wanted:
        raise UsageFailed("there is no scenario to play", expected="at least one case and one scenario")
    results = []
    for case in played:
        with _Stage(case, settings, start_worker, progress or Silent()) as stage:
            for name in wanted:
                result = stage.play(name, slo if name == "Server" else None)
                results.append(result)
                if finished is not None:
                    finished(result)
    return results


class _Stage:
    """One case and its worker, which is started when it is needed, and again after it died."""

    def __init__(
        self, case: Case, settings: ScenarioSettings, start: StartWorker | None, progress: Progress
    ) -> None:
        self._case, self._settings = case, settings
        self._start, self._progress = start, progress
        self._worker: CaseWorker | None = None
        self._measured: dict[str, Any] = {}
        self._capacity: float | None = None

    def play(self, name: str, slo: Slo | None = None) -> dict[str, Any]:
        """The result of one scenario, failed or not."""
        told = {"key": self._case.key, "scenario": name, "slo": None}
        try:
            self._open()
            self._progress.phase(f"{self._case.artefact} on {self._case.backend}: {name}")
            played = self._server(slo) if name == "Server" else self._ask(name, self._settings)
            self._progress.advance()
        except CaseFailed as failure:
            self.close(at_once=True)
            return {**told, **_failed(failure)}
        if name == "Offline":
            self._capacity = played["achieved_rate"]
        return {**told, "ok": True, "error": None, "exit_code": 0, "worker_exit": None, **played}

    def _server(self, slo: Slo | None) -> dict[str, Any]:
        """Server at the rate that was asked for, or at a share of what Offline has shown to be possible."""
        settings = self._settings
        if slo is None:
            if settings.target_rate is None:
                settings = replace(settings, target_rate=settings.load * self._throughput())
            return self._ask("Server", settings)
        return find_rate(
            slo,
            settings,
            capacity=self._throughput(),
            sample_ms=self._measured["sample_ms"],
            play=lambda asked: self._ask("Server", asked),
            progress=self._progress,
        )

    def _throughput(self) -> float:
        """Images per second of Offline: of the play that was asked for if there was one, or a brief one."""
        if self._capacity is None:
            self._progress.phase(f"{self._case.artefact} on {self._case.backend}: what it can do at most")
            brief = min(self._settings.min_duration_s, BRIEF_S)
            asked = replace(self._settings, official=False, min_queries=0, min_duration_s=brief)
            self._capacity = float(self._ask("Offline", asked)["achieved_rate"])
        return self._capacity

    def _open(self) -> None:
        if self._worker is not None:
            return
        if self._start is None:
            from vit_deploy.bench.process import start_worker

            self._start = start_worker
        self._progress.phase(f"{self._case.artefact} on {self._case.backend}: starting")
        worker = self._worker = self._start(self._case)
        timeout = self._settings.timeout_s
        worker.ask("open", timeout, case=self._case.to_dict(), spawned_ns=worker.spawned_ns)
        self._measured = worker.ask("scenario", timeout, name=CALIBRATION, settings={})

    def _ask(self, name: str, settings: ScenarioSettings) -> dict[str, Any]:
        if self._worker is None:
            raise CaseFailed("the worker was never started")
        limit = settings.timeout_s + SLACK * self._seconds(name, settings)
        return self._worker.ask("scenario", limit, name=name, settings=asdict(settings))

    def _seconds(self, name: str, settings: ScenarioSettings) -> float:
        """How long a play should take, by what was measured before it."""
        shortest, longest = settings.min_duration_s, settings.max_duration_s
        queries = settings.min_queries or 1024
        if settings.official:
            shortest, longest, queries = OFFICIAL_S, 0.0, OFFICIAL_QUERIES
        rate = settings.target_rate if name == "Server" else None
        own = self._measured["images_per_s"] / (settings.samples_per_query if name == "MultiStream" else 1)
        whole = max(shortest, queries / (rate or own * settings.load))
        return min(whole, longest) if longest and name != "Offline" else whole

    def close(self, *, at_once: bool = False) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close(at_once=at_once)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(at_once=kind is not None)


def _failed(failure: CaseFailed) -> dict[str, Any]:
    """A result without figures, with the names that others have."""
    text = str(failure) or "the worker failed without a word"
    return {
        "ok": False,
        "error": text,
        "exit_code": failure.exit_code,
        "worker_exit": failure.worker_exit,
        "verdict": "invalid",
        "why": text.splitlines()[0],
        "target_rate": None,
        "achieved_rate": None,
        "queries": 0,
        "samples": 0,
        "samples_per_query": None,
        "elapsed_s": None,
        "latency_ms": dict.fromkeys(PERCENTILES),
        "batches": {},
        "harness_us": None,
        "loadgen": None,
        "asked": None,
    }
