"""What values the tensors of a graph take: one pass over the pictures, kept as histograms of a fixed size.

The fp32 graph is written to a temporary file, its weights streamed beside it, with the wanted tensors as
further outputs, and run in ONNX Runtime. Every batch is reduced at once, and cut so that all wanted tensors
together take at most :data:`ROOM` bytes: memory depends neither on the number of pictures nor on the batch.

A histogram counts ``|x|`` in :data:`BINS` bins of equal width from 0. Its range is a power of two and doubles
when a larger value comes, two bins becoming one, as in Migacz, "8-bit Inference with TensorRT" (GTC 2017), but
exactly: the result is the same for any order of pictures and any batch size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ExportFailed
from vit_deploy.protocols import Silent
from vit_deploy.quantisation.session import opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from vit_deploy.protocols import Arrays, Progress
    from vit_deploy.quantisation.session import Found, GraphSession
    from vit_deploy.spec import IOSpec

BINS = 8192
"""Enough that a step of int8 spans bins even where the threshold is a hundredth of the largest value."""

ROOM = 96 * 2**20
"""Bytes that all wanted tensors of one run may take; a batch that needs more is run in pieces."""

_PIECE = 1 << 16
"""Values that are counted at a time: they stay in the processor's cache."""

_LEAST = -64
"""Exponent of the least range; a tensor of zeros keeps it."""


@dataclass(frozen=True)
class Observed:
    """What was seen of one tensor.

    Attributes:
        name: of the value in the graph.
        low: the least value.
        high: the largest value.
        histogram: int64 ``(BINS,)``, counts of ``|x|``.
        bin_width: of each bin, a power of two; the first begins at 0.
        channel_max: float32 ``(c,)``, the largest ``|x|`` by index of the last axis.
        mean: float64 ``(c,)``, the mean by index of the last axis; ``None`` unless it was asked for.
    """

    name: str
    low: float
    high: float
    histogram: NDArray[np.int64]
    bin_width: float
    channel_max: NDArray[np.float32]
    mean: NDArray[np.float64] | None = None

    @property
    def absolute_max(self) -> float:
        """The largest ``|x|``."""
        return max(-self.low, self.high)

    @property
    def count(self) -> int:
        """How many values were seen."""
        return int(self.histogram.sum())


def observe(
    graph: ir.Model,
    spec: IOSpec,
    tensors: Sequence[str],
    batches: Iterable[Arrays],
    *,
    means: bool = False,
    progress: Progress | None = None,
) -> dict[str, Observed]:
    """Run a graph on batches and see what values some of its tensors take.

    Args:
        graph: an fp32 graph, weights unread; it is as it was afterwards.
        spec: its inputs and outputs.
        tensors: names of float values: of nodes, outputs or inputs. Each is counted whole, by its last axis.
        batches: inputs by name; one pass.
        means: keep the mean of each channel, too.
        progress: advanced by one for each picture.

    Returns:
        What was seen, by name, in the order of ``tensors``.

    Raises:
        ExportFailed: for a name that the graph has not, a graph that ONNX Runtime cannot run, values that are
            not finite, or no batch at all.
    """
    names = list(dict.fromkeys(tensors))
    counters = {name: _Counter(name, means=means) for name in names}
    seen = 0
    with opened(graph, names) as session:
        for count, found in _runs(session, batches, whole=spec.batch.is_fixed):
            for name, values in found.items():
                counters[name].add(values)
            seen += count
            (progress or Silent()).advance(count)
    if not seen:
        raise ExportFailed("there was no picture to calibrate on", expected="one batch or more")
    return {name: counter.observed() for name, counter in counters.items()}


def _runs(session: GraphSession, batches: Iterable[Arrays], *, whole: bool) -> Iterator[tuple[int, Found]]:
    """The tensors of every batch, in pieces that :data:`ROOM` holds, and how many pictures each piece has.

    The first picture is run alone to learn how large the tensors are. ``whole`` batches are never cut.
    """
    rows = 0
    for batch in batches:
        size = len(next(iter(batch.values())))
        start = 0
        while start < size:
            taken = size if whole else min(rows or 1, size - start)
            found = session.run({name: array[start : start + taken] for name, array in batch.items()})
            rows = rows or max(1, ROOM // max(1, sum(values.nbytes for values in found.values())))
            start += taken
            yield taken, found


class _Counter:
    """The histogram of one tensor while it grows."""

    def __init__(self, name: str, *, means: bool) -> None:
        import numpy as np

        self.name = name
        self.low, self.high = float("inf"), float("-inf")
        self.exponent = _LEAST
        self.histogram = np.zeros(BINS, dtype=np.int64)
        self.channel_max: NDArray[np.float32] | None = None
        self.sums: NDArray[np.float64] | None = None
        self.means = means
        self.rows = 0
        self._values = np.empty(_PIECE, dtype=np.float32)
        self._bins = np.empty(_PIECE, dtype=np.intp)

    def add(self, values: NDArray[Any]) -> None:
        """Count the values of one batch, ``(…, c)``."""
        import numpy as np

        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(
            -1, values.shape[-1] if values.ndim else 1
        )
        most, least = flat.max(axis=0), flat.min(axis=0)
        low, high = float(least.min()), float(most.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ExportFailed(
                f"the tensor {self.name!r} has values that are not finite on the calibration pictures",
                expected="finite values in fp32",
                next_command="vit-deploy verify, which finds the block that they come from",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = np.maximum(most, -least)
        self.channel_max = largest if self.channel_max is None else np.maximum(self.channel_max, largest)
        self._widen(max(-low, high))
        self._count(flat.reshape(-1))
        self.rows += len(flat)
        if self.means:
            # A product with ones is the fastest sum over rows; float32 within a batch, float64 across them.
            total = (np.ones((1, len(flat)), dtype=np.float32) @ flat)[0].astype(np.float64)
            self.sums = total if self.sums is None else self.sums + total

    def observed(self) -> Observed:
        """All that was seen."""
        import numpy as np

        largest = np.zeros(0, dtype=np.float32) if self.channel_max is None else self.channel_max
        mean = None if self.sums is None else self.sums / self.rows
        width = 2.0**self.exponent / BINS
        return Observed(self.name, self.low, self.high, self.histogram, width, largest, mean)

    def _widen(self, largest: float) -> None:
        """Double the range until it is larger than any value, so that none stands on its edge."""
        import numpy as np

        wanted = int(np.frexp(largest)[1]) if largest > 0 else _LEAST
        if wanted <= self.exponent:
            return
        together = 2 ** min(wanted - self.exponent, BINS.bit_length() - 1)
        merged = self.histogram.reshape(-1, together).sum(axis=1)
        self.histogram = np.zeros(BINS, dtype=np.int64)
        self.histogram[: len(merged)] = merged
        self.exponent = wanted

    def _count(self, values: NDArray[np.float32]) -> None:
        import numpy as np

        scale = np.float32(BINS * 2.0**-self.exponent)  # a power of two: no rounding
        for start in range(0, len(values), _PIECE):
            piece = values[start : start + _PIECE]
            absolute, bins = self._values[: len(piece)], self._bins[: len(piece)]
            np.abs(piece, out=absolute)
            np.multiply(absolute, scale, out=bins, casting="unsafe")
            self.histogram += np.bincount(bins, minlength=BINS)
