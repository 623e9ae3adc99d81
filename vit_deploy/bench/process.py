"""The coordinator's end of a worker that measures one case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.worker_process import WorkerFailed, WorkerProcess

if TYPE_CHECKING:
    from vit_deploy.bench.cases import Case

WORKER_MODULE = "vit_deploy.bench.worker"


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
    """The worker of one case; see :mod:`vit_deploy.bench.worker` for what it can be asked."""

    def __init__(self, case: Case) -> None:
        super().__init__(WORKER_MODULE, threads=case.threads)

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
