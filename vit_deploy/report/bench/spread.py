"""Pictures of raw samples: how a row's latencies are spread, and how they moved from round to round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.report.bench import words
from vit_deploy.report.bench.lanes import Axis, Lane, Place, lane_chart
from vit_deploy.report.bench.rows import is_baseline
from vit_deploy.report.charts import Figure
from vit_deploy.report.svg import Scale, element, text, titled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.bench.document import RowRecord

    Name = Callable[[RowRecord], str]

NS_PER_MS = 1e6
BINS, NARROW_BINS = 180, 80
"""Of the whole axis, so of one distribution only a few."""

FEW, LEAST = 160, 8
"""Up to FEW samples are drawn one by one; of more, a slice holds LEAST at least, or a whole round."""

MOST_SLICES, NARROW_SLICES = 90, 45
"""Into which the samples of a row are cut along time."""


@dataclass(frozen=True)
class _Reach:
    """The axis that all distributions of a chart share, in milliseconds."""

    low: float
    high: float

    def edges(self, bins: int) -> Any:
        import numpy as np

        return np.geomspace(self.low, self.high, bins + 1)


def distribution_figure(rows: Sequence[RowRecord], name: Name) -> Figure | None:
    """How the latencies of each row are spread, on one log scale, with the median and its interval.

    Args:
        rows: of one group, those that hold.
        name: what a row is called.
    """
    shown = [row for row in rows if row.samples_ns and row.p50_ms]
    if not shown:
        return None
    reach = _reach(shown)
    lanes = [
        Lane(name(row), _figures(row), _drawing(row, reach), "ref" if is_baseline(row) else 0) for row in shown
    ]
    told = "; ".join(f"{name(row)} median {words.number(row.p50_ms)} ms" for row in shown[:8])
    axis = Axis(reach.low, reach.high, "latency, ms (log scale)", log=True)
    return Figure(*lane_chart(f"Latency distributions: {told}", lanes, axis, 40))


def _reach(rows: Sequence[RowRecord]) -> _Reach:
    """All samples but the slowest of each row, which would leave no room for the others."""
    import numpy as np

    lows = [min(row.samples_ns) / NS_PER_MS for row in rows]
    highs = [float(np.quantile(row.samples_ns, 0.995)) / NS_PER_MS for row in rows]
    tails = [tail for row in rows for tail in (row.p99_ms, row.p90_ms) if tail is not None]
    low, high = max(1e-9, min(lows)), max([*highs, *tails, 1e-8])
    # Even if all samples are equal there is an axis.
    high = max(high, low * 1.02)
    margin = (high / low) ** 0.02
    return _Reach(low / margin, high * margin)


def _figures(row: RowRecord) -> str:
    told = [f"p50 {words.number(row.p50_ms)}"]
    told += [f"p90 {words.number(row.p90_ms)}"] if row.p90_ms is not None else []
    told += [f"p99 {words.number(row.p99_ms)}"] if row.p99_ms is not None else []
    return f"{' · '.join(told)} ms"


def _drawing(row: RowRecord, reach: _Reach) -> Callable[[Place], str]:
    def draw(place: Place) -> str:
        import numpy as np

        samples = np.asarray(row.samples_ns, dtype=np.float64) / NS_PER_MS
        edges = reach.edges(NARROW_BINS if place.narrow else BINS)
        counts, _ = np.histogram(samples, edges)
        beyond = int((samples > edges[-1]).sum())
        parts = [_silhouette(place, edges, counts), _quantiles(place, row)]
        if beyond:
            right = place.x.end
            told = f"{beyond:,} slower ›"
            parts.append(text(right, place.base - 5, told, text_anchor="end", class_="beyond-label"))
        return "".join(parts)

    return draw


def _silhouette(place: Place, edges: Any, counts: Any) -> str:
    """The counts as one outline of steps, its peak as high as the lane."""
    peak = max(1, int(counts.max()))
    parts = [f"M{place.x(float(edges[0])):.1f} {place.base:.1f}"]
    height, full = 0, place.base - place.top
    for left, count in zip(edges, counts, strict=False):
        if count != height:
            # What was seen even once can be seen.
            rise = max(1.0, full * count / peak) if count else 0.0
            parts.append(f"H{place.x(float(left)):.1f}V{place.base - rise:.1f}")
            height = count
    parts.append(f"H{place.x(float(edges[-1])):.1f}V{place.base:.1f}z")
    rule = element("line", x1=place.x.start, x2=place.x.end, y1=place.base, y2=place.base, class_="axis")
    return element("path", d="".join(parts), class_="area") + rule


def _quantiles(place: Place, row: RowRecord) -> str:
    """The median as a line through the lane, its interval as a band, p90 and p99 as ticks below it."""
    parts = []
    if row.p50_interval_ms is not None:
        low, high = (place.x(value) for value in row.p50_interval_ms)
        tip = f"median, 95 %: {words.between(row.p50_interval_ms)} ms"
        height = place.base - place.top
        parts.append(
            titled(
                "rect",
                tip,
                x=low,
                y=place.top,
                width=max(1.0, high - low),
                height=height,
                class_="interval",
            )
        )
    for value, name, top, bottom in (
        (row.p50_ms, "p50", place.top, place.base + 4),
        (row.p90_ms, "p90", place.base - 6, place.base + 4),
        (row.p99_ms, "p99", place.base - 6, place.base + 7),
    ):
        if value is not None:
            x = place.x(value)
            tip = f"{name} {words.number(value)} ms"
            parts.append(titled("line", tip, x1=x, x2=x, y1=top, y2=bottom, class_=f"quantile {name}"))
    return "".join(parts)


def time_figure(rows: Sequence[RowRecord], name: Name) -> Figure | None:
    """The samples in the order they were taken, round by round, each row beside its own median.

    The rows took turns, so a round stands at the same place in all lanes: what disturbs the machine
    shows in all of them, what one row does shows in its own.
    """
    shown = [row for row in rows if row.samples_ns and row.p50_ms and len(row.round_lengths) > 1]
    if not shown:
        return None
    rounds = max(len(row.round_lengths) for row in shown)
    low, high = _swing(shown)
    lanes = [
        Lane(
            f"{'⚠ ' if row.disturbed else ''}{name(row)}",
            _moved(row),
            _course(row, rounds, low, high),
            "ref" if is_baseline(row) else 0,
        )
        for row in shown
    ]
    ticks = [(place + 0.5, str(place + 1)) for place in range(rounds)]
    rules = range(0, rounds + 1, max(1, -(-rounds // 40)))
    axis = Axis(0, rounds, "round", ticks=ticks, rules=rules, room=48)
    told = "; ".join(f"{name(row)}: {_moved(row)}" for row in shown[:8])
    label = (
        f"Samples over time, from {100 * low - 100:+.0f} % to {100 * high - 100:+.0f} % of each median: {told}"
    )
    return Figure(*lane_chart(label, lanes, axis, 46))


def _swing(rows: Sequence[RowRecord]) -> tuple[float, float]:
    """How far the lanes reach around the medians: at least 5 % either way, half and twice at most."""
    import numpy as np

    shares = [np.quantile(row.samples_ns, (0.01, 0.99)) / NS_PER_MS / (row.p50_ms or 1) for row in rows]
    low = min(float(entry[0]) for entry in shares)
    high = max(float(entry[1]) for entry in shares)
    return max(0.5, min(0.95, low)), min(2.0, max(1.05, high))


def _moved(row: RowRecord) -> str:
    """How far the medians of the rounds lie apart."""
    medians = round_medians(row)
    if not medians or not row.p50_ms:
        return ""
    apart = (max(medians) - min(medians)) / row.p50_ms
    return f"medians of rounds {words.number(100 * apart, 2)} % apart"


def round_medians(row: RowRecord) -> list[float]:
    """The median of each round, in milliseconds."""
    import numpy as np

    return [float(np.median(entry)) / NS_PER_MS for entry in row.rounds_ns if entry]


def _course(row: RowRecord, rounds: int, low: float, high: float) -> Callable[[Place], str]:
    def draw(place: Place) -> str:
        y = Scale(low, high, place.base, place.top)
        if len(row.samples_ns) <= FEW:
            return "".join([_each(row, place, y), *_limits(place, low, high)])
        most = NARROW_SLICES if place.narrow else MOST_SLICES
        slices = _slices(row, rounds, max(1, most // rounds))
        band = [(place.x(at), y(values[0]), y(values[2])) for at, values in slices]
        upper = [f"{x:.1f},{top:.1f}" for x, _, top in band]
        lower = [f"{x:.1f},{bottom:.1f}" for x, bottom, _ in reversed(band)]
        middle = [f"{place.x(at):.1f},{y(values[1]):.1f}" for at, values in slices]
        parts = [
            element("line", x1=place.x.start, x2=place.x.end, y1=y(1.0), y2=y(1.0), class_="axis"),
            element("polygon", points=" ".join([*upper, *lower]), class_="area"),
            element("polyline", points=" ".join(middle), class_="line thin"),
        ]
        return "".join([*parts, *_limits(place, low, high)])

    return draw


def _each(row: RowRecord, place: Place, y: Scale) -> str:
    """Every sample as a dot, in the place of its round."""
    dots = []
    for number, taken in enumerate(row.rounds_ns):
        for place_in, sample in enumerate(taken):
            at = place.x(number + (place_in + 0.5) / len(taken))
            share = sample / NS_PER_MS / (row.p50_ms or 1)
            dots.append(f"M{at:.1f} {y(share) - 1.7:.1f}a1.7 1.7 0 1 0 .1 0z")
    rule = element("line", x1=place.x.start, x2=place.x.end, y1=y(1.0), y2=y(1.0), class_="axis")
    return rule + element("path", d="".join(dots), class_="sample")


def _limits(place: Place, low: float, high: float) -> list[str]:
    """How far a lane reaches, at its right edge."""
    return [
        text(place.x.end + 5, place.top + 7, f"+{100 * high - 100:.0f} %", class_="reach"),
        text(place.x.end + 5, place.base + 3, f"−{100 - 100 * low:.0f} %", class_="reach"),
    ]


def _slices(row: RowRecord, rounds: int, each: int) -> list[tuple[float, tuple[float, float, float]]]:
    """For each slice of each round its place along time, and p10, p50, p90 over the row's median.

    Where there are more rounds than places, or few samples in each, neighbours share one.
    """
    import numpy as np

    found = []
    taken = row.rounds_ns
    enough = LEAST * len(taken) / len(row.samples_ns)
    together = max(1, math.ceil(rounds / MOST_SLICES), math.ceil(enough))
    for first in range(0, len(taken), together):
        samples = np.asarray([value for entry in taken[first : first + together] for value in entry])
        count = max(1, min(each * together, len(samples) // LEAST))
        parts = np.array_split(samples, count) if len(samples) else []
        for number, part in enumerate(parts):
            low, middle, high = np.quantile(part, (0.1, 0.5, 0.9)) / NS_PER_MS / (row.p50_ms or 1)
            at = first + together * (number + 0.5) / len(parts)
            found.append((min(at, float(rounds)), (float(low), float(middle), float(high))))
    return found
