"""The SHA-256 of files, now or when it is asked for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from vit_deploy.errors import HostileInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def sha256_later(path: Path) -> Callable[[], str]:
    """What computes the SHA-256 of a file when it is called, if the file is then what it is now.

    Raises:
        HostileInput: (when called) if the file was changed or removed meanwhile.
    """
    before = path.stat()

    def compute() -> str:
        try:
            after = path.stat()
            digest = sha256_of(path)
        except OSError as error:
            raise _changed(path, error.strerror or str(error)) from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise _changed(path, "it was changed")
        return digest

    return compute


def _changed(path: Path, reason: str) -> HostileInput:
    return HostileInput(
        f"{str(path)!r} is no longer the checkpoint that was loaded: {reason}",
        expected="a file that nobody changes while it is in use",
        next_command="run the command again",
    )
