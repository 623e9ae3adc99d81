"""Files that are on the disk, whole, before a manifest names them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vit_deploy.bundle.manifest import FileRecord
from vit_deploy.weights.hashes import sha256_of

if TYPE_CHECKING:
    from pathlib import Path


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
