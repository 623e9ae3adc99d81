"""What a figure is worth when its processes differ: intervals that know of several launches.

Two processes of one program differ for as long as they live, by where they lie in memory (Mytkowicz et al.
2009, "Producing Wrong Data Without Doing Anything Obviously Wrong!"). However long one of them is measured,
that stays. So each case is launched several times in a run, and the figures of its launches are the
witnesses (Kalibera & Jones 2013, "Rigorous Benchmarking in Reasonable Time": the highest level that varies is
the one to repeat).

The figure is the mean of its launches' on a logarithmic scale, and two things add up in its interval:

1. what varies from round to round within launches, as :mod:`vit_deploy.bench.bootstrap` sees it;
2. what varies from launch to launch beyond that. A handful of launches tell little of their own scatter, so
   what is known beforehand has a word too: :data:`SCATTER`, which weighs as much as :data:`WITNESSES` more
   launches (a scaled inverse chi-squared prior; Smyth 2004, "Linear models and empirical Bayes methods",
   section 3). A single launch has nothing but that.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeVar

from vit_deploy.bench.bootstrap import Estimate, clustered_median, estimate, midmean, paired, student_t
from vit_deploy.bench.statistics import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.bootstrap import Rounds

Entry = TypeVar("Entry")

SCATTER = 0.006
"""By how much an artefact's time differs from one launch to another: the standard deviation of its logarithm.
It is a little more than what was seen: 0.52 %, of a ViT-Ti in ONNX Runtime, one thread on one core
(``benchmarks/detection.py`` tells that of ratios of two single launches: 0.74 %)."""

WITNESSES = 4
"""How many launches :data:`SCATTER` weighs as much as."""


def by_launch(entries: Sequence[Entry], launch_lengths: Sequence[int]) -> list[Sequence[Entry]]:
    """What there is of each round, parted by launch.

    Args:
        entries: one for each round.
        launch_lengths: rounds of each launch; empty where there was only one. A launch of a single round
            tells nothing of what varies within it, and counts with the one before.
    """
    whole: list[Sequence[Entry]] = []
    ends = list(accumulate(launch_lengths)) or [len(entries)]
    begin = 0
    for end in [*ends[:-1], len(entries)]:
        part = entries[begin:end]
        if whole and len(part) < 2:
            whole[-1] = [*whole[-1], *part]
        elif part:
            whole.append(part)
        begin = end
    return whole


def over_launches(
    launches: Sequence[Sequence[float]], *, processes: int = 1, confidence: float = CONFIDENCE
) -> Estimate | None:
    """A positive figure that was told in each round, with an interval that also holds what launches change.

    Args:
        launches: the figures of each launch's rounds.
        processes: how many processes differ from one launch to the next: 2 for a ratio.
        confidence: how often the interval holds the true value.

    Returns:
        ``None`` where there are no figures.
    """
    import numpy as np

    series = [np.log(np.asarray(entry, dtype=np.float64)) for entry in launches if len(entry)]
    if not series:
        return None
    centres = [float(midmean(entry)) for entry in series]
    # Within launches: as if each had the same centre, which costs as many degrees of freedom.
    rounds = sum(map(len, series))
    spread = math.sqrt(rounds / (rounds - len(series))) if len(series) > 1 else 1.0
    level = [spread * (entry - centre) for entry, centre in zip(series, centres, strict=True)]
    found = estimate(np.exp(np.concatenate(level)).tolist(), confidence=confidence)
    if found is None or found.interval is None:
        return Estimate(math.exp(math.fsum(centres) / len(centres)))
    return among_launches(found, centres, processes=processes, confidence=confidence)


def ratio_of_rounds(
    values: Sequence[float | None],
    others: Sequence[float | None],
    launch_lengths: Sequence[int],
    *,
    confidence: float = CONFIDENCE,
) -> Estimate | None:
    """The ratio of two cases of one run, paired by round, the rounds by launch.

    Args:
        values: a figure of each round; ``None`` where there is none.
        others: the same of what it is compared with.
        launch_lengths: rounds of each launch; empty where there was only one.
        confidence: how often the interval holds the true value.
    """
    parted = by_launch(paired(values, others), launch_lengths)
    ratios = [[ratio for ratio in launch if ratio is not None] for launch in parted]
    return over_launches(ratios, processes=2, confidence=confidence)


def among_launches(
    found: Estimate, centres: Sequence[float], *, processes: int = 1, confidence: float = CONFIDENCE
) -> Estimate:
    """The mean of launches' figures, with what varies within them and from one to the next.

    Args:
        found: anything whose interval is as wide, for its value, as rounds within launches make it.
        centres: the logarithm of the figure in each launch.
        processes: how many processes differ from one launch to the next.
        confidence: of the interval.
    """
    centre = math.fsum(centres) / len(centres)
    if found.interval is None or not found.value or found.interval[0] <= 0:
        return replace(found, value=math.exp(centre))
    down, up = (abs(math.log(end / found.value)) for end in found.interval)
    reach = launch_reach(centres, within=(down + up) / 2, processes=processes, confidence=confidence)
    ends = math.exp(centre - math.hypot(down, reach)), math.exp(centre + math.hypot(up, reach))
    return replace(found, value=math.exp(centre), interval=ends)


def launch_reach(
    centres: Sequence[float], *, within: float = 0.0, processes: int = 1, confidence: float = CONFIDENCE
) -> float:
    """How far the mean of launches' figures may lie from the truth because launches differ, in logarithms.

    Args:
        centres: the logarithm of the figure in each launch.
        within: half the width of its interval by what varies within launches; the launches' scatter is in
            part of that (DerSimonian & Laird 1986, "Meta-analysis in clinical trials").
        processes: how many processes differ from one launch to the next.
        confidence: of the interval.
    """
    count = len(centres)
    mean = math.fsum(centres) / count
    error = within / NormalDist().inv_cdf((1 + confidence) / 2)
    seen = math.fsum((entry - mean) ** 2 for entry in centres) - (count - 1) * count * error**2
    freedom = WITNESSES + count - 1
    variance = (WITNESSES * processes * SCATTER**2 + max(0.0, seen)) / freedom
    return student_t((1 + confidence) / 2, freedom) * math.sqrt(variance / count)


def median_over_launches(
    rounds: Rounds, launch_lengths: Sequence[int], *, confidence: float = CONFIDENCE
) -> Estimate | None:
    """The median of all samples; its interval knows of rounds and of launches.

    Returns:
        ``None`` where there are no samples.
    """
    import numpy as np

    known = clustered_median(rounds, confidence=confidence)
    if known is None or known.interval is None or known.interval[0] <= 0:
        return known
    parted = by_launch(rounds, launch_lengths)
    centres = [math.log(float(np.median(np.concatenate(launch)))) for launch in parted if any(map(len, launch))]
    widened = among_launches(known, centres, confidence=confidence)
    if widened.interval is None:
        return known
    # The figure stays the median of all; the interval lies about it as wide as about the launches' mean.
    low, high = (known.value * end / widened.value for end in widened.interval)
    return replace(known, interval=(low, high))
