"""What is found out about an artefact's errors from the inside, as plain frozen data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

StageKind = Literal["model", "export", "pass", "runtime", "precision"]
"""Whose fault an error is, in the order in which an artefact comes about."""


@dataclass(frozen=True)
class StageReading:
    """One stage between eager PyTorch and the artefact, on the inputs that the artefact fails on.

    Attributes:
        kind: whose fault an error that first shows here is.
        name: of the stage, among those of its kind: a pass's name, ``optimisations off``.
        worst_ratio: as in the criterion; ``None`` where the stage gave nothing to compare.
        holds: whether the ratio is within the limit that the artefact broke; ``None`` where the stage
            could not be run, and ``note`` says why.
        note: what a person should know of it.
    """

    kind: StageKind
    name: str
    worst_ratio: float | None
    holds: bool | None
    note: str = ""


@dataclass(frozen=True)
class TapReading:
    """How far an artefact is from the truth at one tap.

    Attributes:
        tap: ``embed``, ``blocks.<i>.attn``, ``blocks.<i>.mlp`` or an output's name; see
            :mod:`vit_deploy.blame.taps`.
        error: the largest relative error of a token, of those samples that were read.
        eager_error: that of eager PyTorch at the declared precision.
        ratio: the largest error over its yardstick, as in the criterion.
        holds: whether the ratio is within its limit.
    """

    tap: str
    error: float
    eager_error: float
    ratio: float
    holds: bool


@dataclass(frozen=True)
class Drift:
    """The error of one artefact from tap to tap, in the order of computation.

    Attributes:
        artefact: its name.
        readings: at each tap.
        disturbed: how the artefact's own outputs changed because taps were put in; empty where they did
            not, to the last bit.
        missing: why there are no readings, where there are none.
    """

    artefact: str
    readings: tuple[TapReading, ...] = ()
    disturbed: str = ""
    missing: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Culprit:
    """What makes an artefact fail.

    Attributes:
        stage: where between eager PyTorch and the artefact the error came in; ``None`` if it is not known.
        where: the first tap that diverges; empty if it is not known.
        sentence: both, for a person.
        stages: what was read at each stage that was run, in order.
        bisection: what was read at each tap that was tried, in the order of the search.
        runs: how many extra runs of the artefact the search took.
        notes: what else a person should know.
    """

    stage: StageKind | None
    where: str
    sentence: str
    stages: tuple[StageReading, ...] = ()
    bisection: tuple[TapReading, ...] = ()
    runs: int = 0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)
