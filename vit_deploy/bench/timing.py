"""The harness owns the clock: the loop that times steps, and the warm-up before it.

A sample is the wall-clock time of ``step(); step.synchronize()`` in nanoseconds, and of nothing
else: the bookkeeping falls between two samples, and garbage collection is off. What the loop
itself adds is measured by ``benchmarks/timing_loop.py``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.bench.statistics import median
from vit_deploy.garbage import collection_off

if TYPE_CHECKING:
    from vit_deploy.protocols import Step

WINDOW_NS = 100_000_000
"""A window of the warm-up lasts at least this long, and two steps."""

REST_POLL_S = 0.005
REST_LIMIT_NS = 1_000_000_000


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up went: its steps, its time, and whether it became stable within its limit."""

    steps: int
    elapsed_ns: int
    settled: bool


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
    clock, synchronize = time.perf_counter_ns, step.synchronize
    samples: list[int] = []
    record = samples.append
    with collection_off(collect_first=True):
        synchronize()
        end = clock() + budget_ns
        for _ in range(maximum):
            before = clock()
            step()
            synchronize()
            after = clock()
            record(after - before)
            if after >= end and len(samples) >= minimum:
                break
    return samples


def warm_up(step: Step, limit_ns: int, tolerance: float) -> WarmUp:
    """Run steps until the medians of two consecutive windows differ by less than ``tolerance``.

    Args:
        step: one inference on staged inputs.
        limit_ns: wall-clock time after which to stop, stable or not.
        tolerance: the relative difference that counts as stable, such as 0.05.
    """
    start = time.perf_counter_ns()
    steps, previous = 0, 0.0
    while True:
        window = time_steps(step, WINDOW_NS, minimum=2)
        steps += len(window)
        present = median(window)
        settled = bool(previous) and abs(present - previous) <= tolerance * previous
        elapsed = time.perf_counter_ns() - start
        if settled or elapsed >= limit_ns:
            return WarmUp(steps, elapsed, settled)
        previous = present


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
