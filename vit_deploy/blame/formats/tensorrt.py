"""A TensorRT engine is compiled as one piece: it holds no value but those it was built to give.

An engine with further outputs is another engine, built from another network: its fusions, and so its
errors, are its own. What it was built from can be looked into instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from vit_deploy.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vit_deploy.protocols import Artefact


def found_taps(artefact: Artefact) -> tuple[str, ...]:
    """See :func:`vit_deploy.blame.formats.found_taps`.

    Raises:
        RunFailed: always.
    """
    _refuse(artefact)


def tapped(artefact: Artefact, taps: Sequence[str], folder: Path) -> Artefact:  # noqa: ARG001 - as every format
    """See :func:`vit_deploy.blame.formats.tapped`.

    Raises:
        RunFailed: always.
    """
    _refuse(artefact)


def _refuse(artefact: Artefact) -> NoReturn:
    raise RunFailed(
        f"the format cannot be looked into: the engine {artefact.name} is compiled as one piece",
        expected="a format whose file is a graph of operators",
        next_command="look into the ONNX artefact that it was built from: vit-deploy verify --format onnx",
    )
