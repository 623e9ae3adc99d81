"""The coordinator's end of compiling: hands the program over, waits, and tells what went wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ExportFailed, OutputFailed
from vit_deploy.worker_process import WorkerFailed, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.protocols import Progress

WORKER_MODULE = "vit_deploy.exporters._pt2_worker"
TIMEOUT_S = 3600.0
"""How long a compile may take; a ViT-B/16 takes half a minute."""
POLL_S = 0.1
OLDEST_GCC = 10
"""The first g++ that has C++20 as PyTorch's headers want it."""


def cancelled() -> ExportFailed:
    """The error of an export that was cancelled."""
    return ExportFailed("the compilation was cancelled", next_command="run the same command again")


def save_program(program: Any, path: Path) -> None:
    """Write the captured program for the process that compiles it.

    Raises:
        OutputFailed: when there is no room.
        ExportFailed: when it holds what cannot be written, such as an operator of the user's own.
    """
    import torch

    from vit_deploy.graph.capture import quiet

    try:
        with quiet():
            torch.export.save(program, path)
    except OSError as error:
        raise _full(str(error)) from error
    except Exception as error:  # whatever the serialiser stumbles on
        if "PytorchStreamWriter" in str(error):
            raise _full(str(error)) from error
        raise ExportFailed(
            f"the captured model cannot be handed to the compiler: {type(error).__name__}: {error}",
            expected="a model of PyTorch's own operators",
            next_command="vit-deploy export --format onnx, or --debug for the whole report",
        ) from error


def _full(reason: str) -> OutputFailed:
    return OutputFailed(
        f"the package cannot be written: {reason.splitlines()[0]}",
        expected="room for three times the weights in the cache folder, and for them once in the bundle",
        next_command="free some space, or export VIT_DEPLOY_CACHE=FOLDER, and choose another folder with -o",
    )


def compile_program(
    folder: Path, package: Path, message: dict[str, Any], progress: Progress, packed_for: str = ""
) -> dict[str, Any]:
    """Have the worker compile; gives what it tells of what it built.

    Args:
        folder: holds ``program.pt2``, as :func:`save_program` wrote it.
        package: the file to write; it is not there where this fails.
        message: what to compile for.
        progress: asked whether the user wants to stop.
        packed_for: see :class:`vit_deploy.pt2_target.Level`.

    Raises:
        ExportFailed: when AOTInductor or the C++ compiler refuses it, the worker dies, or it is cancelled.
        OutputFailed: when there is no room.
    """
    variables = {"TMPDIR": str(folder), "PYTHONHASHSEED": "0"}
    variables |= {"ONEDNN_MAX_CPU_ISA": packed_for} if packed_for else {}
    try:
        answer = _asked(folder, package, message, progress, variables)
    except BaseException:
        package.unlink(missing_ok=True)
        raise
    if "error" in answer:
        package.unlink(missing_ok=True)
        raise failure_of(answer)
    if answer.pop("proxied"):
        package.unlink(missing_ok=True)
        raise ExportFailed(
            "the model has an operator that compiled code cannot call without PyTorch's dispatcher",
            expected="operators that AOTInductor compiles, or has a C function of",
            next_command="vit-deploy export --format onnx",
        )
    return answer


def _asked(
    folder: Path, package: Path, message: dict[str, Any], progress: Progress, variables: dict[str, str]
) -> dict[str, Any]:
    paths = {"program": str(folder / "program.pt2"), "package": str(package)}
    with (
        WorkerProcess(WORKER_MODULE, [str(folder)], threads=None, variables=variables) as worker,
        ThreadPoolExecutor(1) as waiting,
    ):
        asked = waiting.submit(worker.ask, "compile", TIMEOUT_S, **paths, **message)
        try:
            while True:
                try:
                    return asked.result(timeout=POLL_S)
                except NotYet:
                    if progress.cancelled:
                        raise cancelled() from None
        except WorkerFailed as failure:
            raise ExportFailed(
                f"the compilation came to no end: {failure}",
                expected="memory for five times the weights",
                next_command="vit-deploy doctor, or --format onnx",
            ) from failure
        except BaseException:
            worker.kill()  # so that the thread that waits for it comes back
            raise


def failure_of(answer: dict[str, Any]) -> OutputFailed | ExportFailed:
    """What the worker tells, as an error."""
    text = answer["text"]
    if "No space left" in text or "PytorchStreamWriter" in text:
        return _full(answer["error"])
    if answer["compiler"]:
        return ExportFailed(
            f"the C++ compiler refuses PyTorch's code: {answer['compiler'][0]}",
            expected=f"g++ {OLDEST_GCC} or later with its headers and OpenMP",
            next_command="apt-get install g++, or export CXX=COMPILER with another one",
        )
    return ExportFailed(
        f"AOTInductor does not compile the model: {answer['error']}",
        expected="a model that torch.compile takes",
        next_command="vit-deploy export --format onnx, or --debug for the whole report",
    )
