"""The parity criterion: errors, yardsticks and limits, as plain numpy.

An artefact's output ``yb`` is compared with eager PyTorch twice: ``y64`` is eager in float64, the
truth; ``ye`` is eager at the artefact's declared precision, which says how far from the truth honest
rounding leads. For every sample, and every token of a token output::

    e(y)  = |y - y64| / |y64|                 Euclidean length over the last axis
    ratio = e(yb) / yardstick                 1 means: as exact as eager PyTorch

The ratios of an output must hold two limits: one at the 95th percentile of all its runs, one at the
worst. :data:`vit_deploy.parity.limits.LIMITS` is the only table of tolerances there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.parity.limits import Limits

    Floats = NDArray[np.float64]

PERCENTILE = 95.0
"""Interpolated linearly between samples, so that with 16 samples one outlier counts for a quarter."""


def reference_lengths(reference: Floats) -> Floats:
    """The Euclidean length over the last axis, with 1 for 0: there, errors are absolute.

    Args:
        reference: ``(..., d)``.

    Returns:
        ``(...)``, all above 0.
    """
    import numpy as np

    lengths = np.linalg.norm(reference, axis=-1)
    return np.where(lengths > 0, lengths, 1.0)


def relative_errors(found: NDArray[Any], reference: Floats) -> Floats:
    """``|found - reference| / |reference|`` over the last axis.

    Args:
        found: ``(..., d)`` of any floating dtype.
        reference: ``(..., d)``.
    """
    return relative_lengths(found, reference, reference)


def relative_lengths(found: NDArray[Any], other: NDArray[Any], reference: Floats) -> Floats:
    """``|found - other| / |reference|`` over the last axis, computed in float64.

    Args:
        found: ``(..., d)`` of any floating dtype.
        other: likewise.
        reference: ``(..., d)``.
    """
    import numpy as np

    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.linalg.norm(found.astype(np.float64) - other, axis=-1)
        lengths: Floats = distances / reference_lengths(reference)
    return lengths


def yardsticks(eager_errors: Floats, lengths: Floats, limits: Limits, depth: int) -> Floats:
    """What a ratio of 1 means for each sample, or each token of each sample.

    Args:
        eager_errors: relative errors of eager at the declared precision, over all samples. One that is
            not finite (eager overflowed in half precision) grants nothing.
        lengths: the lengths of the references, of the same shape.
        limits: the row of :data:`vit_deploy.parity.limits.LIMITS`.
        depth: the model's number of blocks.

    Returns:
        Yardsticks of the same shape, all above 0.
    """
    import numpy as np

    finite = np.isfinite(eager_errors)
    granted = np.maximum(np.where(finite, eager_errors, 0.0), limits.floor(depth))
    if limits.typical is not None and finite.any():
        absolute = (eager_errors * lengths)[finite]
        granted = np.maximum(granted, np.quantile(absolute, limits.typical) / lengths)
    return granted


def percentile(ratios: Floats) -> float:
    """The 95th percentile of ratios of any shape."""
    import numpy as np

    return float(np.percentile(ratios, PERCENTILE))


NEAR_TIE_DEVIATIONS = 4.0
"""How many standard deviations of honest rounding apart two logits must be to be told apart for sure."""


def near_ties(logits: Floats, granted: Floats, rank: int = 1) -> NDArray[np.bool_]:
    """Samples whose first class lies so close to the one after ``rank`` that honest rounding may swap them.

    An error of Euclidean length ``r``, spread evenly over ``k`` logits, changes the difference of two
    of them by ``r * sqrt(2 / k)`` (standard deviation), and eager's own error has
    ``r = yardstick * |y64|``. Classes that are less than :data:`NEAR_TIE_DEVIATIONS` of these apart
    are counted apart: another first class there is no fault.

    Args:
        logits: ``(s, k)`` in float64, ``k > rank``.
        granted: the yardsticks, ``(s,)``.
        rank: 1 for the first class against the second; 5 for whether it stays among the first five.
    """
    import numpy as np

    ordered = np.sort(logits, axis=-1)
    deviation = granted * reference_lengths(logits) * np.sqrt(2 / logits.shape[-1])
    ties: NDArray[np.bool_] = ordered[:, -1] - ordered[:, -1 - rank] <= NEAR_TIE_DEVIATIONS * deviation
    return ties
