"""What a number of agreeing samples says of the share that agrees: the bounds of Clopper and Pearson.

C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial", Biometrika 26 (1934), https://doi.org/10.1093/biomet/26.4.404. They hold at any number of samples,
the smallest too, and never promise more than they keep. The quantiles of the beta distribution are SciPy's.
"""

from __future__ import annotations


def clopper_pearson(agreed: int, of: int, confidence: float) -> tuple[float, float]:
    """The one-sided lower and the one-sided upper bound of the share, each at ``confidence``.

    The lower one is the ``p`` at which ``agreed`` or more of ``of`` have a probability of
    ``1 - confidence``; the upper one is that of ``agreed`` or fewer. Without samples, 0 and 1.
    """
    from scipy.special import betaincinv

    lower = float(betaincinv(agreed, of - agreed + 1, 1.0 - confidence)) if agreed else 0.0
    upper = float(betaincinv(agreed + 1, of - agreed, confidence)) if agreed < of else 1.0
    return lower, upper


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
    """Whether so few misses are unlikely enough where the share that agrees is but ``share``."""
    from scipy.special import bdtr

    return float(bdtr(misses, of, 1.0 - share)) <= 1.0 - confidence
