"""What ratios stand against: the baseline that the user has named, or the one that suggests itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy import registry
from vit_deploy.errors import UsageFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.measured import Measured


def check_baseline(name: str, cases: Iterable[Case]) -> None:
    """Refuse a baseline that is not among the cases, before minutes are spent on them.

    Raises:
        UsageFailed: with the names that would do.
    """
    rows = [case for case in cases if case.role == "case"]
    if not name or any(_is_named(case, name) for case in rows):
        return
    known = dict.fromkeys(f"{case.artefact}:{case.backend}" for case in rows)
    backends = dict.fromkeys(case.backend for case in rows)
    raise UsageFailed(
        f"nothing that is measured is called {name!r}",
        expected=f"--baseline with one of: {', '.join([*backends, *known])}",
        next_command=f"vit-deploy bench --baseline {next(iter(backends), 'eager')}",
    )


def find_baseline(measured: Measured, everyone: Sequence[Measured], name: str = "") -> Measured | None:
    """What a case is compared with, among its peers.

    Args:
        measured: the case.
        everyone: all that were measured.
        name: what the user asked for; eager, else the first that holds, where it is empty.

    Returns:
        Where several have the name, the one with the case's own threads and streams. ``None`` where there
        is none, or the one that was named has failed.
    """
    case = measured.case
    peers = [other for other in everyone if other.case.peers == case.peers and other.case.role == "case"]
    holding = [other for other in peers if not other.error]
    named = [other for other in holding if _is_named(other.case, name or "eager")]
    alike = [
        other for other in named if (other.case.threads, other.case.streams) == (case.threads, case.streams)
    ]
    return next(iter([*alike, *named, *([] if name else holding)]), None)


def _is_named(case: Case, name: str) -> bool:
    artefact, _, backend = name.rpartition(":")
    if artefact:
        return case.artefact == artefact and case.backend == registry.canonical(backend)
    return name == case.artefact or registry.canonical(name) == case.backend
