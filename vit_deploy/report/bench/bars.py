"""Bars from nought: peak memory, and what a cold start is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.report.bench import words
from vit_deploy.report.bench.lanes import Axis, Lane, Place, bar, lane_chart
from vit_deploy.report.bench.rows import Naming
from vit_deploy.report.charts import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.bench.document import RowRecord

_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_TIMES = ((1e3, "s"), (1.0, "ms"))


def memory_figure(rows: Sequence[RowRecord]) -> Figure | None:
    """The most memory that each worker had resident, and below it what it held on the GPU."""
    shown = [row for row in rows if row.peak_rss_bytes]
    if not shown:
        return None
    naming = Naming(rows)
    most = max(max(row.peak_rss_bytes or 0, row.peak_device_bytes or 0) for row in shown)
    scale, unit = _unit(most, _BYTES)
    lanes = [Lane(naming.whole(row), _memory_note(row), _memory(row, scale)) for row in shown]
    told = "; ".join(f"{naming.whole(row)} {words.gigabytes(row.peak_rss_bytes)}" for row in shown[:8])
    axis = Axis(0, 1.03 * most / scale, f"peak memory, {unit}")
    device = any(row.peak_device_bytes for row in shown)
    return Figure(*lane_chart(f"Peak memory: {told}", lanes, axis, 20 if device else 14))


def _unit(most: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    return next(((size, name) for size, name in units if most >= size), units[-1])


def _memory_note(row: RowRecord) -> str:
    told = words.gigabytes(row.peak_rss_bytes)
    return f"{told} + {words.gigabytes(row.peak_device_bytes)} on the GPU" if row.peak_device_bytes else told


def _memory(row: RowRecord, scale: float) -> Callable[[Place], str]:
    def draw(place: Place) -> str:
        middle = (place.top + place.base) / 2
        upper = Place(place.x, place.top, middle if row.peak_device_bytes else place.base, place.narrow)
        parts = bar(upper, 0, (row.peak_rss_bytes or 0) / scale, _memory_note(row))
        if row.peak_device_bytes:
            lower = Place(place.x, middle + 2, place.base, place.narrow)
            tip = f"{words.gigabytes(row.peak_device_bytes)} on the GPU"
            parts += bar(lower, 0, row.peak_device_bytes / scale, tip, "bar light")
        return parts

    return draw


def cold_figure(rows: Sequence[RowRecord]) -> Figure | None:
    """From the start of the process to the end of its first inference, phase by phase."""
    shown = [row for row in rows if row.cold_start_ms and sum(row.cold_start_ms.values()) > 0]
    if not shown:
        return None
    naming = Naming(rows)
    most = max(row.cold_ms or 0 for row in shown)
    scale, unit = _unit(most, _TIMES)
    lanes = [Lane(naming.whole(row), words.seconds(row.cold_ms), _phases(row, scale)) for row in shown]
    told = "; ".join(f"{naming.whole(row)} {words.seconds(row.cold_ms)}" for row in shown[:8])
    axis = Axis(0, 1.03 * most / scale, f"cold start, {unit}")
    return Figure(*lane_chart(f"Cold start: {told}", lanes, axis, 14))


def _phases(row: RowRecord, scale: float) -> Callable[[Place], str]:
    def draw(place: Place) -> str:
        parts, start = [], 0.0
        for number, (name, value) in enumerate(phases(row)):
            if value:
                tip = f"{name}: {words.seconds(value)}"
                parts.append(bar(place, start / scale, (start + value) / scale, tip, f"bar phase{number}"))
            start += value
        return "".join(parts)

    return draw


def phases(row: RowRecord) -> list[tuple[str, float]]:
    """The phases of a cold start by name, those that are known first, in milliseconds."""
    found = row.cold_start_ms or {}
    known = [(told, found.get(name, 0.0)) for name, told in words.PHASES.items()]
    return known + [(name, value) for name, value in found.items() if name not in words.PHASES]
