"""How a gate is written: ``METRIC > LIMIT`` or ``METRIC < LIMIT``, a change or a figure with its unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vit_deploy.bench.metrics import METRICS
from vit_deploy.errors import UsageFailed, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.bench.metrics import Metric

EXAMPLES = "'p50 > +3%', 'images_per_s < -5%', 'p99 > 50ms', 'rss > 2GB' or 'ratio > 0.9'"
_MOST_LETTERS = 100

_UNITS: Mapping[str, Mapping[str, float]] = {
    "ms": {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    "bytes": {
        **{"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9},
        **{"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    },
    "rate": {"": 1.0, "/s": 1.0},
    "ratio": {"": 1.0, "x": 1.0, "×": 1.0},
}
"""What one of each unit is in the unit of the metric; the empty one stands where none need be named."""

_GRAMMAR = re.compile(
    r"\s*(?P<metric>\w+)\s*(?P<sign>[<>])\s*(?P<limit>[+-]?(?:\d+\.?\d*|\.\d+))\s*(?P<unit>\S*)\s*", re.ASCII
)

Outcome = Literal["holds", "failed", "undecided", "refused"]


@dataclass(frozen=True)
class Gate:
    """What must not be.

    Attributes:
        text: as the user wrote it.
        metric: of what.
        above: whether it fails above the limit, or below.
        limit: a relative change (0.03 is +3 %), or a figure in the metric's unit.
        relative: whether it is against an earlier result.
    """

    text: str
    metric: Metric
    above: bool
    limit: float
    relative: bool

    def decide(self, low: float, high: float) -> Outcome:
        """What follows from a figure that lies between ``low`` and ``high``."""
        if (low > self.limit) if self.above else (high < self.limit):
            return "failed"
        return "holds" if (high <= self.limit if self.above else low >= self.limit) else "undecided"


def parse_gate(text: str) -> Gate:
    """Read ``METRIC > LIMIT`` or ``METRIC < LIMIT``; see :data:`EXAMPLES`.

    Raises:
        UsageFailed: for anything else.
    """
    plain = text.replace("\u2212", "-").replace("μ", "µ")  # the two minus signs and the two micro signs
    match = _GRAMMAR.fullmatch(plain) if len(plain) <= _MOST_LETTERS else None
    if match is None:
        raise _no_gate(text, "it is not METRIC > LIMIT or METRIC < LIMIT")
    name, number, unit = match["metric"], match["limit"], match["unit"]
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS, f"write a gate such as {EXAMPLES}")
    metric, limit = METRICS[name], float(number)
    if not math.isfinite(limit) or abs(limit) > 1e18:
        raise _no_gate(text, f"its limit of {number[:20]} is out of reach")
    if unit == "%":
        return _relative(text, metric, match)
    units = _UNITS[metric.unit]
    if unit not in units:
        raise _no_gate(text, f"{name} is in {' or '.join(filter(None, units))}, or in %")
    if number[0] in "+-":
        raise _no_gate(text, f"{number}{unit} has a sign: a change is in %, such as +3%")
    return Gate(text.strip(), metric, match["sign"] == ">", limit * units[unit], relative=False)


def _relative(text: str, metric: Metric, match: re.Match[str]) -> Gate:
    number = match["limit"]
    if number[0] not in "+-":
        raise _no_gate(text, f"{number}% has no sign: +{number}% is more than before, -{number}% less")
    if float(number) <= -100:
        raise _no_gate(text, "nothing is less than nothing")
    return Gate(text.strip(), metric, match["sign"] == ">", float(number) / 100, relative=True)


def _no_gate(text: str, why: str) -> UsageFailed:
    shown = text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"
    return UsageFailed(f"{shown!r} is no gate: {why}", expected=f"such as {EXAMPLES}")


def percent(value: float) -> str:
    """``+3.1 %``, with the sign that tells a change; ``×23.4`` where a percentage says little."""
    if value >= 10:
        return f"×{1 + value:.3g}"
    return f"{value * 100:+.1f} %"


def in_unit(value: float, unit: str) -> str:
    """A figure with its unit, three significant digits."""
    if unit == "bytes":
        for name in ("B", "kB", "MB", "GB"):
            if abs(value) < 999.5 or name == "GB":
                return f"{value:.3g} {name}" if abs(value) < 999.5 else f"{value:.0f} {name}"
            value /= 1000
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"
    return digits + {"ms": " ms", "rate": "/s"}.get(unit, "")
