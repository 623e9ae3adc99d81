"""What is put to the checker: a fault, or an honest artefact, and what making it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.parity.subjects import Subject
    from benchmarks.parity.workbench import Workbench
    from vit_deploy.blame.record import StageKind
    from vit_deploy.protocols import Artefact, Runtime

Kind = Literal["model", "weights", "graph", "preprocessing", "runtime"]
"""Where a fault is injected."""


@dataclass(frozen=True)
class Case:
    """An artefact, ready to be judged.

    Attributes:
        subject: the model that it is said to be made from.
        artefact: what is judged.
        runtime: runs it; the registry's own where it is ``None``.
    """

    subject: Subject
    artefact: Artefact
    runtime: Runtime | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that an export can get wrong.

    Attributes:
        name: in the words of the table; unique.
        kind: where it is injected.
        family: the subject that it is injected into, by its name in :mod:`benchmarks.parity.subjects`.
        stage: whose fault the report should say it is.
        where: the tap at which it should say that it comes in; empty where it has none.
        make: makes the faulty artefact.
        missed: why the checker cannot see it, where that is known.
    """

    name: str
    kind: Kind
    family: str
    stage: StageKind
    where: str
    make: Callable[[Workbench], Case]
    missed: str = ""


@dataclass(frozen=True)
class Honest:
    """One artefact without a fault.

    Attributes:
        name: unique.
        family: the subject that it is made from, or the specimen.
        make: makes it.
        needs: a package that it takes; left out, and said so, where that is missing.
    """

    name: str
    family: str
    make: Callable[[Workbench], Case]
    needs: str = ""
