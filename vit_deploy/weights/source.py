"""``Source``: where a model came from, its checkpoint's hash computed only when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class _Later:
    """A text, or what gives it: then it is asked for once, when it is first looked at.

    A descriptor as the default of a dataclass's field
    (https://docs.python.org/3/library/dataclasses.html#descriptor-typed-fields).
    """

    def __get__(self, instance: Source | None, owner: type) -> str:
        if instance is None:
            raise AttributeError("the field has no default")
        value: str | Callable[[], str] = instance.__dict__["_sha256"]
        if not isinstance(value, str):
            value = instance.__dict__["_sha256"] = value()
        return value

    def __set__(self, instance: Source, value: str | Callable[[], str]) -> None:
        instance.__dict__["_sha256"] = value


@dataclass(frozen=True)
class Source:
    """Where a model came from.

    Attributes:
        kind: ``native``, ``timm``, ``transformers`` or ``random``.
        name: what its owner calls it: an architecture or a hub name, never a path.
        sha256: hash of the checkpoint file, or what computes it when it is first asked for (hashing
            takes longer than all else of an import); of the seed's name for random weights.
    """

    kind: str
    name: str
    sha256: _Later = _Later()
