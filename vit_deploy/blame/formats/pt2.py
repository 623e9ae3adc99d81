"""A compiled package is one piece of machine code: it holds no value but those that it was compiled to give.

With further outputs the compiler would fuse otherwise, and its errors would be others. What it was compiled
from can be looked into instead, in another format.
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
        f"the format cannot be looked into: the package {artefact.name} is compiled as one piece",
        expected="a format whose file is a graph of operators",
        next_command="look into the same model as ONNX: vit-deploy export --format onnx, then verify",
    )
