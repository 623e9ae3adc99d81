"""The worker that holds an artefact open in a backend, so that a crash or a hang is its own.

    open    {backend, device, options, artefact} -> {facts}
    run     {inputs}                             -> {outputs}

``inputs`` and ``outputs`` say where the arrays stand in two files that both processes have open
(:mod:`vit_deploy.parity.array_file`). What fails is answered as ``{error}``, and the worker lives on. It
ends when its stdin is closed.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vit_deploy import registry
from vit_deploy.errors import RunFailed
from vit_deploy.facts import Device
from vit_deploy.parity.array_file import ArrayFile
from vit_deploy.parity.crossing import artefact_from, error_data
from vit_deploy.protocols import SessionOptions
from vit_deploy.worker_process import run_worker, serve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.protocols import Session


class Worker:
    """One session.

    Args:
        inputs: where the coordinator writes.
        outputs: where the worker writes.
    """

    def __init__(self, inputs: ArrayFile, outputs: ArrayFile) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._session: Session | None = None

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Do what one message asks.

        Raises:
            VitDeployError: when the artefact cannot be opened or run.
        """
        if message["command"] == "open":
            return self._open(message)
        return self._run(message)

    def _open(self, message: Mapping[str, Any]) -> dict[str, Any]:
        runtime = registry.runtime(message["backend"])
        options = SessionOptions(**message["options"])
        artefact = artefact_from(message["artefact"])
        self._session = runtime.open(artefact, Device.parse(message["device"]), options)
        return {"facts": asdict(self._session.facts)}

    def _run(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if self._session is None:
            raise RunFailed("the worker was told to run before it was told to open an artefact")
        outputs = self._session.run(self._inputs.read(message["inputs"]))
        return {"outputs": self._outputs.write(outputs)}


def _failure(error: Exception) -> dict[str, Any]:
    return {"error": error_data(error)}


def main(arguments: list[str] | None = None) -> None:
    """``python -m vit_deploy.parity.worker DESCRIPTOR INPUTS OUTPUTS``."""
    given = sys.argv[1:] if arguments is None else arguments
    answers, inputs, outputs = map(int, given)
    worker = Worker(ArrayFile(inputs), ArrayFile(outputs))
    run_worker(lambda: serve(answers, worker.answer, _failure, goes_on=True))


if __name__ == "__main__":
    main()
