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
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from vit_deploy.protocols import Arrays, Progress
    from vit_deploy.quantisation.session import GraphSession
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
    counters = {name: _Counter(name, means=means) for name in tensors}
    rows = spec.batch.minimum if spec.batch.is_fixed else 0
    seen = 0
    with opened(graph, list(counters)) as session:
        for batch in batches:
            rows = _count_batch(session, batch, counters, rows)
            size = len(next(iter(batch.values())))
            seen += size
            (progress or Silent()).advance(size)
    if not seen:
        raise ExportFailed("there was no picture to calibrate on", expected="one batch or more")
    return {name: counter.observed() for name, counter in counters.items()}


def _count_batch(session: GraphSession, batch: Arrays, counters: Mapping[str, _Counter], rows: int) -> int:
    """Run a batch and count its tensors, ``rows`` pictures at a time.

    Returns:
        How many pictures :data:`ROOM` holds the tensors of, which the first one, run alone, tells.
    """
    size = len(next(iter(batch.values())))
    start = 0
    while start < size:
        taken = min(rows or 1, size - start)
        found = session.run({name: array[start : start + taken] for name, array in batch.items()})
        rows = rows or max(1, ROOM // max(1, sum(values.nbytes for values in found.values())))
        start += taken
        for name, counter in counters.items():
            counter.add(found.pop(name))  # what was counted goes before the next run takes its place
    return rows


class _Counter:
    """What is known of one tensor while the pictures go by."""

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

    def add(self, values: NDArray[Any]) -> None:
        """Count the values of one batch, ``(…, c)``, in pieces that stay in the processor's cache."""
        import numpy as np

        channels = values.shape[-1] if values.ndim else 1
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, channels)
        height = max(1, _PIECE // channels)
        scratch = np.empty(height * channels, dtype=np.float32), np.empty(height * channels, dtype=np.intp)
        for start in range(0, len(flat), height):
            self._add_piece(flat[start : start + height], *scratch)

    def _add_piece(
        self, piece: NDArray[np.float32], absolute: NDArray[np.float32], bins: NDArray[np.intp]
    ) -> None:
        import numpy as np

        most, least = piece.max(axis=0), piece.min(axis=0)
        low, high = float(least.min()), float(most.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise _not_finite(self.name)
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = np.maximum(most, -least)
        self.channel_max = largest if self.channel_max is None else np.maximum(self.channel_max, largest)
        self.rows += len(piece)
        if self.means:
            # A product with ones is the fastest sum over rows; float32 in a piece, float64 across them.
            total = (np.ones((1, len(piece)), dtype=np.float32) @ piece)[0].astype(np.float64)
            self.sums = total if self.sums is None else self.sums + total
        self._widen(max(-low, high))
        size = piece.size
        np.abs(piece.reshape(-1), out=absolute[:size])
        # A power of two: the product rounds nothing, and the cast cuts it off to the bin.
        scale = np.float32(BINS * 2.0**-self.exponent)
        np.multiply(absolute[:size], scale, out=bins[:size], casting="unsafe")
        self.histogram += np.bincount(bins[:size], minlength=BINS)

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

    def observed(self) -> Observed:
        """All that was seen."""
        import numpy as np

        largest = np.zeros(0, dtype=np.float32) if self.channel_max is None else self.channel_max
        mean = None if self.sums is None else self.sums / self.rows
        width = 2.0**self.exponent / BINS
        return Observed(self.name, self.low, self.high, self.histogram, width, largest, mean)


def _not_finite(name: str) -> ExportFailed:
    return ExportFailed(
        f"the tensor {name!r} has values that are not finite on the calibration pictures",
        expected="finite values in fp32",
        next_command="vit-deploy verify, which finds the block that they come from",
    )
