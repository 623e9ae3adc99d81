"""What the winner must hold: ``p99=50ms,memory=2GB``, and whether what was measured does."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from vit_deploy.bench.statistics import CONFIDENCE
from vit_deploy.errors import UsageFailed, unknown_name

if TYPE_CHECKING:
    from vit_deploy.bench.result import Row

Holds = Literal["holds", "breaks", "unknown"]

_TIMES = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_SIZES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

METRICS: Final = {**dict.fromkeys(_QUANTILES, _TIMES), "memory": _SIZES, "images_per_s": {"": 1.0}}
"""What a limit can be set on, and its units."""

EXAMPLE: Final = "--budget p99=50ms,memory=2GB,images_per_s=100"


@dataclass(frozen=True)
class Limit:
    """One constraint.

    Attributes:
        metric: of :data:`METRICS`.
        value: in milliseconds, bytes or images per second; the least for ``images_per_s``, the most else.
        text: as the user wrote it.
    """

    metric: str
    value: float
    text: str

    @property
    def is_floor(self) -> bool:
        """Whether more is better."""
        return self.metric == "images_per_s"

    def figure(self, row: Row) -> float | None:
        """What ``row`` has of the metric; ``None`` where its samples cannot tell."""
        names = {"memory": "peak_rss_bytes", "images_per_s": "images_per_s"}
        found: float | None = getattr(row, names.get(self.metric, f"{self.metric}_ms"))
        return found

    def holds(self, row: Row) -> Holds:
        """Whether the row's figure lies inside."""
        figure = self.figure(row)
        if figure is None:
            return "unknown"
        inside = figure >= self.value if self.is_floor else figure <= self.value
        return "holds" if inside else "breaks"

    def told(self, row: Row) -> str:
        """The row's figure in words."""
        figure = self.figure(row)
        if figure is None:
            return f"not known from {len(row.samples_ns)} samples (give --time more)"
        if self.metric == "memory":
            return f"{figure / 1e6:.0f} MB"
        return f"{figure:.4g}" if self.is_floor else f"{figure:.4g} ms"

    def clearly_broken(self, row: Row) -> bool:
        """Whether no more samples could mend it, with 97.5 % confidence: what a short run may decide by.

        More samples than a quantile allows lie beyond the limit than chance explains (the sign test;
        Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2).
        """
        if self.metric in _QUANTILES:
            beyond = sum(sample > self.value * 1e6 for sample in row.samples_ns)
            return _tail(len(row.samples_ns), 1 - _QUANTILES[self.metric], beyond) < (1 - CONFIDENCE) / 2
        if self.metric == "images_per_s":
            from vit_deploy.deploy.tuning.score import image_costs

            slow = [cost > 1e9 / self.value for cost in image_costs(row) if cost is not None]
            return _tail(len(slow), 0.5, sum(slow)) < (1 - CONFIDENCE) / 2
        return self.holds(row) == "breaks"


def parse_budget(text: str) -> tuple[Limit, ...]:
    """Read ``p99=50ms,memory=2GB``; nothing where ``text`` is empty.

    Raises:
        UsageFailed: for an unknown metric, or a value without its unit.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    limits = [_limit(word) for word in words]
    twice = [limit.metric for limit in limits if [other.metric for other in limits].count(limit.metric) > 1]
    if twice:
        raise UsageFailed(f"--budget {text!r} sets {twice[0]} twice", expected=EXAMPLE)
    return tuple(limits)


def parse_time(text: str) -> float:
    """Read ``90s``, ``5m`` or ``1h`` in seconds; a number alone is in seconds.

    Raises:
        UsageFailed: for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip().lower())
    seconds = float(found[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not 0 < seconds <= 7 * 24 * 3600:
        raise UsageFailed(f"--time is {text!r}", expected="a time above 0, such as 90s, 5m or 1h")
    return seconds


def _limit(word: str) -> Limit:
    metric, _, value = (part.strip() for part in word.partition("="))
    if metric == "time":
        raise UsageFailed(
            f"--budget has {word!r}, which is no property of a winner",
            expected=EXAMPLE,
            next_command=f"--time {value or '5m'}, which is how long the search may take",
        )
    if metric not in METRICS:
        raise unknown_name("budget", metric, METRICS, "vit-deploy tune --help")
    units = METRICS[metric]
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zµ]*)", value.lower())
    amount = float(found[1]) * units[found[2]] if found and found[2] in units else 0.0
    if not 0 < amount < math.inf:
        named = [unit for unit in units if unit]
        raise UsageFailed(
            f"--budget has {word!r}",
            expected=f"{metric}=NUMBER" + (f" with one of the units {', '.join(named)}" if named else ""),
            next_command=EXAMPLE,
        )
    return Limit(metric, amount, f"{metric}={value}")


def _tail(count: int, chance: float, least: int) -> float:
    """How likely ``least`` or more of ``count`` independent draws succeed, each with ``chance``."""
    if least <= 0:
        return 1.0
    if least > count:
        return 0.0
    logs = (
        math.lgamma(count + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(count - hits + 1)
        + hits * math.log(chance)
        + (count - hits) * math.log1p(-chance)
        for hits in range(least, count + 1)
    )
    return min(1.0, sum(map(math.exp, logs)))
