"""The seam to LoadGen: its settings, one test, its verdict.

Read for it: ``loadgen/test_settings.h``, ``issue_query_controller.cc`` and ``results.cc`` of
https://github.com/mlcommons/inference (Apache-2.0). A latency is the time from a query's *scheduled* time
to its completion (``ResponseDelegateDetailed::SampleComplete``). In Server the schedule is drawn before
the test begins, so a slow system delays no later query's scheduled time: what waits in a queue counts.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.scenarios.summary import read_summary

if TYPE_CHECKING:
    from vit_deploy.bench.scenarios.settings import ScenarioSettings
    from vit_deploy.bench.scenarios.summary import Summary
    from vit_deploy.bench.scenarios.sut import SystemUnderTest

BENCHMARK = "resnet50"
"""MLPerf's image classification: the one whose rules a ViT is held to."""

SAMPLES = 1024
"""Size of the set that samples are drawn from; ``performance_sample_count_override`` of that benchmark."""

EARLY_STOPPING = {"SingleStream": 100, "MultiStream": 662, "Server": 662, "Offline": 1}
"""Queries with which LoadGen's early stopping can say yes at its percentiles, one of them late (it takes 64 for
p90), and not below MLPerf's own."""

TOO_SHORT = "Ending early: Max test duration reached"
"""The error that LoadGen logs when ``max_duration_s`` cut a play short; its only fault is the length."""

DEFAULT_LATENCY_S = 0.1
"""LoadGen's own default for Server (``server_target_latency_ns``)."""

SEEDS = ("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed")
_PERCENTILES = {
    "SingleStream": "single_stream_target_latency_percentile",
    "MultiStream": "multi_stream_target_latency_percentile",
    "Server": "server_target_latency_percentile",
}


@dataclass(frozen=True)
class Expected:
    """What was measured before a play; LoadGen makes its queries from it.

    Attributes:
        query_s: seconds that one query takes.
        images_per_s: throughput of full batches.
    """

    query_s: float
    images_per_s: float


def rules(name: str) -> Any:
    """LoadGen's ``TestSettings`` for a scenario by MLPerf's rules, which LoadGen carries (``mlperf.conf``)."""
    import mlperf_loadgen as loadgen

    made = loadgen.TestSettings()
    # The last argument, 0, means the built-in mlperf.conf, for which the path is not read.
    made.FromConfig("", BENCHMARK, name, 0)
    made.scenario = getattr(loadgen.TestScenario, name)
    made.mode = loadgen.TestMode.PerformanceOnly
    return made


def test_settings(name: str, settings: ScenarioSettings, expected: Expected) -> Any:
    """LoadGen's ``TestSettings`` for one play."""
    made = rules(name)
    if not settings.official:
        made.min_duration_ms = max(1, round(settings.min_duration_s * 1e3))
        made.max_duration_ms = round(settings.max_duration_s * 1e3)
        made.min_query_count = settings.min_queries or EARLY_STOPPING[name]
        made.multi_stream_samples_per_query = settings.samples_per_query
        made.server_target_latency_percentile = settings.percentile
        for seed in SEEDS if settings.seed is not None else ():
            setattr(made, seed, settings.seed)
    # Expectations err on the side of too many queries: a play that runs out of them ends early.
    made.single_stream_expected_latency_ns = max(1, round(expected.query_s * 0.5e9))
    made.multi_stream_expected_latency_ns = max(1, round(expected.query_s * 0.5e9))
    made.offline_expected_qps = expected.images_per_s * 1.2
    made.server_target_qps = settings.target_rate or expected.images_per_s * settings.load
    made.server_target_latency_ns = round((settings.target_latency_s or DEFAULT_LATENCY_S) * 1e9)
    made.server_max_async_queries = settings.max_outstanding
    return made


def shortened(name: str, made: Any) -> list[str]:
    """In what a play asks for less than MLPerf's rules do; empty for an official one."""
    by_rule = rules(name)
    found = []
    if made.min_duration_ms < by_rule.min_duration_ms:
        found.append(
            f"{made.min_duration_ms / 1e3:g} s at least, of MLPerf's {by_rule.min_duration_ms / 1e3:g} s"
        )
    if made.min_query_count < by_rule.min_query_count:
        unit = "samples" if name == "Offline" else "queries"
        found.append(f"{made.min_query_count} {unit} at least, of MLPerf's {by_rule.min_query_count}")
    if made.max_duration_ms > 0 and name != "Offline":
        found.append(f"{made.max_duration_ms / 1e3:g} s at most, where MLPerf has no such limit")
    if made.multi_stream_samples_per_query != by_rule.multi_stream_samples_per_query and name == "MultiStream":
        found.append(f"{made.multi_stream_samples_per_query} samples per query, not 8")
    share = _PERCENTILES.get(name)
    if share and getattr(made, share) < getattr(by_rule, share):
        found.append(f"percentile {getattr(made, share) * 100:g}, not {getattr(by_rule, share) * 100:g}")
    if any(getattr(made, seed) != getattr(by_rule, seed) for seed in SEEDS):
        found.append("seeds that are not MLPerf's")
    return found


def ran_out(name: str, summary: Summary) -> bool:
    """Whether a play ended before its time because LoadGen had made too few queries, or too small a one."""
    if name == "Offline":
        return summary.satisfied.get("Min duration") is False
    return any("Ran out of generated queries" in error for error in summary.errors)


def judge(summary: Summary, short: list[str]) -> tuple[str, str]:
    """``valid``, ``short run`` or ``invalid``, and why.

    A play by MLPerf's rules is what LoadGen says it is. A shortened one is a ``short run``, also where all
    that LoadGen misses is more queries or time: it is ``invalid`` where the latency that must hold did not,
    or where something went wrong.

    Args:
        summary: what LoadGen said.
        short: of :func:`shortened`.
    """
    reasons = [name + " not satisfied" for name, held in summary.satisfied.items() if not held]
    reasons += [*summary.reasons, *summary.errors]
    lengths = f"shortened: {'; '.join(short)}" if short else ""
    late = summary.satisfied.get("Performance constraints") is False
    broken = late or any(TOO_SHORT not in error for error in summary.errors)
    if summary.valid and not broken:
        return ("short run", lengths) if short else ("valid", "")
    if short and not broken:
        return "short run", "; ".join([lengths, *reasons])
    return "invalid", "; ".join([*reasons, lengths] if lengths else reasons)


def run_test(made: Any, system: SystemUnderTest) -> Summary:
    """Play once, with the logs in a folder that is gone afterwards.

    Raises:
        RunFailed: when the system under test failed, or LoadGen wrote no result.
    """
    import mlperf_loadgen as loadgen

    logs = loadgen.LogSettings()
    logs.enable_trace = False
    with tempfile.TemporaryDirectory(prefix="vit-deploy-loadgen-") as folder, system:
        logs.log_output.outdir = folder
        tested = loadgen.ConstructSUT(system.issue, system.flush)
        library = loadgen.ConstructQSL(SAMPLES, SAMPLES, _staged_already, _staged_already)
        try:
            # No audit configuration: an audit.config in the user's folder would change the test.
            loadgen.StartTestWithLogSettings(tested, library, made, logs, "")
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(tested)
        system.check()
        return read_summary(_read(folder, "summary"), _read(folder, "detail"))


def _staged_already(indices: list[int]) -> None:
    """Samples lie on the device before the test begins."""


def _read(folder: str, name: str) -> str:
    path = Path(folder) / f"mlperf_log_{name}.txt"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
