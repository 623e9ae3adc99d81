"""A worker: a Python module that runs in a process of its own, and is asked over pipes.

What runs beside it may crash, hang or take all threads, and harms nothing but the worker. The two ends:
:class:`WorkerProcess` starts one, asks it, tells how it died and leaves no orphan; :func:`serve` is the
loop inside it. Questions come as one JSON object per line on its stdin, answers go to a descriptor of
their own, never to stdout, which libraries write to. When stdin closes the worker ends, even in the
middle of native code: so it does not outlive a coordinator that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from vit_deploy.environment import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    Message = dict[str, Any]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Idle threads sleep instead of spinning, as ``SessionOptions(spin=False)`` has it for the other backends.

A spinning thread of OpenMP holds a core that the thread it waits for may need: beside any other load,
eager PyTorch then takes hundreds of times as long. What the user's environment says of it is kept.
"""

CLOSE_TIMEOUT_S = 5.0
GRACE_S = 1.0
"""How long a worker whose coordinator is gone may take to end by itself."""
LOG_LINES = 5


class WorkerFailed(Exception):
    """A worker gave no answer.

    Attributes:
        worker_exit: how it ended, where it ended by itself: a signal's number is negative.
        hung: whether it was killed because it did not answer in time.
    """

    def __init__(self, message: str, *, worker_exit: int | None = None, hung: bool = False) -> None:
        super().__init__(message)
        self.worker_exit = worker_exit
        self.hung = hung


class WorkerProcess:
    """One worker, with what it printed kept in a log. A context manager that leaves no process behind.

    Args:
        module: is run with the descriptor for its answers, then ``arguments``; it calls :func:`serve`.
        arguments: more words for it.
        threads: of every library in it; see :func:`worker_environment`.
        descriptors: those of this process that it keeps open.
        python: the interpreter; another environment's is told where this package lies by ``variables``.
        variables: of its environment, over those of this process.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        threads: int | None,
        descriptors: Sequence[int] = (),
        python: str = sys.executable,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._answers, sent = os.pipe()
        self._buffer = bytearray()
        self.spawned_ns = time.monotonic_ns()
        try:
            # A session of its own keeps the terminal's Ctrl-C from the worker: the coordinator ends it.
            self._process = subprocess.Popen(
                [python, "-m", module, str(sent), *arguments],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(sent, *descriptors),
                env={**worker_environment(threads), **(variables or {})},
                start_new_session=True,
            )
        except BaseException:
            os.close(self._answers)
            self._log.close()
            raise
        finally:
            os.close(sent)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def ask(self, command: str, timeout_s: float, **arguments: Any) -> Message:
        """Send one message and wait for its answer.

        Raises:
            WorkerFailed: when the worker dies, or does not answer in time; it is dead then.
        """
        line = json.dumps({"command": command, **arguments}).encode() + b"\n"
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._death() from error
        answer: Message = json.loads(self._read_line(command, timeout_s))
        return answer

    def _read_line(self, command: str, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.kill()
                    raise WorkerFailed(
                        f"the worker did not answer {command!r} within {timeout_s:g} s and was killed",
                        hung=True,
                    )
                piece = os.read(self._answers, 1 << 16)
                if not piece:
                    raise self._death()
                self._buffer += piece
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    def _death(self) -> WorkerFailed:
        """The failure that says how the worker ended, and the last it printed."""
        try:
            code = self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return WorkerFailed("the worker closed its pipe but did not end, and was killed")
        if code < 0:
            text = f"the worker was killed by {signal_name(-code)}"
            text += " (the system does this when memory runs out)" if -code == signal.SIGKILL else ""
        else:
            text = f"the worker ended with exit code {code} before it answered"
        tail = self._log_tail()
        return WorkerFailed(f"{text}; its last words: {tail}" if tail else text, worker_exit=code)

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
        if self._log.closed:
            return
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(at_once=kind is not None)


def signal_name(number: int) -> str:
    """``SIGSEGV`` for 11; the number in words where the system has no name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def thread_settings(threads: int | None) -> dict[str, str]:
    """What a worker's environment says of threads, the same for every library.

    Args:
        threads: ``None`` keeps what the user's environment says, and is all usable cores where it says
            nothing.
    """
    if threads is None:
        # OpenMP's variable may hold a number for each level of nesting; the others know one.
        told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or str(usable_cores())
        counts = {name: os.environ.get(name, told) for name in THREAD_VARIABLES}
    else:
        counts = dict.fromkeys(THREAD_VARIABLES, str(threads))
    passive = {name: os.environ.get(name, value) for name, value in PASSIVE_WAITING.items()}
    return {**counts, **passive}


def worker_environment(threads: int | None) -> dict[str, str]:
    """The coordinator's environment, with every library told the same of threads."""
    # The folder of the user is no place to import from: a `torch.py` there would shadow PyTorch.
    return {**os.environ, **thread_settings(threads), "PYTHONSAFEPATH": "1"}


def serve(
    descriptor: int,
    answer: Callable[[Message], Message],
    failure: Callable[[Exception], Message],
    *,
    last: str = "",
    goes_on: bool = False,
) -> int:
    """Answer messages until ``last``, a failure, or the end of stdin.

    Args:
        descriptor: where answers go.
        answer: does what one message asks.
        failure: what is answered for what ``answer`` raised.
        last: the command after which the worker ends.
        goes_on: whether the worker lives on after a failure.

    Returns:
        The exit code.
    """
    threading.Thread(target=_end_with_the_coordinator, daemon=True).start()
    while line := sys.stdin.buffer.readline():
        message = json.loads(line)
        try:
            told = answer(message)
        except Exception as error:
            # Whatever a library raises is told to the coordinator; the log has the rest.
            traceback.print_exc()
            _send(descriptor, failure(error))
            if goes_on:
                continue
            return 1
        _send(descriptor, told)
        if message["command"] == last:
            return 0
    return 0


def _send(descriptor: int, answer: Message) -> None:
    line = json.dumps(answer, default=str).encode() + b"\n"
    with open(descriptor, "wb", closefd=False) as pipe:
        pipe.write(line)


def _end_with_the_coordinator() -> None:
    """Wait until stdin is closed at the other end, then end, whatever the main thread does.

    The main thread sees the end of stdin too, unless it never comes back from native code.
    """
    import select

    watched = select.poll()
    watched.register(sys.stdin.fileno(), 0)  # no event but the hang-up, which is always told
    watched.poll()
    time.sleep(GRACE_S)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with what it has started
    os._exit(1)


def run_worker(serve_until_done: Callable[[], int]) -> None:
    """Serve, then end this process without the interpreter's shutdown.

    With native thread pools alive that can hang or crash; all is said and done by then.
    """
    code = 1
    # A broken pipe says that the coordinator is gone: there is no one left to work for.
    with contextlib.suppress(BrokenPipeError):
        code = serve_until_done()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
