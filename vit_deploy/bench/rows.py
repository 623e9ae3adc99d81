"""The row of a case: its figures and their intervals are derived from raw data here and nowhere else."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.bootstrap import Estimate, round_medians, round_rates
from vit_deploy.bench.launches import by_launch, median_over_launches, over_launches, ratio_of_rounds
from vit_deploy.bench.machine import IDLE_LIMIT
from vit_deploy.bench.measured import PHASES
from vit_deploy.bench.result import Row
from vit_deploy.bench.statistics import CONFIDENCE, median, tail_quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vit_deploy.bench.measured import Measured

NS_PER_MS = 1e6


def make_row(measured: Measured, baseline: Measured | None = None, ceilings: Sequence[Measured] = ()) -> Row:
    """The row of a case.

    Args:
        measured: what its worker gave.
        baseline: what it is compared with; ``None`` for nothing.
        ceilings: what was measured of the matrix products that bound it.
    """
    case, ok = measured.case, not measured.error
    shared = {entry.name: getattr(case, entry.name) for entry in fields(Row) if hasattr(case, entry.name)}
    figures: dict[str, Any] = dict.fromkeys((*_FIGURES, *_COMPARED, "limit", "gpu"))
    if ok:
        figures.update(_figures(measured), **_compared(measured, baseline))
        figures["limit"] = _limit(measured, figures, ceilings)
        figures["gpu"] = dict(measured.gpu) or None
    told: dict[str, Any] = {
        "ok": ok,
        "error": measured.error or None,
        "exit_code": measured.exit_code,
        "worker_exit": measured.worker_exit,
        "cold_start_ms": _milliseconds(measured.cold_start_ns),
        "peak_rss_bytes": measured.peak_rss_bytes,
        "peak_device_bytes": measured.peak_device_bytes,
        "warm_up": _warm_up(measured),
        "disturbed": tuple(measured.disturbed),
        "notes": _notes(measured) if ok else (),
        "facts": dict(measured.facts) or None,
        "round_lengths": tuple(len(entry) for entry in measured.rounds),
        "round_elapsed_ns": tuple(measured.elapsed_ns),
        "launch_lengths": tuple(measured.launch_lengths),
        "samples_ns": tuple(measured.samples),
    }
    return Row(**{**shared, **figures, **told, "files": dict(case.files)})


_FIGURES = (
    *("p50_ms", "p50_interval_ms", "p90_ms", "p99_ms", "half_width"),
    *("images_per_s", "images_per_s_interval"),
)
_COMPARED = (
    *("ratio", "ratio_interval", "throughput_ratio", "throughput_ratio_interval"),
    *("baseline", "baseline_key"),
)


def _figures(measured: Measured) -> dict[str, Any]:
    samples, size = measured.samples, measured.case.batch_size
    p90, p99 = tail_quantile(samples, 0.9), tail_quantile(samples, 0.99)
    known = median_over_launches(measured.rounds, measured.launch_lengths)
    rates = [rate and size * rate for rate in round_rates(measured.rounds, measured.elapsed_ns)]
    told = [[rate for rate in launch if rate] for launch in by_launch(rates, measured.launch_lengths)]
    rate = over_launches(told)
    return {
        "p50_ms": median(samples) / NS_PER_MS,
        "p50_interval_ms": _scaled(known, NS_PER_MS),
        "p90_ms": None if p90 is None else p90 / NS_PER_MS,
        "p99_ms": None if p99 is None else p99 / NS_PER_MS,
        "half_width": known.half_width if known else None,
        "images_per_s": rate.value if rate else None,
        "images_per_s_interval": _scaled(rate),
    }


def _scaled(found: Estimate | None, unit: float = 1.0) -> tuple[float, float] | None:
    if found is None or found.interval is None:
        return None
    return found.interval[0] / unit, found.interval[1] / unit


def latency_ratio(measured: Measured, baseline: Measured, *, confidence: float = CONFIDENCE) -> Estimate | None:
    """Latency over the baseline's, the medians of each round paired: below 1 is faster."""
    mine, theirs = round_medians(measured.rounds), round_medians(baseline.rounds)
    return ratio_of_rounds(mine, theirs, measured.launch_lengths, confidence=confidence)


def throughput_ratio(measured: Measured, baseline: Measured) -> Estimate | None:
    """Images per second over the baseline's, paired by round: above 1 is faster."""
    mine, theirs = (
        [rate and entry.case.batch_size * rate for rate in round_rates(entry.rounds, entry.elapsed_ns)]
        for entry in (measured, baseline)
    )
    return ratio_of_rounds(mine, theirs, measured.launch_lengths)


def _compared(measured: Measured, baseline: Measured | None) -> dict[str, Any]:
    """Ratios to the baseline; those of the baseline itself are 1, and certain."""
    if baseline is None or baseline.error:
        return {}
    named = {
        "baseline": f"{baseline.case.artefact} on {baseline.case.backend}",
        "baseline_key": baseline.case.key,
    }
    itself = Estimate(1.0, (1.0, 1.0))
    latency = itself if measured is baseline else latency_ratio(measured, baseline)
    throughput = itself if measured is baseline else throughput_ratio(measured, baseline)
    return {
        **named,
        "ratio": latency.value if latency else None,
        "ratio_interval": _scaled(latency),
        "throughput_ratio": throughput.value if throughput else None,
        "throughput_ratio_interval": _scaled(throughput),
    }


def _limit(
    measured: Measured, figures: Mapping[str, Any], ceilings: Sequence[Measured]
) -> dict[str, Any] | None:
    if not ceilings or figures["images_per_s"] is None:
        return None
    from vit_deploy.bench.ceiling import limit_of

    p50_ns = figures["p50_ms"] * NS_PER_MS
    found: dict[str, Any] | None = limit_of(measured.case, p50_ns, figures["images_per_s"], ceilings)
    return found


def _milliseconds(phases: Mapping[str, int]) -> dict[str, float] | None:
    return {name: phases[name] / NS_PER_MS for name in PHASES} if phases else None


def _warm_up(measured: Measured) -> dict[str, Any] | None:
    if not measured.warm_up:
        return None
    return {**measured.warm_up, "idle_share": measured.idle_share}


def _notes(measured: Measured) -> tuple[str, ...]:
    idle = measured.idle_share
    notes = {
        "unverified": not measured.case.verified,
        "CUDA graph": measured.case.cuda_graph,
        "warm-up did not settle": not measured.warm_up.get("settled", True),
        "threads ran on between its turns": not measured.rested,
        f"used {100 * (idle or 0):.0f} % of a core while others measured": (idle or 0) > IDLE_LIMIT,
        "disturbed: " + ", ".join(measured.disturbed): bool(measured.disturbed),
    }
    return (*measured.case.remarks, *(text for text, holds in notes.items() if holds))
