"""What a number of agreeing samples says of the share that agrees: the bounds of Clopper and Pearson.

C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial", Biometrika 26 (1934), https://doi.org/10.1093/biomet/26.4.404. They hold at any number of samples,
the smallest too, and never promise more than they keep. Written out here, so that nothing has to be
installed for it; a test compares it with SciPy's quantiles of the beta distribution.
"""

from __future__ import annotations

import math

_HALVINGS = 60


def clopper_pearson(agreed: int, of: int, confidence: float) -> tuple[float, float]:
    """The one-sided lower and the one-sided upper bound of the share, each at ``confidence``.

    The lower one is the ``p`` at which ``agreed`` or more of ``of`` have a probability of
    ``1 - confidence``; the upper one is that of ``agreed`` or fewer. Without samples, 0 and 1.
    """
    if of == 0:
        return 0.0, 1.0
    return _lower(agreed, of, confidence), 1.0 - _lower(of - agreed, of, confidence)


def needed(misses: int, share: float, confidence: float) -> int | None:
    """The least number of samples whose lower bound reaches ``share`` where ``misses`` of them disagree.

    Returns:
        ``None`` where no number does: a share of 1 cannot be shown on samples.
    """
    if share >= 1:
        return None
    low, high = misses, misses + 1
    while not _shows(misses, high, share, confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _shows(misses, middle, share, confidence) else (middle, high)
    return high


def _shows(misses: int, of: int, share: float, confidence: float) -> bool:
    return at_most(misses, of, 1.0 - share) <= 1.0 - confidence


def _lower(agreed: int, of: int, confidence: float) -> float:
    """Halves the interval: the probability rises with ``p``."""
    if agreed == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        likely = at_most(of - agreed, of, 1.0 - middle) > 1.0 - confidence
        low, high = (low, middle) if likely else (middle, high)
    return low


def at_most(count: int, of: int, share: float) -> float:
    """The probability of ``count`` or fewer of ``of``, each of which has the probability ``share``."""
    if share <= 0 or count >= of:
        return 1.0
    if share >= 1:
        return 0.0
    # The shorter of the two tails; no bound is asked for that is so close to 1 that this loses digits.
    below = count + 1 <= of - count
    terms = range(count + 1) if below else range(count + 1, of + 1)
    yes, no, all_orders = math.log(share), math.log1p(-share), math.lgamma(of + 1)
    total = math.fsum(
        math.exp(all_orders - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * yes + (of - k) * no)
        for k in terms
    )
    return min(1.0, total if below else 1.0 - total)
