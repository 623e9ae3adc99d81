"""Are two results of like environments? Times of two machines, or of two versions, are not a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import UsageFailed, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vit_deploy.bench.document import BenchReport

ALL = "all"
VERSIONS = "versions"


@dataclass(frozen=True)
class Difference:
    """One thing in which the environments differ.

    Attributes:
        name: as ``--allow-different`` names it.
        old: what it was.
        new: what it is.
        refused: whether it makes the results incomparable until it is allowed.
        kind: ``machine``, ``versions`` or ``told``.
    """

    name: str
    old: str
    new: str
    refused: bool
    kind: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old} → {self.new}"


_MACHINE: Mapping[str, Callable[[BenchReport], Any]] = {
    "cpu": lambda report: report.environment.get("cpu"),
    "cores": lambda report: report.environment.get("cores"),
    "gpus": lambda report: report.environment.get("gpus"),
    "system": lambda report: report.environment.get("system"),
    "threads": lambda report: sorted({row.threads for row in report.rows if row.device == "cpu"}),
}
"""What makes it another machine, or another share of one. The size of its memory does not."""


def differences(old: BenchReport, new: BenchReport) -> list[Difference]:
    """In what two environments differ, what refuses a comparison first.

    A backend's version is what it said of itself in its rows; only backends that both results hold count.
    ``threads`` differs where the results have no number of threads in common: their rows cannot meet.
    """
    found = []
    for name, read in _MACHINE.items():
        was, now = read(old), read(new)
        if name == "threads" and (set(was) & set(now) or not was or not now):
            continue
        if was != now:
            found.append(Difference(name, _words(was), _words(now), refused=True, kind="machine"))
    return found + _versions(old, new) + _packages(old, new)


def _versions(old: BenchReport, new: BenchReport) -> list[Difference]:
    """Python, whose patch releases are told only, and the backends that were measured in both."""
    found = []
    was, now = str(old.environment.get("python")), str(new.environment.get("python"))
    if was != now:
        refused = was.split(".")[:2] != now.split(".")[:2]
        found.append(Difference("python", was, now, refused, VERSIONS if refused else "told"))
    before, after = _backend_versions(old), _backend_versions(new)
    found += [
        Difference(name, _words(before[name]), _words(after[name]), refused=True, kind=VERSIONS)
        for name in before
        if name in after and before[name] != after[name]
    ]
    return found


def _backend_versions(report: BenchReport) -> dict[str, list[str]]:
    versions: dict[str, set[str]] = {}
    for row in report.rows:
        version = (row.facts or {}).get("version")
        if version:
            versions.setdefault(row.backend, set()).add(str(version))
    return {name: sorted(entries) for name, entries in versions.items()}


def _packages(old: BenchReport, new: BenchReport) -> list[Difference]:
    """Other packages: an exporter's version may explain a change, and forbids no comparison."""
    was, now = (_mapping(report.environment.get("packages")) for report in (old, new))
    return [
        Difference(name, _words(was.get(name)), _words(now.get(name)), refused=False, kind="told")
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]


def require_like(old: BenchReport, new: BenchReport, allowed: Iterable[str] = ()) -> list[Difference]:
    """Refuse to compare unlike environments.

    Args:
        old: the earlier result.
        new: the later one.
        allowed: names of differences that are meant; ``versions`` is Python and every backend, ``all`` is all.

    Returns:
        Every difference that there is, allowed ones included.

    Raises:
        UsageFailed: for a difference that was not allowed; for a name of none.
    """
    found = differences(old, new)
    words = list(dict.fromkeys(word.strip() for word in allowed if word.strip()))
    backends = {row.backend for report in (old, new) for row in report.rows}
    valid = [*_MACHINE, "python", *sorted(backends), VERSIONS, ALL]
    for word in words:
        if word not in valid:
            raise unknown_name("difference", word, valid)
    refused = [entry for entry in found if entry.refused and not {entry.name, entry.kind, ALL} & set(words)]
    if refused:
        raise _unlike(refused, words)
    return found


def _unlike(refused: Sequence[Difference], words: Sequence[str]) -> UsageFailed:
    names = ",".join(dict.fromkeys([*words, *(entry.name for entry in refused)]))
    machine = any(entry.kind == "machine" for entry in refused)
    lines = "".join(f"\n    {entry}" for entry in refused)
    return UsageFailed(
        f"the results were measured in unlike environments:{lines}",
        expected="the same machine and the same versions, so that a change is the artefact's",
        next_command=(
            ("measure both on one machine" if machine else "measure OLD again with these versions")
            + f"; or say that it is meant, with --allow-different {names}"
        ),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(value: Any) -> str:
    if value is None or value == []:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
