"""The plain data of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Word = Literal["ok", "warn", "bad"]
"""``ok``; ``warn``: works, but less well or less far than it could; ``bad``: the set-up is broken."""


@dataclass(frozen=True)
class Finding:
    """What one check found: a fact, a verdict, and what mends it where that is needed."""

    fact: str
    verdict: Word
    mend: str = ""

    @classmethod
    def ok(cls, fact: str) -> Finding:
        """As it should be."""
        return cls(fact, "ok")

    @classmethod
    def warn(cls, fact: str, mend: str) -> Finding:
        """It works, but less well or less far than it could."""
        return cls(fact, "warn", mend)

    @classmethod
    def bad(cls, fact: str, mend: str) -> Finding:
        """Broken."""
        return cls(fact, "bad", mend)


@dataclass(frozen=True)
class Check:
    """A finding under the name of its check: one line of ``vit-deploy doctor``."""

    name: str
    fact: str
    verdict: Word
    mend: str
