"""Intervals of what is compared round by round, and of what is told by round: block bootstraps.

Noise of a machine is alike over moments, so neighbouring samples are no independent witnesses; all that is
resampled here is whole rounds. Two things make the interval of a *ratio* honest:

1. In each round a fair die says who goes first. Whatever the machine does by itself, slow here and fast
   there, the sign of a round's log-ratio of two equal cases is then that of a fair coin, thrown anew in each
   round: noise that belongs to the moment cannot line up over rounds (randomisation inference: Fisher, The
   Design of Experiments, 1935, chapter 2).
2. What belongs to a *process* can: a worker that lies badly in the caches for some seconds. So blocks of
   consecutive rounds are resampled (circular block bootstrap: Politis & Romano 1992), as long as the
   correlation that is seen asks for; see :func:`block_length`.

The centre is the midmean, the mean of the middle half: as deaf as the median to a disturbed round, but with
a smaller error, and smooth, which the bootstrap needs where there are few rounds. Percentile intervals of
few witnesses are too narrow; they are widened as Student's t is wider than the normal distribution
(Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 4.3).

What two processes of one program differ in, no resampling of rounds can tell from a true difference: that is
:mod:`vit_deploy.bench.launches`'s part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.statistics import CONFIDENCE, median, median_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    Array = np.ndarray[Any, Any]
    Rounds = Sequence[Sequence[float]]

RESAMPLES = 2000
MINIMUM_ROUNDS = 6
"""With fewer rounds there is no interval: fewer values cannot bound a median from both sides at 95 %."""

FEWEST_BLOCKS = 10
"""Fewer tell too little of their own scatter."""

_MOST_AT_ONCE = 2_000_000
"""Numbers resampled at once: 16 MB."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval.

    Attributes:
        value: the figure.
        interval: ``(low, high)``; ``None`` where there are too few rounds to tell.
        block: how many consecutive rounds were taken together.
    """

    value: float
    interval: tuple[float, float] | None = None
    block: int = 1

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval over the figure: 0.01 is ±1 %."""
        return (self.interval[1] - self.interval[0]) / 2 / self.value if self.interval and self.value else None

    def excludes(self, value: float) -> bool:
        """Whether a value lies outside the interval."""
        return self.interval is not None and not self.interval[0] <= value <= self.interval[1]


def midmean(values: Array) -> Array:
    """The mean of the middle half along the last axis (a trimmed mean, 25 % from either end).

    Args:
        values: ``(..., n)``, at least one.
    """
    import numpy as np

    count = values.shape[-1]
    cut = count // 4
    middle = np.partition(values, (cut, count - cut - 1), axis=-1)[..., cut : count - cut]
    centre: Array = middle.mean(axis=-1)
    return centre


def block_length(series: Array) -> int:
    """How many consecutive rounds belong together: the length whose blocks show the largest error.

    The error of a mean, seen from the scatter of the means of blocks, grows with their length until a block
    is longer than what its rounds have in common, and is level from there on (Flyvbjerg & Petersen 1989,
    "Error estimates on averages of correlated data"). The largest is taken, which is a little too careful
    where nothing is correlated.

    Args:
        series: ``(n,)``; outliers are pulled in first, lest a single one hide what the others have in common.
    """
    import numpy as np

    low, high = np.quantile(series, [0.1, 0.9])
    clipped = np.clip(series, low, high)
    best, largest, length = 1, -1.0, 1
    while len(series) // length >= FEWEST_BLOCKS:
        blocks = len(series) // length
        means = clipped[: blocks * length].reshape(blocks, length).mean(axis=1)
        error = float(means.std(ddof=1)) / math.sqrt(blocks)
        if error > largest * (1 + 1e-9):
            best, largest = length, error
        length = max(length + 1, length * 3 // 2)
    return best


def estimate(values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0) -> Estimate | None:
    """The midmean of positive figures, one for each round, on a logarithmic scale, with its interval.

    Args:
        values: in the order of the rounds.
        confidence: how often the interval holds the true value.
        seed: of the resampling.

    Returns:
        ``None`` where there are no values.
    """
    import numpy as np

    if len(values) == 0:
        return None
    series = np.log(np.asarray(values, dtype=np.float64))
    centre = float(midmean(series))
    if len(series) < MINIMUM_ROUNDS:
        return Estimate(math.exp(centre))
    length = block_length(series)
    centres = _resampled(series, length, np.random.default_rng(seed))
    risk = _expanded_risk(1 - confidence, len(series) / length)
    low, high = np.quantile(centres, [risk / 2, 1 - risk / 2])
    # A figure lies within its interval even where that is one point.
    ends = math.exp(min(float(low), centre)), math.exp(max(float(high), centre))
    return Estimate(math.exp(centre), ends, length)


def _resampled(series: Array, length: int, generator: np.random.Generator) -> Array:
    """The midmeans of :data:`RESAMPLES` series made of blocks that are drawn from this one, end to start."""
    import numpy as np

    count = len(series)
    blocks = math.ceil(count / length)
    at_once = max(1, _MOST_AT_ONCE // count)
    found = []
    for begin in range(0, RESAMPLES, at_once):
        draws = min(at_once, RESAMPLES - begin)
        starts = generator.integers(0, count, size=(draws, blocks, 1))
        places = (starts + np.arange(length)).reshape(draws, -1)[:, :count] % count
        found.append(midmean(series[places]))
    return np.concatenate(found)


def _expanded_risk(risk: float, witnesses: float) -> float:
    """The risk to take of a percentile interval so that ``witnesses`` blocks keep ``risk``."""
    freedom = max(witnesses - 1, 2.0)
    wider = student_t(1 - risk / 2, freedom) * math.sqrt(witnesses / freedom)
    return 2 * (1 - NormalDist().cdf(wider))


def clustered_median(rounds: Rounds, *, confidence: float = CONFIDENCE) -> Estimate | None:
    """The median of all samples, with an interval that knows that samples of a round are alike.

    Woodruff's interval: the share of samples below the median has an error, seen from the scatter of that
    share over blocks of rounds; the interval is the samples at those shares (Woodruff 1952, "Confidence
    Intervals for Medians and Other Position Measures"). Where these shares lie beyond the samples it is made of
    the medians of the rounds, which is exact where they are independent.

    Returns:
        ``None`` where there are no samples.
    """
    import numpy as np

    taken = [np.asarray(entry, dtype=np.float64) for entry in rounds if len(entry)]
    if not taken:
        return None
    ordered = np.sort(np.concatenate(taken))
    centre, count = float(np.median(ordered)), len(ordered)
    if len(taken) < MINIMUM_ROUNDS:
        return Estimate(centre)
    # Half of a sample that is the median itself lies below.
    below = np.array([np.sum(entry < centre) + np.sum(entry == centre) / 2 - len(entry) / 2 for entry in taken])
    length = block_length(below)
    sums = np.array([piece.sum() for piece in np.array_split(below, len(below) // length)])
    blocks = len(sums)
    error = math.sqrt(blocks * float(sums.var(ddof=1))) / count
    reach = error * student_t((1 + confidence) / 2, blocks - 1)
    low, high = math.floor(count * (0.5 - reach)), math.ceil(count * (0.5 + reach)) - 1
    if low < 0 or high >= count:
        return Estimate(centre, _of_round_medians(taken, centre, confidence), length)
    return Estimate(centre, (min(float(ordered[low]), centre), max(float(ordered[high]), centre)), length)


def _of_round_medians(rounds: Sequence[Array], centre: float, confidence: float) -> tuple[float, float] | None:
    """The order statistics of the rounds' medians: all that can be told of a handful of long steps."""
    found = median_interval([float(median(entry.tolist())) for entry in rounds], confidence)
    return None if found is None else (min(found[0], centre), max(found[1], centre))


def student_t(probability: float, freedom: float) -> float:
    """A quantile of Student's t; SciPy's is imported only where an interval is made."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def paired(values: Sequence[float | None], others: Sequence[float | None]) -> list[float | None]:
    """The ratio of two figures of the same round, for each round; ``None`` where one of them is missing.

    Both were measured moments apart, so what slows the whole machine cancels.
    """
    pairs = zip(values, others, strict=False)  # a row that failed has fewer rounds
    return [mine / theirs if mine and theirs else None for mine, theirs in pairs]


def round_medians(rounds: Rounds) -> list[float | None]:
    """The median of each round; ``None`` for an empty one."""
    return [median(entry) if entry else None for entry in rounds]


def round_rates(rounds: Rounds, elapsed_ns: Sequence[float]) -> list[float | None]:
    """Inferences per second of each round: its samples over its elapsed time; ``None`` for an empty one."""
    pairs = zip(rounds, elapsed_ns, strict=True)
    return [len(samples) * 1e9 / elapsed if samples and elapsed > 0 else None for samples, elapsed in pairs]
