"""Order statistics of samples, in closed form: no assumption on their distribution.

A confidence interval of a quantile is a pair of order statistics, whose ranks follow from the
binomial distribution (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2;
Hahn & Meeker, Statistical Intervals, section 5.2). Samples are taken as independent; those of one
round are alike, so for samples of several rounds see :mod:`vit_deploy.bench.bootstrap`.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95


def quantile(samples: Sequence[float], q: float) -> float:
    """The ``q``-quantile, interpolated linearly between order statistics (numpy's default).

    Args:
        samples: at least one, in any order.
        q: between 0 and 1.

    Raises:
        ValueError: when there are no samples.
    """
    if not samples:
        raise ValueError("a quantile needs at least one sample")
    ordered = sorted(samples)
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def median(samples: Sequence[float]) -> float:
    """The 0.5-quantile."""
    return quantile(samples, 0.5)


def samples_needed(q: float, confidence: float = CONFIDENCE) -> int:
    """How many samples it takes to bound the ``q``-quantile from both sides.

    With fewer, even the smallest and the largest sample hold the quantile between them less often
    than ``confidence`` says: 6 samples for the median, 36 for p90, 368 for p99.
    """
    risk = (1 - confidence) / 2
    return math.ceil(math.log(risk) / math.log(max(q, 1 - q)))


def tail_quantile(samples: Sequence[float], q: float) -> float | None:
    """The ``q``-quantile, or ``None`` where there are too few samples to speak of it."""
    return quantile(samples, q) if len(samples) >= samples_needed(q) else None


@functools.lru_cache(maxsize=1024)
def median_rank(count: int, confidence: float = CONFIDENCE) -> int:
    """The rank ``k`` (from 1) for which ``[x(k), x(count + 1 - k)]`` holds the median with confidence.

    It is the largest with ``2 · P(Binomial(count, ½) < k) <= 1 - confidence``; 0 where there is none.
    """
    risk = (1 - confidence) / 2
    # Ranks more than ten standard deviations from the middle add less than 1e-22.
    rank = max(0, math.floor(count / 2 - 5 * math.sqrt(count)))
    below = 0.0
    while rank < count:
        log_term = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        below += math.exp(log_term - count * math.log(2))
        if below > risk:
            return rank
        rank += 1
    return rank


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The two samples that hold the median between them, or ``None`` where there are too few."""
    rank = median_rank(len(samples), confidence)
    if rank < 1:
        return None
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[len(ordered) - rank]


def relative_half_width(samples: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """Half the width of the median's confidence interval over the median: 0.01 is ±1 %."""
    interval = median_interval(samples, confidence)
    centre = median(samples) if samples else 0
    if interval is None or not centre:
        return None
    return (interval[1] - interval[0]) / 2 / centre
