"""What a proof of import found, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Proof:
    """Our eager model beside the source library's own, both in float64.

    Attributes:
        library: the source library's name.
        library_version: what was installed of it.
        checkpoint_sha256: the hash of the checkpoint, as its import gave it.
        code_version: vit-deploy's own version.
        torch_version: that of the PyTorch under both.
        images: how many pictures were compared.
        limit: the largest relative error that is allowed.
        errors: for each stage, in the order of computation, the largest relative error (in Euclidean
            length) over the pictures; infinite where shapes differ or numbers are not finite.
        not_compared: outputs of ours that the library does not compute.
        reason: what else there is to say of a stage that differs.
    """

    library: str
    library_version: str
    checkpoint_sha256: str
    code_version: str
    torch_version: str
    images: int
    limit: float
    errors: Mapping[str, float]
    not_compared: tuple[str, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        # A manifest has its keys in the order of the alphabet.
        in_order = sorted(self.errors.items(), key=lambda entry: _place(entry[0]))
        object.__setattr__(self, "errors", MappingProxyType(dict(in_order)))
        object.__setattr__(self, "not_compared", tuple(self.not_compared))

    @property
    def passed(self) -> bool:
        """Whether every stage holds the limit; without a stage nothing is proved."""
        return bool(self.errors) and self.first_difference is None

    @property
    def worst(self) -> float:
        """The largest error of any stage."""
        return max(self.errors.values(), default=math.inf)

    @property
    def first_difference(self) -> str | None:
        """The first stage that does not hold the limit."""
        return next((name for name, error in self.errors.items() if not error <= self.limit), None)

    @property
    def sentence(self) -> str:
        """What was found: ``blocks.3 differs first: 2.1e-03; embed and blocks.0–2 agree to 3.0e-15``."""
        first = self.first_difference
        if first is None:
            return f"every stage agrees with {self.library} {self.library_version} {_to(self.worst)}"
        names = list(self.errors)
        before = names[: names.index(first)]
        told = f"{first} differs first: {self.errors[first]:.1e}"
        if before:
            agreed = max(self.errors[name] for name in before)
            told += f"; {_span(before)} agree{'s' if len(before) == 1 else ''} {_to(agreed)}"
        return f"{told}; {self.reason}" if self.reason else told

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: errors to two digits, since more are noise; ``null`` where infinite."""
        data = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        rounded = {name: float(f"{error:.1e}") for name, error in self.errors.items()}
        finite = {name: error if math.isfinite(error) else None for name, error in rounded.items()}
        return {**data, "errors": finite, "not_compared": list(self.not_compared), "passed": self.passed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Proof:
        """The inverse of :meth:`to_dict`. Whether it passed is judged again, from the errors."""
        known = {entry.name for entry in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        errors = {name: math.inf if error is None else error for name, error in data["errors"].items()}
        return cls(**{**values, "errors": errors})


_LAST = ("tokens", "embedding", "logits", "image_embeds")


def _place(stage: str) -> tuple[int, int, str]:
    """Where a stage stands in the computation: ``embed``, the blocks by number, the outputs."""
    kind, _, number = stage.partition(".")
    if kind == "blocks" and number.isdigit():
        return 1, int(number), ""
    return (2, _LAST.index(stage), "") if stage in _LAST else (0, 0, stage)


def _to(error: float) -> str:
    return f"to {error:.1e}" if error else "to the last bit"


def _span(names: Sequence[str]) -> str:
    """``embed and blocks.0–blocks.2``: the stages before the first that differs."""
    outer = [name for name in names if not name.startswith("blocks.")]
    blocks = [name for name in names if name.startswith("blocks.")]
    if len(blocks) > 1:
        blocks = [f"{blocks[0]}–{blocks[-1].removeprefix('blocks.')}"]
    words = [*outer[:1], *blocks, *outer[1:]]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
