"""An inference's time by its parts, in ``trtexec``'s words: host to device, compute, device to host, enqueue.

CUDA events are recorded on the stream of the step, around a copy of its inputs from pinned memory, the step,
and a copy of its outputs to pinned memory. Compute is all that the stream did between the copies, waiting
for the host included: where that is slower to start kernels than the GPU is to run them, it shows there, and
enqueue (how long the step took to return) is as long. See "Performance summary" in
https://github.com/NVIDIA/TensorRT/tree/main/samples/trtexec; unlike it, one inference is in flight at a time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from vit_deploy.bench.statistics import median

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.protocols import Step

BUDGET_NS = 1_000_000_000
MOST = 200
LEAST = 5
WARM = 3


class Timeline(Protocol):
    """The stream of a step, with copies of the inputs and outputs on it."""

    def mark(self) -> Any:
        """Record an event."""

    def copy_in(self) -> None:
        """Start the copy of the inputs to the device."""

    def copy_out(self) -> None:
        """Start the copy of the outputs to the host."""

    def wait(self) -> None:
        """Wait until all that was started is done."""

    def between_ms(self, first: Any, second: Any) -> float:
        """Milliseconds between two events that were waited for."""


class TorchTimeline:
    """A :class:`Timeline` on a CUDA stream of PyTorch's.

    Args:
        stream: of the step, a ``torch.cuda.Stream``.
        inputs: the shape and numpy dtype name of each input.
        outputs: likewise.
    """

    def __init__(
        self,
        stream: Any,
        inputs: Sequence[tuple[tuple[int, ...], str]],
        outputs: Sequence[tuple[tuple[int, ...], str]],
    ) -> None:
        self._stream = stream
        self._in = [self._pair(shape, dtype) for shape, dtype in inputs]
        self._out = [self._pair(shape, dtype) for shape, dtype in outputs]

    def _pair(self, shape: tuple[int, ...], dtype: str) -> tuple[Any, Any]:
        """A pinned tensor and one on the device. They are the copies' own: only their size matters."""
        import torch

        kind = getattr(torch, dtype)
        host = torch.zeros(shape, dtype=kind, pin_memory=True)
        return host, torch.zeros(shape, dtype=kind, device=self._stream.device)

    def mark(self) -> Any:
        """See :class:`Timeline`."""
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def copy_in(self) -> None:
        """See :class:`Timeline`."""
        self._copy((device, host) for host, device in self._in)

    def copy_out(self) -> None:
        """See :class:`Timeline`."""
        self._copy(self._out)

    def _copy(self, pairs: Any) -> None:
        import torch

        with torch.cuda.stream(self._stream):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)

    def wait(self) -> None:
        """See :class:`Timeline`."""
        self._stream.synchronize()

    def between_ms(self, first: Any, second: Any) -> float:
        """See :class:`Timeline`."""
        return float(first.elapsed_time(second))


def stream_of(step: Step, index: int) -> Any | None:
    """The CUDA stream that a step runs on; ``None`` where it is out of reach.

    A TensorRT step has its executor's, a PyTorch step one of its own or the current one. ONNX Runtime makes
    a stream that nothing can be recorded on from outside.
    """
    from vit_deploy.runtimes.eager import TorchStep

    stream = getattr(getattr(step, "executor", step), "stream", None)
    if stream is not None or not isinstance(step, TorchStep):
        return stream
    import torch

    return torch.cuda.current_stream(index)


def measure_split(step: Step, timeline: Timeline, budget_ns: int = BUDGET_NS) -> dict[str, float]:
    """Medians of ``h2d_ms``, ``compute_ms``, ``d2h_ms`` and ``enqueue_ms``.

    Args:
        step: one inference, warm.
        timeline: of its stream.
        budget_ns: wall-clock time to spend.
    """
    samples: dict[str, list[float]] = {"h2d_ms": [], "compute_ms": [], "d2h_ms": [], "enqueue_ms": []}
    for _ in range(WARM):  # the first copies and events of a stream are made ready
        _one_split(step, timeline)
    end = time.perf_counter_ns() + budget_ns
    for count in range(1, MOST + 1):
        for name, value in _one_split(step, timeline).items():
            samples[name].append(value)
        if time.perf_counter_ns() >= end and count >= LEAST:
            break
    return {name: median(values) for name, values in samples.items()}


def _one_split(step: Step, timeline: Timeline) -> dict[str, float]:
    start = timeline.mark()
    timeline.copy_in()
    copied = timeline.mark()
    before = time.perf_counter_ns()
    step()
    enqueued = time.perf_counter_ns() - before
    computed = timeline.mark()
    timeline.copy_out()
    end = timeline.mark()
    timeline.wait()
    step.synchronize()
    return {
        "h2d_ms": timeline.between_ms(start, copied),
        "compute_ms": timeline.between_ms(copied, computed),
        "d2h_ms": timeline.between_ms(computed, end),
        "enqueue_ms": enqueued / 1e6,
    }
