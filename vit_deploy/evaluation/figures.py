"""What is counted of the answers of an artefact: shares, the drop from the reference, and what changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.evaluation.contest import NO_ANSWER, TOP
from vit_deploy.evaluation.paired import Drop, Share

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Change:
    """A picture that is answered otherwise than by the reference.

    Attributes:
        file: its name in the data.
        label: the class it shows.
        reference: the reference's answer.
        answer: the artefact's; ``None`` where its logits were not finite.
    """

    file: str
    label: int
    reference: int | None
    answer: int | None

    @property
    def weight(self) -> int:
        """Right before comes first, then right now, then wrong both times."""
        return 0 if self.reference == self.label else 1 if self.answer == self.label else 2


@dataclass(frozen=True)
class Figures:
    """What an artefact's answers come to.

    Attributes:
        top1: answered right.
        top5: right among the best five; ``None`` for a model of five classes or fewer.
        broken: pictures whose logits held NaN or Inf, which count as wrong.
        drop: from the reference, on the same pictures.
        changes: pictures that are answered otherwise, those that were lost first.
        by_class: of each class in the data, how many are answered right.
    """

    top1: Share
    top5: Share | None
    broken: int
    drop: Drop
    changes: tuple[Change, ...]
    by_class: dict[int, tuple[int, int]]

    @property
    def agreement(self) -> float:
        """The share of pictures that are answered as by the reference."""
        return 1 - len(self.changes) / self.top1.of

    def confusions(self) -> list[tuple[tuple[int | None, int | None], int]]:
        """From which answer to which, and how often, the most frequent first."""
        counted = Counter((change.reference, change.answer) for change in self.changes)
        return sorted(counted.items(), key=lambda entry: (-entry[1], str(entry[0])))


def figures_of(
    answers: Array, reference: Array, labels: Array, files: Sequence[str], num_classes: int
) -> Figures:
    """Count the answers of an artefact.

    Args:
        answers: its best classes, ``(pictures, k)``, int.
        reference: those of what it is compared with, of the same shape.
        labels: ``(pictures,)``, what the pictures show.
        files: their names.
        num_classes: of the model.
    """
    right, was_right = answers[:, 0] == labels, reference[:, 0] == labels
    count = len(labels)
    top5 = (answers[:, :TOP] == labels[:, None]).any(axis=1)
    return Figures(
        Share.counted(int(right.sum()), count),
        Share.counted(int(top5.sum()), count) if num_classes > TOP else None,
        int((answers[:, 0] == NO_ANSWER).sum()),
        Drop(int((was_right & ~right).sum()), int((right & ~was_right).sum()), count),
        _changes(answers[:, 0], reference[:, 0], labels, files),
        _by_class(right, labels),
    )


def _changes(answers: Array, reference: Array, labels: Array, files: Sequence[str]) -> tuple[Change, ...]:
    places = (answers != reference).nonzero()[0]
    changes = [
        Change(files[place], int(labels[place]), _class(reference[place]), _class(answers[place]))
        for place in places.tolist()
    ]
    return tuple(sorted(changes, key=lambda change: change.weight))


def _class(answer: Any) -> int | None:
    return None if answer == NO_ANSWER else int(answer)


def _by_class(right: Array, labels: Array) -> dict[int, tuple[int, int]]:
    classes = sorted({int(label) for label in labels.tolist()})
    return {index: (int(right[labels == index].sum()), int((labels == index).sum())) for index in classes}
