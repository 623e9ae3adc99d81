"""Accuracy of the artefacts of a bundle on labelled pictures, each beside eager fp32 on the same ones."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vit_deploy.deploy.entrants import Row, Wanted, entrants_of, num_classes_of, reference_of
from vit_deploy.errors import HostileInput, UsageFailed, VitDeployError
from vit_deploy.evaluation.classes import match_classes
from vit_deploy.evaluation.contest import hold
from vit_deploy.evaluation.decoding import decoded
from vit_deploy.evaluation.figures import figures_of
from vit_deploy.evaluation.pictures import find_labelled, several
from vit_deploy.parity.isolated import open_isolated
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vit_deploy.bundle import Bundle
    from vit_deploy.evaluation.classes import ClassMapping
    from vit_deploy.evaluation.contest import Contestant, Opener
    from vit_deploy.evaluation.decoding import Ready
    from vit_deploy.evaluation.pictures import Found, Labelled
    from vit_deploy.protocols import Progress


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        found: the data.
        used: the pictures that were used, the unreadable ones among them.
        mapping: which class each name means.
        unreadable: pictures that were left out, and why.
        rows: the first is eager fp32.
        labels: of the model's classes, or none.
    """

    found: Found
    used: tuple[Labelled, ...]
    mapping: ClassMapping
    unreadable: tuple[tuple[Labelled, VitDeployError], ...]
    rows: tuple[Row, ...]
    labels: tuple[str, ...] = ()

    @property
    def reference(self) -> Row:
        """Eager fp32."""
        return self.rows[0]

    def label(self, index: int | None) -> str:
        """What a class is called; ``nothing`` for logits that were not finite."""
        if index is None:
            return "nothing"
        return self.labels[index] if self.labels else str(index)


@dataclass
class _Course:
    """The pictures that could not be read, as they come."""

    pictures: Sequence[Labelled]
    strict: bool
    unreadable: list[tuple[Labelled, VitDeployError]] = field(default_factory=list)

    def leave_out(self, ready: Ready) -> None:
        if ready.error is None:
            return
        if self.strict:
            raise ready.error
        self.unreadable.append((self.pictures[ready.place], ready.error))

    @property
    def readable(self) -> list[Labelled]:
        left_out = {picture.name for picture, _ in self.unreadable}
        return [picture for picture in self.pictures if picture.name not in left_out]


def evaluate(
    bundle: Bundle,
    data: str | Path,
    wanted: Wanted | None = None,
    *,
    open_session: Opener | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """The accuracy of a bundle's artefacts on labelled pictures, beside that of eager fp32.

    Args:
        bundle: whose artefacts.
        data: as :func:`find_labelled` takes it.
        wanted: what is evaluated, and how.
        open_session: opens an artefact; in a process of its own unless given.
        progress: told how far it is.

    Raises:
        UsageFailed: for names that do not fit the bundle, or a model that classifies no pictures.
        BackendMissing: when a backend that was named, or every artefact, cannot be run here.
        HostileInput: when the data fits the model not at all, holds no readable picture, or, where
            ``strict`` asks for it, is not whole.
        ImportFailed: when there is no data.
        RunFailed: when eager PyTorch fails.
    """
    wanted, progress = wanted or Wanted(), progress or Silent()
    preprocessing = bundle.preprocessing
    if preprocessing is None:
        raise UsageFailed(
            "the bundle's model takes no picture, so nothing is known of its accuracy on pictures",
            expected="a model whose one input is (c, h, w)",
        )
    reference = reference_of(bundle, wanted)
    others, refused = entrants_of(bundle, wanted)
    entrants = [reference, *others]
    progress.phase("Looking for the pictures")
    found = find_labelled(data, outside=wanted.outside)
    if wanted.strict and found.empty:
        raise _empty(found)
    classes = num_classes_of(reference)
    mapping = match_classes(found.labels, bundle.labels, classes, wanted.classes)
    used = _spread(found.pictures, wanted.limit)
    course = _Course(used, wanted.strict)
    progress.phase("Evaluating pictures", len(used))
    contestants = hold(
        entrants,
        decoded(
            [picture.path for picture in used],
            preprocessing,
            bundle.config.in_channels,
            {entrant.artefact.spec.contract for entrant in entrants},
            ahead=2 * wanted.batch_size,
        ),
        batch_size=wanted.batch_size,
        threads=wanted.threads,
        open_session=open_session or functools.partial(open_isolated, timeout_s=wanted.timeout_s),
        unreadable=course.leave_out,
        progress=progress,
    )
    rows = _rows(contestants, course.readable, mapping, classes)
    return Evaluation(found, used, mapping, tuple(course.unreadable), (*rows, *refused), bundle.labels)


def _empty(found: Found) -> HostileInput:
    return HostileInput(
        f"{len(found.empty)} folders of the data hold no pictures: {several(found.empty)}",
        expected="pictures in every folder",
        next_command="leave --strict out, and they are passed over",
    )


def _spread(pictures: tuple[Labelled, ...], limit: int | None) -> tuple[Labelled, ...]:
    """At most ``limit`` of the pictures, evenly spread, so that each class has its share."""
    if limit is None or len(pictures) <= limit:
        return pictures
    return tuple(pictures[place * len(pictures) // limit] for place in range(limit))


def _rows(
    contestants: Sequence[Contestant], readable: Sequence[Labelled], mapping: ClassMapping, classes: int
) -> list[Row]:
    import numpy as np

    if not readable:
        raise HostileInput("none of the pictures can be read", expected="pictures", next_command="--strict")
    labels = np.array([mapping.indices[picture.label] for picture in readable])
    names = [picture.name for picture in readable]
    reference = np.stack(contestants[0].answers)
    rows = []
    for contestant in contestants:
        entrant, figures = contestant.entrant, None
        if contestant.error is None:
            figures = figures_of(np.stack(contestant.answers), reference, labels, names, classes)
        artefact = entrant.artefact
        rows.append(
            Row(
                artefact.name,
                artefact.format,
                artefact.precision,
                entrant.runtime.name,
                str(entrant.device),
                figures,
                contestant.facts,
                contestant.error,
            )
        )
    return rows
