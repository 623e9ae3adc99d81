"""How good a row is by an objective, round by round, and whether two rows differ at all.

Two rows of one run were measured side by side, in turns. So they are compared round by round, and what
slowed the whole machine in a round cancels. The interval of their ratio is a pair of order statistics of
the rounds' ratios: it assumes nothing of how times are distributed, and needs six rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.bench.statistics import median, median_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.bench.result import Row
    from vit_deploy.bundle.default import Objective

MEMORY_RESOLUTION = 0.02
"""Peaks of one program differ by as much from one run to the next: less is no difference."""


def latency_costs(row: Row) -> list[float]:
    """Nanoseconds of an inference, the median of each round."""
    start, medians = 0, []
    for length in row.round_lengths:
        if length:
            medians.append(median(row.samples_ns[start : start + length]))
        start += length
    return medians


def image_costs(row: Row) -> list[float]:
    """Nanoseconds for an image, of each round with all its streams."""
    rounds = zip(row.round_lengths, row.round_elapsed_ns, strict=True)
    return [elapsed / (length * row.batch_size) for length, elapsed in rounds if length]


def memory_costs(row: Row) -> list[float]:
    """Bytes at the peak: one figure for the whole run."""
    return [] if row.peak_rss_bytes is None else [float(row.peak_rss_bytes)]


COSTS: dict[Objective, Callable[[Row], list[float]]] = {
    "latency": latency_costs,
    "throughput": image_costs,
    "memory": memory_costs,
}
"""What each objective makes as small as can be."""


UNITS: dict[Objective, str] = {
    "latency": "the time of an inference",
    "throughput": "the time for an image",
    "memory": "the memory",
}
"""What a ratio of costs is a ratio of."""


def cost(row: Row, objective: Objective) -> float:
    """The one figure that a row is ranked by, less is better; infinite where there is none."""
    costs = COSTS[objective](row)
    return median(costs) if costs else float("inf")


@dataclass(frozen=True)
class Ratio:
    """One row's cost over another's, with its 95 % interval: below 1 is better."""

    value: float
    low: float
    high: float

    @property
    def decides(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low > 1 or self.high < 1

    @property
    def in_words(self) -> str:
        """``1.23 (1.20 to 1.27) times``."""
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}) times"


def ratio_of(row: Row, other: Row, objective: Objective) -> Ratio | None:
    """The paired ratio of two rows of one run; ``None`` where too few rounds were measured on both."""
    mine, theirs = COSTS[objective](row), COSTS[objective](other)
    if objective == "memory":
        return _memory_ratio(mine, theirs)
    return paired(mine, theirs)


def paired(mine: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """The ratio of costs that were measured round by round, the same rounds on both sides."""
    ratios = [one / other for one, other in zip(mine, theirs, strict=False) if other > 0]
    interval = median_interval(ratios)
    return Ratio(median(ratios), *interval) if interval else None


def _memory_ratio(mine: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    if not mine or not theirs or not theirs[0]:
        return None
    value = mine[0] / theirs[0]
    return Ratio(value, value / (1 + MEMORY_RESOLUTION), value * (1 + MEMORY_RESOLUTION))
