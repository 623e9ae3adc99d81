"""The pictures that ``export`` and ``verify`` verify with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.cli._output import note

if TYPE_CHECKING:
    from pathlib import Path


def chosen_pictures(directory: Path | None, limit: int) -> tuple[Path, ...]:
    """The pictures to verify with; that some are left out is told on stderr."""
    if directory is None:
        return ()
    from vit_deploy.parity.images import find_pictures, spread

    found = find_pictures(directory)
    used = spread(found, limit)
    if len(used) < len(found):
        note(f"using {len(used)} of the {len(found)} pictures in {str(directory)!r}; --max-images takes more")
    return used
