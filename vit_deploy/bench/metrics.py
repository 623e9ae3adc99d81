"""The figures that two results are compared by, and that a gate can name: one entry of a table each.

Figures and intervals are those of the documents, except the intervals of tails, which no document has: they
are drawn from its samples here. Two runs are not interleaved, so what is known of each is put together as of
independent ones. An interval covers what varied from round to round and from launch to launch within the
runs. It cannot cover what differs between the runs as wholes, such as the machine's clock on another day;
``ratio``, to a baseline of the same run, does not suffer from that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.bench.bootstrap import MINIMUM_ROUNDS, RESAMPLES, Estimate, student_t
from vit_deploy.bench.launches import among_launches, by_launch
from vit_deploy.bench.statistics import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from vit_deploy.bench.document import RowRecord

    Draws = np.ndarray[Any, np.dtype[np.float64]]
    Interval = tuple[float, float]

_MOST_POINTS = 4000
"""Order statistics of a row's rounds that a tail quantile is drawn from: more would not change it."""

Unit = Literal["ms", "bytes", "rate", "ratio"]


@dataclass(frozen=True)
class Reading:
    """A figure of one row in one run.

    Attributes:
        value: as the document has it; ``None`` where there is none.
        interval: its 95 % interval; ``None`` where nothing is known of it.
        why: why there is no value, or no interval.
    """

    value: float | None
    interval: Interval | None = None
    why: str = ""


def change_between(old: Reading, new: Reading) -> tuple[float | None, Interval | None]:
    """The relative change from ``old`` to ``new`` (0.03 is 3 % more), and its 95 % interval.

    Args:
        old: the earlier figure.
        new: the later one.

    The interval is made of those of both, on a logarithmic scale: the method of variance estimates recovery
    (MOVER; Zou & Donner 2008, "Construction of confidence intervals about effect measures").
    """
    if old.value is None or new.value is None or old.value <= 0:
        return None, None
    relative = new.value / old.value - 1
    if not math.isfinite(relative):
        return None, None
    if old.interval is None or new.interval is None or new.value <= 0:
        return relative, None
    old_less, old_more = _reach(old.value, old.interval)
    new_less, new_more = _reach(new.value, new.interval)
    down, up = math.hypot(new_less, old_more), math.hypot(new_more, old_less)
    if not math.isfinite(down + up):
        return relative, None
    return relative, ((1 + relative) * math.exp(-down) - 1, (1 + relative) * math.exp(min(up, 100)) - 1)


def _reach(value: float, interval: Interval) -> tuple[float, float]:
    """How far an interval goes below and above its value, in logarithms; infinite where it goes to nothing."""
    low, high = interval
    if low <= 0:
        return math.inf, math.inf
    return max(0.0, math.log(value) - math.log(low)), max(0.0, math.log(high) - math.log(value))


@dataclass(frozen=True)
class Metric:
    """A figure that rows are compared by.

    Attributes:
        name: as a gate names it.
        title: as a table's heading has it.
        unit: what its values are in; ``rate`` is images per second.
        read: the figure of a row.
        lower_is_better: whether less is an improvement.
        once: whether a run measures it once, so that no interval can be had and the value itself is judged.
        timed: whether what other processes do meanwhile changes it.
    """

    name: str
    title: str
    unit: Unit
    read: Callable[[RowRecord], Reading]
    lower_is_better: bool = True
    once: bool = False
    timed: bool = True


def _told(row: RowRecord, value: float | None, interval: Interval | None) -> Reading:
    """What the document tells."""
    if value is None:
        return Reading(None, why="it was not measured")
    return Reading(value, interval, "" if interval else _too_few(row))


def _too_few(row: RowRecord) -> str:
    rounds = len(row.round_lengths)
    if rounds >= MINIMUM_ROUNDS:
        return "its samples give no interval"
    return f"{rounds} round{'' if rounds == 1 else 's'}, and an interval takes {MINIMUM_ROUNDS}"


def _ratio(row: RowRecord) -> Reading:
    """Latency over the baseline's, round by round: both were measured moments apart."""
    if row.baseline_key is None:
        return Reading(None, why="it has no baseline")
    if row.baseline_key == row.key:
        return Reading(None, why="it is the baseline")
    return _told(row, row.ratio, row.ratio_interval)


def _tail(row: RowRecord, *, name: str, q: float) -> Reading:
    """A quantile of all samples together, whole rounds resampled (the cluster bootstrap).

    See Davison & Hinkley, Bootstrap Methods and their Application, section 3.8.
    """
    import numpy as np

    value = row.p90_ms if name == "p90" else row.p99_ms
    if value is None:
        return Reading(None, why=f"{len(row.samples_ns)} samples are too few for {name}")
    rounds = [entry for entry in row.rounds_ns if entry]
    if len(rounds) < MINIMUM_ROUNDS:
        return Reading(value, why=_too_few(row))
    level = _expanded(len(rounds))
    low, high = np.quantile(_tail_draws(rounds, q), [level, 1 - level]) / 1e6
    within = Estimate(value, (min(float(low), value), max(float(high), value)))
    launches = [np.concatenate(launch) for launch in by_launch(row.rounds_ns, row.launch_lengths)]
    centres = [
        math.log(float(np.quantile(launch, q))) for launch in launches if len(launch) and launch.min() > 0
    ]
    if not centres:
        return Reading(value, within.interval)
    found = among_launches(within, centres)
    scale = value / found.value
    return Reading(value, found.interval and (scale * found.interval[0], scale * found.interval[1]))


def _tail_draws(rounds: Sequence[Sequence[int]], q: float) -> Draws:
    """The ``q``-quantile of the samples of as many rounds, drawn anew each time."""
    import numpy as np

    thinned = [_thinned(entry, max(1, _MOST_POINTS // len(rounds))) for entry in rounds]
    sizes = [len(few) for few in thinned]
    points = np.concatenate(thinned)
    owner = np.repeat(np.arange(len(rounds)), sizes)
    # Each point stands for as many samples of its round.
    weight = np.repeat([len(entry) / size for entry, size in zip(rounds, sizes, strict=True)], sizes)
    order = np.argsort(points, kind="stable")
    points, owner, weight = points[order], owner[order], weight[order]
    counts = np.random.default_rng(0).multinomial(len(rounds), [1 / len(rounds)] * len(rounds), size=RESAMPLES)
    found = []
    for some in np.array_split(counts, max(1, RESAMPLES // 200)):
        total = np.cumsum(some[:, owner] * weight, axis=1)
        reached = (total < q * total[:, -1:]).sum(axis=1)
        found.append(points[np.minimum(reached, len(points) - 1)])
    return np.concatenate(found)


def _thinned(samples: Sequence[int], most: int) -> Draws:
    """At most so many order statistics of the samples, evenly spread."""
    import numpy as np

    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    if len(ordered) <= most:
        return ordered
    return np.quantile(ordered, (np.arange(most) + 0.5) / most)


def _expanded(rounds: int) -> float:
    """The level at which a percentile interval of few rounds is as wide as Student's t asks.

    Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69 (2015), 4.3.
    """
    wider = student_t((1 + CONFIDENCE) / 2, rounds - 1) * math.sqrt(rounds / (rounds - 1))
    return 1 - NormalDist().cdf(wider)


def _once(row: RowRecord, *, of: Callable[[RowRecord], Any]) -> Reading:
    value = of(row)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return Reading(None, why="it was not measured")
    return Reading(float(value), why="measured once in a run")


def _single(of: Callable[[RowRecord], Any]) -> Callable[[RowRecord], Reading]:
    return partial(_once, of=of)


def _p50(row: RowRecord) -> Reading:
    return _told(row, row.p50_ms, row.p50_interval_ms)


def _rate(row: RowRecord) -> Reading:
    return _told(row, row.images_per_s, row.images_per_s_interval)


def _moved(row: RowRecord) -> Any:
    return (row.limit or {}).get("bytes_moved")


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("p50", "p50", "ms", _p50),
        Metric("p90", "p90", "ms", partial(_tail, name="p90", q=0.9)),
        Metric("p99", "p99", "ms", partial(_tail, name="p99", q=0.99)),
        Metric("images_per_s", "img/s", "rate", _rate, lower_is_better=False),
        Metric("ratio", "ratio", "ratio", _ratio),
        Metric("cold", "cold", "ms", _single(lambda row: row.cold_ms), once=True),
        Metric("rss", "peak", "bytes", _single(lambda row: row.peak_rss_bytes), once=True, timed=False),
        Metric("bytes", "moved", "bytes", _single(_moved), once=True, timed=False),
    )
}
"""Every figure, in the order of a table. ``bytes`` is what one inference moves at the least."""
