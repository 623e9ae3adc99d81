"""A specimen: a tiny checkpoint of one family, made and saved by the library that people get it from.

``save(folder)`` gives the arguments of :func:`vit_deploy.load_model`. Nothing heavy is imported here.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Arguments = dict[str, Any]
    Saver = Callable[[Path, int], Arguments]


@dataclass(frozen=True)
class Specimen:
    """A checkpoint that must load, and be proved equal to the library that saved it.

    Attributes:
        family: in the field's words, such as ``DINOv2 with registers``.
        source: the library or the format that it comes from.
        name: the architecture or class there; unique within the source.
        write: makes and saves it in a folder, from a seed.
        plain: saves the same weights as the source library reads them by itself, for a checkpoint that
            only we read: a training script's nesting, a bundle.
    """

    family: str
    source: str
    name: str
    write: Saver
    plain: Saver | None = None

    @property
    def id(self) -> str:
        """Unique among all specimens."""
        return f"{self.source}/{self.name}"

    @property
    def seed(self) -> int:
        """Of its weights: its own, and the same on every machine."""
        return zlib.crc32(self.id.encode())

    def save(self, folder: Path) -> Arguments:
        """Write the checkpoint into ``folder``; gives the arguments of ``load_model``."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.write(folder, self.seed)

    def save_plain(self, folder: Path) -> Arguments:
        """Write into ``folder`` what the source library reads; gives the arguments of ``load_model``."""
        folder.mkdir(parents=True, exist_ok=True)
        return (self.plain or self.write)(folder, self.seed)


@dataclass(frozen=True)
class Stranger(Specimen):
    """A checkpoint that must be refused.

    Attributes:
        says: a regular expression that the message must match, whatever the case of its letters.
    """

    says: str = ""
