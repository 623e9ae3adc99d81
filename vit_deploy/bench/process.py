"""The coordinator's end of a worker: start it, ask it, tell how it died, leave no orphan."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_deploy.bench.cases import Case

WORKER_COMMAND = (sys.executable, "-m", "vit_deploy.bench.worker")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Idle threads sleep instead of spinning, as ``SessionOptions(spin=False)`` has it for the other backends.

A spinning thread of OpenMP holds a core that the thread it waits for may need: beside any other load,
eager PyTorch then takes hundreds of times as long. What the user's environment says of it is kept.
"""

CLOSE_TIMEOUT_S = 5.0
LOG_LINES = 5


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


class WorkerProcess:
    """One worker, with what it printed kept in a log. A context manager that leaves no process behind."""

    def __init__(self, case: Case) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._answers, sent = os.pipe()
        self._buffer = bytearray()
        self.spawned_ns = time.monotonic_ns()
        # A session of its own keeps the terminal's Ctrl-C from the worker: the coordinator ends it.
        self._process = subprocess.Popen(
            [*WORKER_COMMAND, str(sent)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(sent,),
            env=worker_environment(case.threads),
            start_new_session=True,
        )
        os.close(sent)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def ask(self, command: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Send one message and wait for its answer.

        Raises:
            CaseFailed: when the worker reports an error, dies, or does not answer in time.
        """
        line = json.dumps({"command": command, **arguments}).encode() + b"\n"
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._death() from error
        answer = self._read_line(command, timeout_s)
        if "error" in answer:
            raise CaseFailed(answer["error"], exit_code=int(answer.get("exit_code", 1)))
        return answer

    def _read_line(self, command: str, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.kill()
                    raise CaseFailed(
                        f"the worker did not answer {command!r} within {timeout_s:g} s and was killed\n"
                        "  next: give it longer with --timeout"
                    )
                piece = os.read(self._answers, 1 << 16)
                if not piece:
                    raise self._death()
                self._buffer += piece
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _death(self) -> CaseFailed:
        """The failure that says how the worker ended, and the last it printed."""
        try:
            code = self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return CaseFailed("the worker closed its pipe but did not end, and was killed")
        if code < 0:
            text = f"the worker was killed by {signal.Signals(-code).name}"
            text += " (the system does this when memory runs out)" if -code == signal.SIGKILL else ""
        else:
            text = f"the worker ended with exit code {code} before it answered"
        tail = self._log_tail()
        return CaseFailed(f"{text}; its last words: {tail}" if tail else text, worker_exit=code)

    def _log_tail(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4096))
        lines = self._log.read().decode(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-LOG_LINES:] if line.strip())

    def kill(self) -> None:
        """End the worker and what it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self, *, at_once: bool = False) -> None:
        """Close its stdin, which ends it; kill it if that does not, or ``at_once``."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            if not at_once:
                self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()
            os.close(self._answers)
            self._log.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(at_once=kind is not None)


def thread_settings(threads: int) -> dict[str, str]:
    """What a worker's environment says of threads, the same for every library."""
    passive = {name: os.environ.get(name, value) for name, value in PASSIVE_WAITING.items()}
    return {**dict.fromkeys(THREAD_VARIABLES, str(threads)), **passive}


def worker_environment(threads: int) -> dict[str, str]:
    """The coordinator's environment, with every library told the same of threads."""
    # The folder of the user is no place to import from: a `torch.py` there would shadow PyTorch.
    return {**os.environ, **thread_settings(threads), "PYTHONSAFEPATH": "1"}
