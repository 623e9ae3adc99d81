"""Files that are on the disk, whole, before a manifest names them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from vit_deploy.bundle.folder import ARTEFACTS
from vit_deploy.bundle.manifest import MANIFEST_NAME, FileRecord
from vit_deploy.weights.hashes import sha256_of
from vit_deploy.weights.tensors import sync_file

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.bundle.manifest import Manifest


def record_of(folder: Path, name: str) -> FileRecord:
    """What the manifest says of a file, once its bytes are flushed to the disk."""
    path = folder / name
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return FileRecord(name=name, bytes=path.stat().st_size, sha256=sha256_of(path))


def is_whole(folder: Path, file: FileRecord) -> bool:
    """Whether a file is there with the size and hash that were recorded."""
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.bytes and sha256_of(path) == file.sha256


def sync_directory(directory: Path) -> None:
    """Flush the names in a folder to the disk, so that a rename outlives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(bundle: Path, folder: Path, name: str, files: list[FileRecord]) -> str:
    """Rename a staged folder to a name made of its content's hash, which no other content has.

    Args:
        bundle: the bundle's own folder.
        folder: the staged one, its files flushed already.
        name: of the artefact.
        files: what is in it.

    Returns:
        The new name, relative to the bundle; of what was there before, where it is the same and whole.
    """
    content = hashlib.sha256("".join(f"{file.name}{file.sha256}" for file in files).encode())
    (bundle / ARTEFACTS).mkdir(exist_ok=True)
    directory = f"{ARTEFACTS}/{name}-{content.hexdigest()[:12]}"
    damaged = 0
    while (bundle / directory).exists():
        if all(is_whole(bundle / directory, file) for file in files):
            return directory
        damaged += 1
        directory = f"{ARTEFACTS}/{name}-{content.hexdigest()[:12]}-{damaged}"
    sync_directory(folder)
    folder.rename(bundle / directory)
    sync_directory(bundle / ARTEFACTS)
    return directory


def replace_manifest(bundle: Path, staging: Path, manifest: Manifest) -> None:
    """Make ``manifest`` the bundle's: a reader sees the old one or this one, whole.

    Args:
        bundle: the bundle's own folder, locked by the caller.
        staging: a folder inside it.
        manifest: what it says from now on; every file that it names is flushed already.
    """
    staged = staging / MANIFEST_NAME
    with staged.open("wb") as file:
        file.write(manifest.to_json().encode())
        sync_file(file)
    staged.replace(bundle / MANIFEST_NAME)
    sync_directory(bundle)
