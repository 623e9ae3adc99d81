"""The stages between eager PyTorch and an artefact, one file for each format.

A file bears the name of its format and defines ``climb``, which tries the rungs in order and gives the first
that does not hold, or nothing. A format without a file gets
:func:`vit_deploy.blame.stages.generic_ladder`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from vit_deploy.blame.stages import generic_ladder

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.blame.stages import Fall, Walk


def ladder_of(format: str) -> Callable[[Walk], Fall | None]:
    """The ladder of a format."""
    if format not in {entry.name for entry in pkgutil.iter_modules(__path__)}:
        return generic_ladder
    climb: Callable[[Walk], Fall | None] = importlib.import_module(f"{__name__}.{format}").climb
    return climb
