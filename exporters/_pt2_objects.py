"""Object files that were compiled before: the same source with the same command gives the same ones.

Two checkpoints of one architecture differ in weights alone, and those are not in the sources. Entries that are
damaged count as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

KEPT = 64
"""How many are kept, the latest used of all; each has one or two MB."""

_DIGEST = 32


class ObjectCache:
    """A folder of object files by what they were made from.

    Args:
        folder: where they lie; made when the first one is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, source: Path, *made_by: str) -> str:
        """The name of what is made from a source.

        Args:
            source: the file.
            made_by: what else decides: the command, without the paths of this run, and the compiler.
        """
        digest = hashlib.sha256(source.read_bytes())
        for text in made_by:
            digest.update(b"\0" + text.encode())
        return digest.hexdigest()

    def fetch(self, key: str, target: Path) -> bool:
        """Put an object file where the compiler would; whether there was one."""
        entry = self._folder / key
        try:
            kept = entry.read_bytes()
            if hashlib.sha256(kept[_DIGEST:]).digest() != kept[:_DIGEST]:
                return False
            os.utime(entry)
        except OSError:
            return False
        target.write_bytes(kept[_DIGEST:])
        return True

    def keep(self, key: str, made: Path) -> None:
        """Keep an object file; a cache that cannot be written is no error."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            content = made.read_bytes()
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                try:
                    file.write(hashlib.sha256(content).digest() + content)
                    Path(file.name).replace(self._folder / key)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        entries = sorted(self._folder.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in entries[KEPT:]:
            entry.unlink(missing_ok=True)
