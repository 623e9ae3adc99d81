"""Which of the model's classes is meant by a name: of a folder, or in a table.

All names of a data set are read in one way, never one as a label and the next as a number. Which way that
was is told, since a silent mistake here looks like a model that is always wrong.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from vit_deploy.errors import HostileInput, nearest
from vit_deploy.evaluation.pictures import several

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Reader = Callable[[Sequence[str], Sequence[str], int], Mapping[str, int]]

IMAGENET_CLASSES = 1000
_LANDMARKS = {0: "tench", 1: "goldfish", 817: "sports car", 999: "toilet"}
"""What some of ImageNet's classes are called, to tell a model of it from another of 1000 classes."""


@dataclass(frozen=True)
class ClassMapping:
    """Names and the classes they mean.

    Attributes:
        how: the way they were read: a name of :data:`READERS`.
        indices: the class of each name.
        told: that, in words.
    """

    how: str
    indices: Mapping[str, int]
    told: str


def match_classes(
    names: Sequence[str], labels: Sequence[str], num_classes: int, how: str = "auto"
) -> ClassMapping:
    """The class of each name.

    Args:
        names: of the classes that the data has.
        labels: of the model's classes, or none.
        num_classes: how many classes the model has.
        how: a name of :data:`READERS`; ``auto`` takes the first of labels, indices and WordNet ids that
            knows every name.

    Raises:
        HostileInput: when some names mean none of the model's classes.
    """
    tried = AUTOMATIC if how == "auto" else (how,)
    found = {way: READERS[way](names, labels, num_classes) for way in tried}
    for way, indices in found.items():
        if len(indices) == len(names):
            return ClassMapping(way, indices, f"{len(names)} classes, read as {_WORDS[way]}")
    best = max(found, key=lambda way: len(found[way]))
    raise _unknown([name for name in names if name not in found[best]], len(names), labels, num_classes, tried)


def _by_label(names: Sequence[str], labels: Sequence[str], _: int) -> dict[str, int]:
    """By the label as it stands; by it in other letters; by one of its synonyms, where it is only one's."""
    exact = _unique([(_normal(label), index) for index, label in enumerate(labels)])
    folded = _unique([(_folded(label), index) for index, label in enumerate(labels)])
    synonyms = _unique(
        [(_folded(word), index) for index, label in enumerate(labels) for word in {*label.split(",")}]
    )
    found = {}
    for name in names:
        ways = (exact.get(_normal(name)), folded.get(_folded(name)), synonyms.get(_folded(name)))
        index = next((way for way in ways if way is not None), None)
        if index is not None:
            found[name] = index
    return found


def _normal(text: str) -> str:
    """Composed letters: macOS writes file names with their accents apart."""
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    """Without case, with one space where there are underscores or spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace("_", " ").split())


def _unique(pairs: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Those names that mean one class only."""
    meant: dict[str, set[int]] = {}
    for name, index in pairs:
        meant.setdefault(name, set()).add(index)
    return {name: indices.pop() for name, indices in meant.items() if len(indices) == 1}


def _by_index(names: Sequence[str], _: Sequence[str], num_classes: int) -> dict[str, int]:
    numbers = {name: int(name) for name in names if re.fullmatch("[0-9]{1,7}", name)}
    return {name: number for name, number in numbers.items() if number < num_classes}


def _by_wordnet(names: Sequence[str], labels: Sequence[str], num_classes: int) -> dict[str, int]:
    """By the id of a synset, for a model of ImageNet's 1000 classes in their usual order."""
    if num_classes != IMAGENET_CLASSES:
        return {}
    if labels and any(word not in labels[index].casefold() for index, word in _LANDMARKS.items()):
        return {}
    known = {synset: index for index, synset in enumerate(imagenet_synsets())}
    return {name: known[name] for name in names if name in known}


def imagenet_synsets() -> list[str]:
    """The WordNet ids of ImageNet-1k's classes (ILSVRC 2012), in order, which is that of the classes.

    Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575.
    """
    text = (files("vit_deploy.assets") / "imagenet" / "synsets.txt").read_text(encoding="ascii")
    return text.split()


def _by_order(names: Sequence[str], _: Sequence[str], num_classes: int) -> dict[str, int]:
    """As torchvision's ImageFolder numbers folders; only where there is one for each class."""
    return {name: place for place, name in enumerate(sorted(names))} if len(names) == num_classes else {}


READERS: dict[str, Reader] = {
    "labels": _by_label,
    "indices": _by_index,
    "wordnet": _by_wordnet,
    "sorted": _by_order,
}
"""The ways in which names are read."""

AUTOMATIC = ("labels", "indices", "wordnet")
"""Those that are tried unasked; the order of names is anybody's."""

_WORDS = {
    "labels": "the model's labels",
    "indices": "indices of the model's classes",
    "wordnet": "WordNet ids of ImageNet's classes",
    "sorted": "the model's classes in order of name",
}


def _unknown(
    unknown: Sequence[str], of: int, labels: Sequence[str], num_classes: int, tried: Sequence[str]
) -> HostileInput:
    ways = " or ".join(_WORDS[way] for way in tried)
    have = f"{several(labels)}" if labels else "it has no labels"
    close = nearest(unknown[0], labels, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return HostileInput(
        f"{len(unknown)} of the data's {of} classes are none of the model's: {several(unknown)}{hint}",
        expected=f"{ways}; the model has {num_classes} classes: {have}",
        next_command="rename the folders; or --classes sorted, where their order of name is the classes' order",
    )
