"""A worker of `vit-deploy bench` whose inferences are made longer by a known time; see benchmarks/detection.py.

The time is kept busy, as a slower kernel would, and lies inside the samples. It is told by the variable
``VIT_DEPLOY_DETECTION_DELAY_NS``; with 0 it is the same worker, wait and all.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.timing import Streams
from vit_deploy.bench.worker import Worker, _failure
from vit_deploy.worker_process import run_worker, serve

if TYPE_CHECKING:
    from vit_deploy.protocols import Step

VARIABLE = "VIT_DEPLOY_DETECTION_DELAY_NS"


class Slowed:
    """A step that keeps a core busy for so long after each inference."""

    def __init__(self, step: Step, delay_ns: int) -> None:
        self._step = step
        self._delay_ns = delay_ns

    def __call__(self) -> None:
        """One inference, and the delay."""
        self._step()
        self._step.synchronize()
        end = time.perf_counter_ns() + self._delay_ns
        while time.perf_counter_ns() < end:
            pass

    def synchronize(self) -> None:
        """All is done by now."""


class SlowedWorker(Worker):
    """The product's worker, with the delay around each of its steps."""

    def staged(self, steps: list[Step]) -> Streams:
        """See :class:`~vit_deploy.bench.worker.Worker`."""
        delay = int(os.environ[VARIABLE])
        return super().staged([Slowed(step, delay) for step in steps])


def main(given: list[str]) -> Any:
    """``python -m _slowed_worker DESCRIPTOR``."""
    run_worker(lambda: serve(int(given[0]), SlowedWorker().answer, _failure, last="finish"))


if __name__ == "__main__":
    main(sys.argv[1:])
