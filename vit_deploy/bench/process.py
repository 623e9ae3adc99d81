"""The coordinator's end of a worker that measures one case."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from vit_deploy.worker_process import WorkerFailed, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.bench.cases import Case

WORKER_MODULE = "vit_deploy.bench.worker"
MODULES = {"ceiling": "vit_deploy.bench.ceiling.worker"}
"""The module of each role's worker that is not :data:`WORKER_MODULE`; all answer the same messages."""


class CaseFailed(Exception):
    """A case came to nothing: its worker reported an error, died or hung. A failed row, not a failed run.

    Attributes:
        exit_code: the exit code of the error that the worker reported, 1 otherwise.
        worker_exit: how the worker process ended, where it ended by itself: a signal's number is negative.
    """

    def __init__(self, message: str, *, exit_code: int = 1, worker_exit: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.worker_exit = worker_exit


class CaseWorker(WorkerProcess):
    """The worker of one case; see :mod:`vit_deploy.bench.worker` for what it can be asked.

    Args:
        case: what it measures.
        module: the worker's module.
        python: the interpreter that runs it; another environment's for a peer.
        variables: of its environment, over those of this process.
    """

    def __init__(
        self,
        case: Case,
        module: str = WORKER_MODULE,
        *,
        python: str = sys.executable,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(module, threads=case.threads, python=python, variables=variables)

    def ask(self, command: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Send one message and wait for its answer.

        Raises:
            CaseFailed: when the worker reports an error, dies, or does not answer in time.
        """
        try:
            answer = super().ask(command, timeout_s, **arguments)
        except WorkerFailed as failure:
            mend = "\n  next: give it longer with --timeout" if failure.hung else ""
            raise CaseFailed(f"{failure}{mend}", worker_exit=failure.worker_exit) from failure
        if "error" in answer:
            raise CaseFailed(answer["error"], exit_code=int(answer.get("exit_code", 1)))
        return answer


class StartWorker(Protocol):
    """Starts the worker of a case; a run may be given one that runs peers in environments of their own."""

    def __call__(self, case: Case, /) -> CaseWorker:
        """The worker, started and not yet asked anything."""


def start_worker(case: Case) -> CaseWorker:
    """Start the worker that a case's role asks for, in this environment."""
    return CaseWorker(case, MODULES.get(case.role, WORKER_MODULE))
