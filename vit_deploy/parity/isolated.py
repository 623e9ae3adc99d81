"""A session whose backend lives in a process of its own: what crashes or hangs there is told here.

A backend is native code that was given somebody's graph. Where it dies by a signal, takes all memory or
never comes back, this process must live to say so.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vit_deploy import registry
from vit_deploy.errors import BackendDied, UsageFailed
from vit_deploy.facts import RuntimeFacts
from vit_deploy.parity.array_file import ArrayFile
from vit_deploy.parity.crossing import artefact_data, error_from
from vit_deploy.protocols import BaseSession
from vit_deploy.worker_process import WorkerFailed, WorkerProcess

if TYPE_CHECKING:
    from vit_deploy.facts import Device
    from vit_deploy.protocols import Arrays, Artefact, Runtime, SessionOptions, Step

WORKER_MODULE = "vit_deploy.parity.worker"


def open_isolated(
    runtime: Runtime, artefact: Artefact, device: Device, options: SessionOptions, *, timeout_s: float
) -> IsolatedSession:
    """Open an artefact as ``runtime.open`` does, in a worker process.

    Args:
        runtime: one of the registry: the worker finds it there by its name.
        artefact: what is opened.
        device: where.
        options: ``threads`` is told to every library of the worker; ``None`` means all usable cores,
            unless the user's environment (``OMP_NUM_THREADS``) says otherwise.
        timeout_s: how long opening, and each run, may take.

    Raises:
        UsageFailed: for a runtime that is not the registry's.
        BackendDied: when the worker dies, or does not answer in time.
        VitDeployError: whatever ``runtime.open`` raises there.
    """
    _require_known(runtime)
    session = IsolatedSession(artefact, options.threads, timeout_s)
    try:
        session.open(runtime, device, options)
    except BaseException:
        session.close()
        raise
    return session


def _require_known(runtime: Runtime) -> None:
    known = runtime.name in registry.backends() and type(registry.runtime(runtime.name)) is type(runtime)
    if not known:
        raise UsageFailed(
            f"the runtime {runtime.name!r} cannot be opened in another process: the registry does not hold it",
            expected=f"one of {', '.join(registry.backends())}",
            next_command="open it in this process: ParityCheck without open_session",
        )


class IsolatedSession(BaseSession):
    """An artefact that a worker holds open; made by :func:`open_isolated`.

    Attributes:
        facts: what the backend says of itself, from the worker.
    """

    facts: RuntimeFacts

    def __init__(self, artefact: Artefact, threads: int | None, timeout_s: float) -> None:
        super().__init__(artefact)
        self._timeout_s = timeout_s
        self._lost = ""
        self._inputs, self._outputs = ArrayFile(), ArrayFile()
        files = (self._inputs.descriptor, self._outputs.descriptor)
        try:
            self._worker = WorkerProcess(
                WORKER_MODULE, [str(file) for file in files], threads=threads, descriptors=files
            )
        except BaseException:
            self._close_files()
            raise

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._worker.pid

    def open(self, runtime: Runtime, device: Device, options: SessionOptions) -> None:
        """Have the worker open the artefact; see :func:`open_isolated`."""
        answer = self._ask(
            "open",
            f"{self.artefact.name} was opened in {runtime.name}",
            backend=runtime.name,
            device=str(device),
            options=asdict(options),
            artefact=artefact_data(self.artefact),
        )
        self.facts = RuntimeFacts(**answer["facts"])

    def _run(self, inputs: Arrays) -> Arrays:
        if self._lost:
            raise BackendDied(
                f"nothing can be run any more: {self._lost}", next_command="open the artefact again"
            )
        shapes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in inputs.items())
        doing = f"{self.artefact.name} ran on {shapes}"
        answer = self._ask("run", doing, inputs=self._inputs.write(inputs))
        return self._outputs.read(answer["outputs"])

    def _ask(self, command: str, doing: str, **arguments: Any) -> dict[str, Any]:
        """Ask the worker; after a failure of the worker itself it is dead.

        Raises:
            BackendDied: when it dies, or does not answer in time.
            VitDeployError: what the backend raised.
        """
        try:
            answer = self._worker.ask(command, self._timeout_s, **arguments)
        except WorkerFailed as failure:
            self._lost = f"while {doing}, {failure}"
            self._worker.kill()
            mend = "give it longer with --timeout" if failure.hung else "vit-deploy doctor"
            raise BackendDied(self._lost, expected="an answer", next_command=mend) from failure
        except BaseException:
            # Interrupted: the answer that is still to come would be taken for another question's.
            self._lost = f"while {doing}, it was interrupted"
            self._worker.kill()
            raise
        if "error" in answer:
            raise error_from(answer["error"])
        return answer

    def stage(self, inputs: Arrays) -> Step:  # noqa: ARG002 - the protocol has it
        """Nothing is timed across two processes.

        Raises:
            UsageFailed: always.
        """
        raise UsageFailed(
            f"{self.artefact.name} is open in another process, and cannot be timed from here",
            expected="vit-deploy bench, whose workers time themselves",
            next_command="vit-deploy bench",
        )

    def close(self) -> None:
        """End the worker; a second time does nothing."""
        self._worker.close(at_once=True)
        self._close_files()

    def _close_files(self) -> None:
        self._inputs.close()
        self._outputs.close()
