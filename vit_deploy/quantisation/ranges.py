"""From what was seen of a tensor to the symmetric range that it is quantised in.

All four work on the histogram alone, whose values are taken to be evenly spread within a bin, and all are
vectorised: a ViT-B's hundred and more tensors take well under a second, and some seconds by entropy.

``minmax``
    the largest value: nothing is clipped (Jacob et al. 2018, https://arxiv.org/abs/1712.05877).
``percentile``
    99.99 % of the values are not clipped (Wu et al. 2020, https://arxiv.org/abs/2004.09602, section 4.1).
``entropy``
    the least Kullback-Leibler divergence between what was seen and what is left of it (Migacz, "8-bit Inference
    with TensorRT", GTC 2017; Wu et al. 2020).
``mse``
    the least mean squared error of quantising (Sung, Shin and Hwang 2015, https://arxiv.org/abs/1511.06488).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from vit_deploy.errors import unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.quantisation.observe import Observed

    Floats = NDArray[np.float64]
    Method = Callable[[Observed, Floats], float]

PERCENTILE = 99.99

FP8_LEVELS = 448
"""The largest number of E4M3 (Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433)."""

_CANDIDATES = 192
_DEEPEST = 512.0
"""Thresholds are tried down to this part of the largest value, evenly in their logarithm, 3 % apart."""

_COARSE = 2048
"""Bins that the entropy is computed on, as TensorRT's."""

_STRIDE = 16
"""How many of those a threshold moves at a time."""

_ZOOM = 8
"""A threshold in so small a part of the range was found on bins that are too wide."""


def threshold(seen: Observed, method: str, *, levels: int = 127) -> float:
    """The ``|x|`` that is mapped to the largest code; larger values are clipped to it.

    Args:
        seen: of the tensor.
        method: one of :data:`METHODS`.
        levels: the largest code: 127 for int8, 448 (:data:`FP8_LEVELS`) for fp8, whose codes lie unevenly.

    Returns:
        More than 0 and at most the largest value seen; 1 for a tensor of zeros.

    Raises:
        UsageFailed: for an unknown method.
    """
    if method not in METHODS:
        raise unknown_name("way to choose ranges", method, METHODS)
    if seen.absolute_max <= 0:
        return 1.0  # any scale represents zero
    found = METHODS[method](seen, codes(levels))
    # A scale that underflows would make every product infinite.
    return max(min(found, seen.absolute_max), _TINY)


_TINY = 2.0**-100


@functools.cache
def codes(levels: int) -> Floats:
    """The magnitudes that can be represented, ``(k,)``, ascending from 0 to 1, as shares of the threshold."""
    import numpy as np

    if levels != FP8_LEVELS:
        return np.arange(levels + 1) / levels
    subnormal = np.arange(8) * 2.0**-9
    normal = (1 + np.arange(8) / 8) * 2.0 ** np.arange(-6, 9)[:, None]
    return np.concatenate([subnormal, normal.reshape(-1)[:-1]]) / FP8_LEVELS  # the last one is NaN


def squared_error(seen: Observed, thresholds: Floats, grid: Floats) -> Floats:
    """The mean squared error of quantising a tensor, ``(t,)``, for each threshold ``(t,)``.

    A histogram is a density that is constant in each bin, so the error between two midpoints of codes is had
    exactly from its running moments: no value is quantised.

    Args:
        seen: of the tensor.
        thresholds: each more than 0.
        grid: of :func:`codes`.
    """
    import numpy as np

    edges = np.concatenate([[0.0], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    moments = [_below(seen, order, thresholds[:, None] * edges) for order in range(3)]
    count, first, second = (np.diff(moment, axis=1) for moment in moments)
    level = thresholds[:, None] * grid
    error: Floats = (second - 2 * level * first + level**2 * count).sum(axis=1) / max(1, seen.count)
    return np.maximum(error, 0.0)


def noise(seen: Observed, chosen: float, *, levels: int = 127) -> float:
    """The power of the error of quantising a tensor as a share of the tensor's own power."""
    import numpy as np

    if seen.absolute_max <= 0:
        return 0.0
    power = float(_below(seen, 2, np.array([np.inf]))[0]) / seen.count
    return float(squared_error(seen, np.array([chosen]), codes(levels))[0]) / power


def _below(seen: Observed, order: int, at: Floats) -> Floats:
    """The sum of ``|x|**order`` over all values below each of ``at``."""
    import numpy as np

    counts, width = seen.histogram.astype(np.float64), seen.bin_width
    edges = np.arange(len(counts) + 1) * width
    within = (edges[1:] ** (order + 1) - edges[:-1] ** (order + 1)) / (order + 1) / width
    running = np.concatenate([[0.0], np.cumsum(counts * within)])
    clipped = np.minimum(at, edges[-1])
    index = np.minimum((clipped / width).astype(np.intp), len(counts) - 1)
    part = (clipped ** (order + 1) - edges[index] ** (order + 1)) / (order + 1) / width
    below: Floats = running[index] + counts[index] * part
    return below


def _minmax(seen: Observed, _: Floats) -> float:
    return seen.absolute_max


def _percentile(seen: Observed, _: Floats) -> float:
    import numpy as np

    running = np.cumsum(seen.histogram)
    wanted = running[-1] * PERCENTILE / 100
    index = int(np.searchsorted(running, wanted))
    before = running[index] - seen.histogram[index]
    share = (wanted - before) / seen.histogram[index]
    return float((index + share) * seen.bin_width)


def _mse(seen: Observed, grid: Floats) -> float:
    import numpy as np

    tried = seen.absolute_max * np.geomspace(1 / _DEEPEST, 1.0, _CANDIDATES)
    best = int(np.argmin(squared_error(seen, tried, grid)))
    around = np.linspace(tried[max(0, best - 1)], tried[min(_CANDIDATES - 1, best + 1)], 33)
    return float(around[int(np.argmin(squared_error(seen, around, grid)))])


def _entropy(seen: Observed, grid: Floats) -> float:
    """TensorRT's bins are too wide for the rest where one value is far larger: then only the part is looked at
    in which the answer lies, and what is beyond counts as clipped."""
    reach = seen.absolute_max
    while True:
        found = _least_divergence(seen, reach, grid)
        if found > reach / _ZOOM or reach <= 2 * seen.bin_width:
            return found
        reach = 2 * found


def _least_divergence(seen: Observed, reach: float, grid: Floats) -> float:
    import numpy as np

    width = reach / _COARSE
    running = _below(seen, 0, np.arange(_COARSE + 1, dtype=np.float64) * width)
    if reach >= seen.absolute_max:
        running[-1] = seen.count  # the largest value itself stands somewhere in its bin
    counts = np.diff(running)
    beyond = seen.count - running[-1]
    counts[0] = counts[1]  # zeros are exact at any range; TensorRT passes over them, too
    first = min(len(grid), _COARSE)
    ends = np.append(np.arange(first, _COARSE, _STRIDE), _COARSE)
    losses = [_divergence(counts, int(end), float(beyond), grid) for end in ends]
    return float(ends[int(np.argmin(losses))] * width)


def _divergence(counts: Floats, end: int, beyond: float, grid: Floats) -> float:
    """Between the first ``end`` bins, the rest clipped into the last, and the same in a level for each code.

    A level's counts are spread evenly over those of its bins that hold anything.
    """
    import numpy as np

    kept = counts[:end]
    reference = kept.copy()
    reference[-1] += counts[end:].sum() + beyond
    centres = (np.arange(end) + 0.5) / end
    level = np.searchsorted((grid[1:] + grid[:-1]) / 2, centres)
    filled = kept > 0
    total = np.bincount(level, weights=kept, minlength=len(grid))
    bins = np.bincount(level, weights=filled, minlength=len(grid))
    spread = (total / np.maximum(bins, 1))[level] * filled
    if not spread.sum():
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    both = p > 0
    # An empty bin of q under p would be infinite; a share far below that of one value stands for it.
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))).sum())


METHODS: Mapping[str, Method] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
"""How a threshold may be chosen, by name."""
