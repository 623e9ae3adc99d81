"""The harness owns the clock: the loop that times steps, and the warm-up before it.

A sample is the wall-clock time of ``step(); step.synchronize()`` in nanoseconds, and of nothing
else: the bookkeeping falls between two samples, and garbage collection is off. What the loop
itself adds is measured by ``benchmarks/timing_loop.py``.

A turn costs little beyond its samples, so that turns can be short: noise that lasts longer than a turn then
meets all who are compared alike. So garbage is collected once in a worker's life and what is left is frozen
(``gc.freeze``), instead of a collection for each turn.
"""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.bench.statistics import median
from vit_deploy.garbage import collection_off

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.protocols import Step

WINDOW_NS = 100_000_000
"""A window of the warm-up lasts at least this long, and two steps."""

LONGEST_SETTLING_NS = 100_000_000
"""A step as long as this is not run uncounted before each turn."""

REST_POLL_S = 0.001
REST_LIMIT_NS = 1_000_000_000


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up went.

    Attributes:
        steps: how many there were.
        elapsed_ns: how long they took.
        settled: whether they became stable within the limit.
        step_ns: the median of the last window.
    """

    steps: int
    elapsed_ns: int
    settled: bool
    step_ns: int


@dataclass(frozen=True)
class Slice:
    """What one turn gave.

    Attributes:
        samples: nanoseconds of each step, of all streams.
        elapsed_ns: how long the samples took, all streams together: samples over it is the throughput.
    """

    samples: list[int]
    elapsed_ns: int


def time_steps(step: Step, budget_ns: int, minimum: int = 1, maximum: int = 10_000) -> list[int]:
    """Time steps until ``budget_ns`` is spent.

    Args:
        step: one inference on staged inputs.
        budget_ns: wall-clock time to spend; the step that crosses it is still counted.
        minimum: samples to take however long they last.
        maximum: samples after which to stop.

    Returns:
        The time of each step in nanoseconds, in order.
    """
    with collection_off():
        return _loop(step, budget_ns, minimum, maximum).samples


def _loop(step: Step, budget_ns: int, minimum: int, maximum: int) -> Slice:
    clock, synchronize = time.perf_counter_ns, step.synchronize
    samples: list[int] = []
    record = samples.append
    synchronize()
    began = after = clock()
    end = began + budget_ns
    for _ in range(maximum):
        before = clock()
        step()
        synchronize()
        after = clock()
        record(after - before)
        if after >= end and len(samples) >= minimum:
            break
    return Slice(samples, after - began)


class Streams:
    """The steps of one or several streams, each in a thread of its own; a single one in the caller's.

    The threads last as long as this object: a library keeps a thread pool for each thread that calls it.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        count = len(self._steps)
        self._threads = [ThreadPoolExecutor(1, f"stream-{index}") for index in range(count if count > 1 else 0)]

    def __len__(self) -> int:
        return len(self._steps)

    def time(self, budget_ns: int, minimum: int = 1, maximum: int = 10_000) -> Slice:
        """Time the steps of all streams, which start together.

        A stream that has its samples goes on, uncounted, until the others have theirs, so that every sample
        is taken beside as many neighbours. The throughput is the sum of the streams' own.

        Args:
            budget_ns: wall-clock time to spend.
            minimum: samples to take, of all streams together.
            maximum: samples after which to stop, of all streams together.
        """
        count = len(self._steps)
        limits = budget_ns, -(-minimum // count), max(1, maximum // count)
        with collection_off():
            if count == 1:
                return _loop(self._steps[0], *limits)
            slices = self._side_by_side(*limits)
        samples = [sample for entry in slices for sample in entry.samples]
        rate = sum(len(entry.samples) / max(entry.elapsed_ns, 1) for entry in slices)
        return Slice(samples, round(len(samples) / rate))

    def _side_by_side(self, budget_ns: int, minimum: int, maximum: int) -> list[Slice]:
        barrier = threading.Barrier(len(self._steps))
        unfinished = set(range(len(self._steps)))

        def stream(index: int) -> Slice:
            step = self._steps[index]
            try:
                barrier.wait()
                taken = _loop(step, budget_ns, minimum, maximum)
            finally:
                unfinished.discard(index)
            while unfinished:
                step()
                step.synchronize()
            return taken

        started = [thread.submit(stream, index) for index, thread in enumerate(self._threads)]
        return [future.result() for future in started]

    def settle(self, step_ns: int) -> None:
        """Let the streams find their caches again, uncounted: a neighbour has just had them.

        One step each brings back what fits into a cache. A step of :data:`LONGEST_SETTLING_NS` or more is
        not worth it: what it reads fits into none, and filling one is a small part of it.

        Args:
            step_ns: how long a step lasts.
        """
        if step_ns < LONGEST_SETTLING_NS:
            self.time(0, minimum=len(self._steps))

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.shutdown()


def warm_up(streams: Streams, limit_ns: int, tolerance: float) -> WarmUp:
    """Run steps until the medians of two consecutive windows differ by less than ``tolerance``.

    Args:
        streams: inferences on staged inputs.
        limit_ns: wall-clock time after which to stop, stable or not.
        tolerance: the relative difference that counts as stable, such as 0.05.
    """
    start = time.perf_counter_ns()
    count, previous = 0, 0.0
    while True:
        window = streams.time(WINDOW_NS, minimum=2 * len(streams)).samples
        count += len(window)
        present = median(window)
        settled = bool(previous) and abs(present - previous) <= tolerance * previous
        elapsed = time.perf_counter_ns() - start
        if settled or elapsed >= limit_ns:
            return WarmUp(count, elapsed, settled, round(present))
        previous = present


def put_memory_in_order() -> None:
    """Collect garbage, and keep what is alive out of all collections to come."""
    gc.collect()
    gc.freeze()


def rest() -> bool:
    """Wait until the threads of this process are at rest, a second at most; whether they are.

    Some thread pools spin for a while after their last task. The next worker must not start
    measuring beside them.
    """
    deadline = time.perf_counter_ns() + REST_LIMIT_NS
    while time.perf_counter_ns() < deadline:
        used, began = time.process_time_ns(), time.perf_counter_ns()
        time.sleep(REST_POLL_S)
        share = (time.process_time_ns() - used) / (time.perf_counter_ns() - began)
        if share < 0.1:
            return True
    return False
