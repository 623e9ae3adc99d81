"""What ``bench`` shows of a result: its table, what is to be said below it, and the next command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import human_bytes, next_step, note, print_table, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vit_deploy.bench.result import BenchResult, Row
    from vit_deploy.bundle.reader import Bundle


def print_result(result: BenchResult) -> None:
    """The result as a table on stdout; columns that hold nothing in any row are left out."""
    shown = [
        column
        for column in _columns(result)
        if column[0] in _ALWAYS or any(cell not in _NOTHING for cell in column[1])
    ]
    headings = [f"{name}>" if name in _RIGHT else name for name, _ in shown]
    print_table(headings, zip(*(cells for _, cells in shown), strict=True), title=_title(result))
    for scenario in result.scenarios:
        click.echo(_scenario_line(scenario))


_NOTHING = ("", "–")
_FIGURES = {"batch", "p50 ms", "±", "p90", "p99", "img/s", "ratio", "95 %", "cold s", "peak"}
_ALWAYS = {"artefact", "backend", *_FIGURES}
_RIGHT = {*_FIGURES, "threads", "of GEMM"}


def _columns(result: BenchResult) -> list[tuple[str, list[str]]]:
    """Every column that there could be, by name."""
    rows = result.rows
    sizes = len({row.image_size for row in rows}) > 1
    lanes = len({(row.threads, row.streams) for row in rows}) > 1
    return [
        ("artefact", [row.artefact for row in rows]),
        ("backend", [row.backend if row.device == "cpu" else f"{row.backend} on {row.device}" for row in rows]),
        ("batch", [str(row.batch_size) for row in rows]),
        ("size", [_size(row) if sizes else "" for row in rows]),
        ("threads", [_threads(row) if lanes else "" for row in rows]),
        ("p50 ms", [number(row.p50_ms) for row in rows]),
        ("±", [_share(row.half_width, 1) for row in rows]),
        ("p90", [number(row.p90_ms) for row in rows]),
        ("p99", [number(row.p99_ms) for row in rows]),
        ("img/s", [number(row.images_per_s) for row in rows]),
        ("ratio", ["–" if row.ratio is None else f"{row.ratio:.2f}" for row in rows]),
        ("95 %", [_interval(row.ratio_interval) if row.key != row.baseline_key else "–" for row in rows]),
        ("of GEMM", [_share((row.limit or {}).get("share"), 0) for row in rows]),
        ("cold s", [_cold(row) for row in rows]),
        ("peak", ["–" if row.peak_rss_bytes is None else human_bytes(row.peak_rss_bytes) for row in rows]),
        ("note", [_note(row) for row in rows]),
    ]


def number(value: float | None) -> str:
    """Three significant digits, never in powers of ten; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:#.3g}"


def _share(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _interval(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _size(row: Row) -> str:
    from vit_deploy.spec import size_text

    return size_text(row.image_size) if row.image_size else "–"


def _threads(row: Row) -> str:
    """``1 × 2``: threads of a stream, and streams."""
    return f"{row.threads // row.streams} × {row.streams}" if row.device == "cpu" else f"– × {row.streams}"


def _cold(row: Row) -> str:
    return "–" if row.cold_start_ms is None else f"{sum(row.cold_start_ms.values()) / 1e3:.2f}"


def _note(row: Row) -> str:
    return "; ".join(row.notes) if row.ok else "failed, see below"


def _title(result: BenchResult) -> str:
    devices = dict.fromkeys(row.device for row in result.rows)
    threads = dict.fromkeys(row.threads for row in result.rows if row.device == "cpu")
    words = [", ".join(devices), *(f"{count} thread{'s' if count > 1 else ''}" for count in threads)]
    return f"Latency on {', '.join(words)}"


def _scenario_line(told: dict[str, Any]) -> str:
    """A line for one scenario of one case."""
    parts = [f"{told['key']}: {told['scenario']}: {told['verdict'] if told['ok'] else 'failed'}"]
    if told.get("achieved_rate") is not None:
        parts.append(f"{number(told['achieved_rate'])} images/s")
    latencies = told.get("latency_ms") or {}
    parts += [
        f"{name} {number(latencies[name])} ms" for name in _PERCENTILES if latencies.get(name) is not None
    ]
    return ", ".join(filter(None, [*parts, told.get("why"), told.get("error")]))


_PERCENTILES = ("p50", "p90", "p99")


def unmet_slos(scenarios: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each case on which no rate held the SLO, with the best that was seen."""
    return [
        f"{told['key']}: {told['why']}"
        for told in scenarios
        if told.get("slo") is not None and not told["slo"].get("met")
    ]


def tell_of(result: BenchResult) -> None:
    """On stderr: what failed, and what must be known before a figure is believed."""
    for row in result.rows:
        if not row.ok:
            warn(f"{row.artefact} on {row.backend}, batch {row.batch_size}, failed: {row.error}")
    for row in filter(lambda row: row.disturbed, result.rows):
        why = "; ".join(row.disturbed)
        warn(f"{row.artefact} on {row.backend}, batch {row.batch_size}, was disturbed: {why}")
    soundness = result.soundness or {}
    bounds = soundness.get("ratio_interval")
    if bounds:
        note(f"the same against itself (A/A): {soundness['ratio']:.3f} ({bounds[0]:.3f}–{bounds[1]:.3f})")
    if soundness.get("sound") is False:
        warn(f"this run is unsound: {soundness.get('reason')}")
    if result.interrupted:
        warn("the run was stopped: what is shown is what was measured until then")


def end(result: BenchResult, bundle: Bundle) -> None:
    """The next useful command."""
    rates = {row.images_per_s: row for row in result.rows if row.images_per_s is not None}
    fastest = rates[max(rates)] if rates else None
    where = shlex.quote(str(bundle.path))
    classifies = any("logits" in record.io_spec().output_names for record in bundle.records.values())
    if fastest is None:
        next_step("vit-deploy doctor")
    elif not classifies:
        next_step(f"vit-deploy verify {where}")
    else:
        next_step(f"vit-deploy predict {where} IMAGE --backend {fastest.backend}")
