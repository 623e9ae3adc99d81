"""From what was found to what is concluded: passed, failed, or not decided, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.parity.choosing import ELSEWHERE
from vit_deploy.parity.declared import batch_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.parity.decisions import Findings
    from vit_deploy.protocols import Artefact, Session


def conclude(found: Findings, artefact: Artefact, session: Session) -> tuple[bool | None, str]:
    """Whether the artefact passed, ``None`` where that is open, and the reason.

    A pass counts only at the precision that was declared.
    """
    if found.broken:
        return False, "; ".join(found.broken)
    effective = session.facts.precision
    told = f"{session.facts.backend} computes in {effective} what is declared as {artefact.precision}"
    if effective == artefact.precision:
        return (None, "undecided: " + "; ".join(found.open)) if found.open else (True, "")
    if effective == "fp32":
        mend = ELSEWHERE.get(artefact.precision, "")
        told = f"{told}: it agrees, but that says nothing of {artefact.precision}"
        return None, f"{told}; {mend}" if mend else told
    return False, told


def circumstances(artefact: Artefact, session: Session, overflowed: Sequence[str]) -> dict[str, Any]:
    """What a verdict holds under, as plain data."""
    from vit_deploy.parity.requirements import built

    facts = session.facts
    found: dict[str, Any] = {
        "built": built(artefact, facts),
        "batch_sizes": batch_sizes(artefact.spec.batch),
        "device": facts.device,
        "precision": facts.precision,
        "version": facts.version,
    }
    if overflowed:
        found["eager_overflows"] = list(overflowed)
    return found
