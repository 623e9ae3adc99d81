"""What the timing loop of `vit-deploy bench` adds to an iteration. Run: python benchmarks/timing_loop.py

A step that does nothing is timed by the loop. What the loop records for it is the part of its cost
that lands *inside* a sample; the wall-clock time per iteration, less that of a bare loop over the
same step, is *all* that it adds. Both must stay at or below LIMIT_US; the script exits with 5 if not.
The best of several repeats is the loop's own cost: a busy machine only ever adds to it.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time

from vit_deploy.bench.statistics import median
from vit_deploy.bench.timing import time_steps
from vit_deploy.environment import environment
from vit_deploy.garbage import collection_off

LIMIT_US = 5.0


class NoStep:
    """A step that does nothing."""

    def __call__(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


def bare_loop_ns(step: NoStep, count: int) -> float:
    """Nanoseconds per iteration of the same two calls with no clock and no list."""
    with collection_off(collect_first=True):
        start = time.perf_counter_ns()
        for _ in range(count):
            step()
            step.synchronize()
        return (time.perf_counter_ns() - start) / count


def timed_loop_ns(step: NoStep, count: int) -> tuple[float, float]:
    """Nanoseconds per iteration by the wall clock, and the median that the loop recorded."""
    gc.collect()
    start = time.perf_counter_ns()
    samples = time_steps(step, 0, minimum=count, maximum=count)
    return (time.perf_counter_ns() - start) / count, median(samples)


def measure(count: int, repeats: int) -> dict[str, float]:
    """Microseconds that the loop adds to an iteration."""
    step = NoStep()
    bare, wall, inside = [], [], []
    for _ in range(repeats):
        bare.append(bare_loop_ns(step, count))
        total, recorded = timed_loop_ns(step, count)
        wall.append(total)
        inside.append(recorded)
    return {
        "inside_a_sample_us": min(inside) / 1e3,
        "added_in_all_us": (min(wall) - min(bare)) / 1e3,
        "added_in_all_median_us": (median(wall) - median(bare)) / 1e3,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="iterations of a repeat")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    figures = measure(given.count, given.repeats)
    ok = max(figures["inside_a_sample_us"], figures["added_in_all_us"]) <= LIMIT_US
    if given.json:
        document = {
            "schema": "vit-deploy/timing-loop/1",
            "environment": environment(),
            **figures,
            "limit_us": LIMIT_US,
            "ok": ok,
        }
        print(json.dumps(document, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:24} {value:8.3f}")
        print(f"{'limit_us':24} {LIMIT_US:8.3f}  {'holds' if ok else 'does not hold'}")
    return 0 if ok else 5


if __name__ == "__main__":
    sys.exit(main())
