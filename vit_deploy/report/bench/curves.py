"""Throughput against batch size, and the frontier of latency and throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.report.bench import words
from vit_deploy.report.bench.rows import Naming, frontier, is_baseline, series
from vit_deploy.report.charts import STYLES, Figure, both, marker
from vit_deploy.report.svg import (
    Frame,
    Scale,
    element,
    horizontal,
    log_ticks,
    svg,
    text,
    titled,
    vertical,
    x_axis,
    y_axis,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.document import RowRecord

STEEP = 12.0
"""From this factor between the least and the most throughput on, its axis is logarithmic."""

MOST_POINTS = 400


def throughput_figure(rows: Sequence[RowRecord]) -> Figure | None:
    """Images per second over the batch size, a line for each artefact and backend; none for one batch size.

    Of more series than can be told apart, those of the highest throughput are drawn.
    """
    naming = Naming(rows)
    lines = [entry for entry in series(rows) if len({row.batch_size for row in entry}) > 1]
    lines.sort(key=lambda entry: -max(row.images_per_s or 0 for row in entry))
    base = [entry for entry in lines if all(is_baseline(row) for row in entry)][:1]
    drawn = [entry for entry in lines if entry not in base][:STYLES]
    styled: list[tuple[int | str, list[RowRecord]]] = [*enumerate(drawn), *(("ref", entry) for entry in base)]
    if not styled:
        return None
    points = [row for _, entry in styled for row in entry]
    sizes = sorted({row.batch_size for row in points})

    def draw(frame: Frame, size: str) -> str:
        x = horizontal(frame, _around(sizes[0], sizes[-1]), log=True)
        y = _rate_scale(frame, points)
        ticks = [(float(entry), str(entry)) for entry in _apart(sizes, x)]
        parts = [
            y_axis(frame, y, "images/s", _rate_ticks(y)),
            x_axis(frame, x, ticks, "batch size (log scale)"),
        ]
        parts += [_curve(x, y, style, entry, naming) for style, entry in reversed(styled)]
        told = "; ".join(_peak(entry, naming) for _, entry in styled)
        return svg(frame, f"Throughput against batch size: {told}", *parts, class_=size)

    legend = tuple((style, naming.of_series(entry[0])) for style, entry in styled)
    return Figure(*both(draw, 330), legend=legend, left_out=len(lines) - len(styled))


def _peak(entry: Sequence[RowRecord], naming: Naming) -> str:
    best = max(entry, key=lambda row: row.images_per_s or 0)
    return f"{naming.of_series(best)} at most {words.number(best.images_per_s)} at batch {best.batch_size}"


def _around(low: float, high: float) -> tuple[float, float]:
    """A little room at both ends of a log scale."""
    margin = max(1.04, (high / low) ** 0.04)
    return low / margin, high * margin


def _apart(sizes: Sequence[int], x: Scale) -> list[int]:
    """The sizes whose labels do not meet."""
    kept: list[int] = []
    for size in sizes:
        if not kept or x(size) - x(kept[-1]) > 26:
            kept.append(size)
    return kept


def _rate_scale(frame: Frame, rows: Sequence[RowRecord]) -> Scale:
    """From 0, which shows shares as they are; logarithmic where the slowest would vanish."""
    rates = [row.images_per_s for row in rows if row.images_per_s]
    highs = [row.images_per_s_interval[1] for row in rows if row.images_per_s_interval]
    most = max([*rates, *highs])
    if most / min(rates) <= STEEP:
        return vertical(frame, (0.0, most * 1.04))
    return vertical(frame, _around(min(rates), most), log=True)


def _rate_ticks(y: Scale) -> list[tuple[float, str]]:
    return log_ticks(y.low, y.high) if y.log else y.ticks()


def _curve(x: Scale, y: Scale, style: int | str, entry: Sequence[RowRecord], naming: Naming) -> str:
    places = [(x(row.batch_size), y(row.images_per_s or 0), row) for row in entry]
    line = element("polyline", points=" ".join(f"{px:.1f},{py:.1f}" for px, py, _ in places), class_="line")
    parts = [line]
    for px, py, row in places:
        told = f"{naming.whole(row)}: {words.number(row.images_per_s)} images/s"
        if row.images_per_s_interval is not None:
            low, high = row.images_per_s_interval
            told += f", 95 %: {words.between((low, high))}"
            parts.append(element("line", x1=px, x2=px, y1=y(low), y2=y(high), class_="whisker"))
        parts.append(marker(style, px, py, told))
    return element("g", *parts, class_=f"s{style}")


def frontier_figure(rows: Sequence[RowRecord]) -> tuple[Figure, list[RowRecord]] | None:
    """Every row by latency and throughput, and those that none beats in both, numbered along the front.

    Where all rows have one batch size and one stream, throughput is but the inverse of latency: none.

    Returns:
        The picture, and the rows of the front in the order of their numbers.
    """
    able = [row for row in rows if row.ok and row.p50_ms and row.images_per_s]
    if len({(row.batch_size, row.streams) for row in able}) < 2:
        return None
    front = frontier(able)
    numbers = {row.key: place + 1 for place, row in enumerate(front)}
    others = [row for row in able if row.key not in numbers][:MOST_POINTS]
    naming = Naming(rows)

    def draw(frame: Frame, size: str) -> str:
        latencies = [row.p50_ms for row in able if row.p50_ms]
        x = horizontal(frame, _around(min(latencies), max(latencies)), log=True)
        y = _rate_scale(frame, able)
        most = 4 if frame.width < 500 else 9
        ticks = log_ticks(x.low, x.high, most)
        parts = [
            y_axis(frame, y, "images/s", _rate_ticks(y)),
            x_axis(frame, x, ticks, "median latency, ms (log scale)"),
        ]
        parts.append(_front_line(x, y, front))
        parts += [_dot(x, y, row, naming) for row in others]
        parts += [_numbered(x, y, row, numbers[row.key], naming) for row in front]
        told = "; ".join(f"{naming.whole(row)} {_both_figures(row)}" for row in front[:12])
        return svg(frame, f"Latency and throughput; on the frontier: {told}", *parts, class_=size)

    return Figure(*both(draw, 360)), front


def _both_figures(row: RowRecord) -> str:
    return f"{words.number(row.p50_ms)} ms, {words.number(row.images_per_s)} images/s"


def _front_line(x: Scale, y: Scale, front: Sequence[RowRecord]) -> str:
    """Steps: between two points of the front nothing better than the faster one was found."""
    parts: list[str] = []
    for row in front:
        px, py = x(row.p50_ms or 0), y(row.images_per_s or 0)
        parts.append(f"M{px:.1f} {py:.1f}" if not parts else f"H{px:.1f}V{py:.1f}")
    parts.append(f"H{x.end:.1f}")
    return element("g", element("path", d="".join(parts), class_="line thin"), class_="s0 front")


def _dot(x: Scale, y: Scale, row: RowRecord, naming: Naming) -> str:
    told = f"{naming.whole(row)}: {_both_figures(row)}"
    return titled("circle", told, cx=x(row.p50_ms or 0), cy=y(row.images_per_s or 0), r=3.5, class_="hollow")


def _numbered(x: Scale, y: Scale, row: RowRecord, number: int, naming: Naming) -> str:
    px, py = x(row.p50_ms or 0), y(row.images_per_s or 0)
    told = f"{number}: {naming.whole(row)}: {_both_figures(row)}"
    disc = titled("circle", told, cx=px, cy=py, r=8.5 if number < 10 else 10.0, class_="disc")
    return disc + text(px, py + 4, str(number), text_anchor="middle", class_="disc-number")
