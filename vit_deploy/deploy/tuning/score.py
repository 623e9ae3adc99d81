"""How good a row is by an objective, round by round, and whether two rows differ at all.

Two rows of one run were measured side by side, in turns. So they are compared round by round, and what
slowed the whole machine in a round cancels. The interval of their ratio is that of every ratio of a
benchmark: see :mod:`vit_deploy.bench.launches`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from vit_deploy.bench.launches import ratio_of_rounds
from vit_deploy.bench.statistics import median

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.bench.result import Row
    from vit_deploy.bundle.default import Objective

MEMORY_RESOLUTION = 0.02
"""Peaks of one program differ by as much from one run to the next: less is no difference."""


Costs = list[float | None]
"""One for each round; ``None`` where it has no samples."""


def latency_costs(row: Row) -> Costs:
    """Nanoseconds of an inference, the median of each round."""
    ends = accumulate(row.round_lengths)
    rounds = zip(row.round_lengths, ends, strict=True)
    return [median(row.samples_ns[end - length : end]) if length else None for length, end in rounds]


def image_costs(row: Row) -> Costs:
    """Nanoseconds for an image, of each round with all its streams."""
    rounds = zip(row.round_lengths, row.round_elapsed_ns, strict=True)
    return [elapsed / (length * row.batch_size) if length else None for length, elapsed in rounds]


def memory_costs(row: Row) -> Costs:
    """Bytes at the peak: one figure for the whole run."""
    return [] if row.peak_rss_bytes is None else [float(row.peak_rss_bytes)]


COSTS: dict[Objective, Callable[[Row], Costs]] = {
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
    costs = [value for value in COSTS[objective](row) if value is not None]
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
    return paired(mine, theirs, row.launch_lengths)


def paired(
    mine: Sequence[float | None], theirs: Sequence[float | None], launch_lengths: Sequence[int] = ()
) -> Ratio | None:
    """The ratio of costs that were measured round by round, the same rounds on both sides.

    Args:
        mine: the cost of each round.
        theirs: what it is compared with.
        launch_lengths: rounds of each launch; empty where there was only one.
    """
    found = ratio_of_rounds(mine, theirs, launch_lengths)
    return Ratio(found.value, *found.interval) if found and found.interval else None


def _memory_ratio(mine: Costs, theirs: Costs) -> Ratio | None:
    if not mine or not theirs or not mine[0] or not theirs[0]:
        return None
    value = mine[0] / theirs[0]
    return Ratio(value, value / (1 + MEMORY_RESOLUTION), value * (1 + MEMORY_RESOLUTION))
