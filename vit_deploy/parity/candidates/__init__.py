"""Artefacts that others made, judged by the same rules as ours: ``verify MODEL --candidate FILE``.

A file here bears the name of a format and defines ``adopt``, which finds out what its inputs and outputs
are to the model, and gives an artefact in our words. What its maker called them is found by shape and by
the names the field uses; where that leaves a choice, the user makes it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed, UsageFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vit_deploy.parity.check import Opener
    from vit_deploy.protocols import Artefact
    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model

FORMATS = {
    ".onnx": "onnx",
    ".xml": "openvino",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".pth": "torchscript",
}
"""What a file's name says of its format."""


@dataclass(frozen=True)
class Asked:
    """What the user says of a candidate.

    Attributes:
        outputs: our names of the file's outputs, by its own names, where they cannot be guessed.
        precision: what it is declared as; what its weights are when ``None``.
        trust_code: whether a file that is code may be run.
        open_session: how a session is opened to see what the file gives; by the runtime, in this process,
            when ``None``.
    """

    outputs: Mapping[str, str]
    precision: Precision | None = None
    trust_code: bool = False
    open_session: Opener | None = None


@dataclass(frozen=True)
class Candidate:
    """A file of somebody else's as an artefact.

    Attributes:
        artefact: its inputs and outputs under our names.
        notes: what was taken for granted, and what is not judged.
    """

    artefact: Artefact
    notes: tuple[str, ...] = ()


def adopt(path: Path, model: Model, asked: Asked, folder: Path) -> Candidate:
    """Take in a file that somebody else exported.

    Args:
        path: an ``.onnx`` file, the ``.xml`` of an OpenVINO IR, or a TorchScript archive.
        model: what it was exported from, as its owner says.
        asked: what the user says of it.
        folder: an empty folder for what has to be written; it must outlive the artefact.

    Raises:
        ImportFailed: when there is no such file, or its name says of no format.
        HostileInput: when it cannot be read, or has no output that the model has.
        UsageFailed: when the user has to say which output is which, or that its code may be run.
        BackendMissing: when nothing here can run it.
    """
    if not path.is_file():
        raise ImportFailed(
            f"there is no file {str(path)!r}",
            expected="--candidate with an ONNX file, an OpenVINO IR or a TorchScript archive",
        )
    format = FORMATS.get(path.suffix.lower())
    if format is None:
        raise UsageFailed(
            f"the candidate {path.name!r} is of no format that can be judged",
            expected=f"a file whose name ends in {', '.join(FORMATS)}",
            next_command="vit-deploy formats",
        )
    found: Candidate = importlib.import_module(f"{__name__}.{format}").adopt(path, model, asked, folder)
    return found
