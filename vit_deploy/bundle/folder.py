"""What lies where in a bundle's folder, and which of it is ours to remove."""

from __future__ import annotations

import contextlib
import re
import shutil
from typing import TYPE_CHECKING

from vit_deploy.bundle.manifest import MANIFEST_NAME
from vit_deploy.errors import UsageFailed
from vit_deploy.spec import CONTRACTS

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.bundle.manifest import Manifest

STAGING = ".staging"
LOCK_NAME = ".lock"
ARTEFACTS = "artefacts"

# Only what bears a name that the editor gives is ever removed.
_WEIGHTS_NAME = re.compile(r"weights-[0-9a-f]{12}\.safetensors")
_ARTEFACT_NAME = re.compile(rf"[a-z0-9_]+-(fp32|fp16|bf16)(-({'|'.join(CONTRACTS)}))?-[0-9a-f]{{12}}(-[0-9]+)?")


def refuse_foreign(directory: Path) -> None:
    """A folder with something else in it is no place for a bundle."""
    if directory.exists() and not directory.is_dir():
        raise UsageFailed(f"{str(directory)!r} is a file", expected="a folder for the bundle")
    if not directory.is_dir() or (directory / MANIFEST_NAME).exists():
        return
    ours = {STAGING, LOCK_NAME, ARTEFACTS}
    entries = (entry.name for entry in directory.iterdir())
    foreign = [name for name in entries if name not in ours and not _WEIGHTS_NAME.fullmatch(name)]
    home = directory / ARTEFACTS
    inside = (entry.name for entry in home.iterdir()) if home.is_dir() else ()
    foreign += [f"{ARTEFACTS}/{name}" for name in inside if not _ARTEFACT_NAME.fullmatch(name)]
    if foreign:
        raise UsageFailed(
            f"{str(directory)!r} is no bundle and is not empty: it holds {sorted(foreign)[0]!r}",
            expected="an empty or new folder, or a bundle",
            next_command="choose another --output",
        )


def clear_unnamed(path: Path, manifest: Manifest | None) -> None:
    """Remove what the manifest does not name."""
    kept = {record.directory for record in manifest.artefacts.values()} if manifest else set()
    home = path / ARTEFACTS
    for folder in home.iterdir() if home.is_dir() else ():
        if _ARTEFACT_NAME.fullmatch(folder.name) and f"{ARTEFACTS}/{folder.name}" not in kept:
            shutil.rmtree(folder, ignore_errors=True)
    remove_if_empty(home)
    weights = manifest.model.weights.name if manifest else ""
    for stray in path.glob("weights-*.safetensors"):
        if _WEIGHTS_NAME.fullmatch(stray.name) and stray.name != weights:
            stray.unlink(missing_ok=True)


def remove_if_empty(directory: Path) -> None:
    """Remove a folder, unless something is in it or it cannot be removed."""
    with contextlib.suppress(OSError):
        directory.rmdir()
