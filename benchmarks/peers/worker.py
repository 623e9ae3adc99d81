"""A peer's worker: ours (:mod:`vit_deploy.bench.worker`), its messages and its loop, in the peer's environment.

Of our package it imports what needs the standard library alone. When it opens a peer it also compares the
output with eager's, so that no time counts for a wrong result.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.models import IMAGE_SIZE, SEED
from benchmarks.peers.recipe import TOLERANCES, Job, Opened, load
from vit_deploy.bench.cases import Case, check_facts
from vit_deploy.bench.timing import Streams, rest
from vit_deploy.bench.worker import Worker
from vit_deploy.errors import RunFailed
from vit_deploy.facts import RuntimeFacts
from vit_deploy.worker_process import run_worker, serve

if TYPE_CHECKING:
    from benchmarks.peers.recipe import Pixels

JOB_VARIABLE = "VIT_DEPLOY_PEER_JOB"
"""Names the job file of the worker."""


class PeerWorker(Worker):
    """One peer on one model at one batch size: only how it is opened is another matter than for our own."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job
        self._pixels: Pixels | None = None

    def _open(self, case: dict[str, Any], spawned_ns: int) -> dict[str, Any]:
        """Open the case, and compare its output with eager's.

        Raises:
            RunFailed: when that is another, or it computes in another precision.
        """
        wanted = Case.from_dict(case)
        # Kept here: OpenVINO and ONNX Runtime only borrow the memory of what is bound.
        self._pixels = pixels = make_pixels(wanted.batch_size)
        imported = time.monotonic_ns()
        opened = load(self._job.peer).open_model(self._job, wanted.artefact, pixels, wanted.threads)
        loaded = time.monotonic_ns()
        opened.step()
        opened.step.synchronize()
        done = time.monotonic_ns()
        facts = facts_of(opened, wanted, difference(opened, self._job, wanted.batch_size))
        check_facts(facts, wanted)
        self._streams = Streams([opened.step])
        rest()
        # Others' files have no hashes that could be checked; their libraries are imported as they are opened.
        phases = {
            "import": imported - spawned_ns,
            "check": 0,
            "open": loaded - imported,
            "first": done - loaded,
        }
        return {"facts": asdict(facts), "cold_start_ns": phases}


def make_pixels(batch_size: int, size: int = IMAGE_SIZE) -> Pixels:
    """Normal noise of shape ``(b, 3, h, w)`` in float32; a smaller batch is the start of a larger one."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    return generator.standard_normal((batch_size, 3, size, size), dtype=np.float32)


def difference(opened: Opened, job: Job, batch_size: int) -> dict[str, float]:
    """How far the output is from eager's.

    Raises:
        RunFailed: when it is another shape, not finite, or farther than its arithmetic explains.
    """
    import numpy as np

    output, wanted = opened.output(), np.load(job.reference)[:batch_size]
    if output.shape != wanted.shape:
        raise RunFailed(f"the output is of shape {output.shape}", expected=f"{wanted.shape}, as eager's")
    apart = output.astype(np.float64) - wanted
    relative = float(np.linalg.norm(apart) / np.linalg.norm(wanted))
    if not relative <= TOLERANCES[opened.arithmetic]:  # NaN is not
        raise RunFailed(
            f"the output is {relative:.2g} of its norm away from eager's",
            expected=f"at most {TOLERANCES[opened.arithmetic]:g} in {opened.arithmetic}",
        )
    return {"max_abs_diff": float(np.abs(apart).max()), "relative_error": relative}


def facts_of(opened: Opened, case: Case, apart: dict[str, float]) -> RuntimeFacts:
    """What was read back, as our own runtimes tell it."""
    return RuntimeFacts(
        backend=case.backend,
        version=opened.version,
        device=case.device,
        precision=opened.precision,  # type: ignore[arg-type]
        threads=opened.threads,
        details={**opened.details, **apart, "arithmetic": opened.arithmetic},
    )


def _failure(error: Exception) -> dict[str, Any]:
    text = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
    return {"error": text[:2000], "exit_code": 1}


def main() -> None:
    """``python -m benchmarks.peers.worker DESCRIPTOR``, with the job file in :data:`JOB_VARIABLE`."""
    worker = PeerWorker(Job.read(Path(os.environ[JOB_VARIABLE])))
    run_worker(lambda: serve(int(sys.argv[1]), worker.answer, _failure, last="finish"))


if __name__ == "__main__":
    main()
