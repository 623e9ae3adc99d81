"""What a report says in words and figures, alike in every rendering."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_deploy.report.document import ArtefactReport, ParityReport
    from vit_deploy.report.records import Agreement

MARKS = {"passed": "✔", "failed": "✘", "unverified": "–"}
"""A sign beside each outcome, so that colour is never all that tells them apart."""

UNKNOWN = "–"


def ratio(value: float | None) -> str:
    """A ratio of errors, to be followed by ``×`` or ``times``: ``1.06``, ``390``, ``1.1 million``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value >= 1e6:
        return f"{value / 1e6:.3g} million" if value < 999.5e6 else scientific(value)
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def scientific(value: float | None) -> str:
    """A small or huge number: ``3.2 × 10⁻⁷``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa} × 10{superscript(int(exponent))}"


def superscript(number: int) -> str:
    """``⁻⁷``."""
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def size(count: int) -> str:
    """``346 MB``: decimal units, three digits."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.3g} {unit}"


def count(number: int, noun: str) -> str:
    """``1 artefact``, ``2 artefacts``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def agreement(found: Agreement | None) -> str:
    """``15 of 16, and 1 near-tie``."""
    if found is None or not (found.of or found.near_ties):
        return UNKNOWN
    ties = f", and {count(found.near_ties, 'near-tie')}" if found.near_ties else ""
    return f"{found.agreed:,} of {found.of:,}{ties}"


def bound(found: Agreement | None) -> str:
    """What agreement can be counted on: ``at least 82.9 % with 95 % confidence``."""
    if found is None or found.lower_bound is None:
        return UNKNOWN
    sure = f" with {100 * found.confidence:g} % confidence" if found.confidence is not None else ""
    return f"at least {100 * found.lower_bound:.1f} %{sure}"


def headline(report: ParityReport) -> str:
    """What was found, in a few words."""
    total = len(report.artefacts)
    counts = _counts(report)
    if not total:
        return "There was nothing to verify"
    if counts["failed"]:
        return "The artefact failed" if total == 1 else f"{counts['failed']} of {total} artefacts failed"
    if report.outcome == "failed":
        return "No equal of the bundle that was accepted last"
    if not counts["passed"]:
        return "Nothing could be verified here"
    if counts["unverified"]:
        return f"{counts['passed']} of {total} artefacts equal to eager PyTorch"
    return f"{'The artefact is' if total == 1 else f'All {total} artefacts are'} equal to eager PyTorch"


def rest(report: ParityReport) -> str:
    """What the headline leaves out of the outcomes; empty where it leaves out nothing."""
    counts = _counts(report)
    told = []
    if counts["failed"] and counts["passed"]:
        told.append(f"{counts['passed']} passed")
    if counts["unverified"] and (counts["failed"] or counts["passed"]):
        told.append(f"{counts['unverified']} could not be checked here")
    return ", ".join(told)


def _counts(report: ParityReport) -> dict[str, int]:
    return {name: sum(entry.outcome == name for entry in report.artefacts) for name in MARKS}


def verdict(artefact: ArtefactReport) -> str:
    """What the outcome of one artefact means, for someone who has never heard of the criterion."""
    if artefact.passed is None and artefact.worst_ratio is None:
        return "Not checked: this artefact could not be run and compared here, so nothing is known of it."
    if artefact.passed is None:
        return f"Undecided: what was measured is not enough to call it equal.{_measured(artefact)}"
    if artefact.passed:
        told = f"Equal: it computes what the checkpoint computes.{_measured(artefact)}"
        return f"{told} But it was not built as was required." if artefact.unmet else told
    told = "Not equal: it does not compute what the checkpoint computes, and should not be used."
    return told + _measured(artefact)


def _measured(artefact: ArtefactReport) -> str:
    """How large the errors are, in the criterion's unit."""
    if artefact.worst_ratio is None:
        return ""
    worst = artefact.limits.get("worst")
    # Without a limit on ratios eager has no such precision: what is declared is the yardstick then.
    unit = f"what rounding to {artefact.dtype} explains" if worst is None else "PyTorch’s own rounding error"
    allowed = "" if worst is None else f"; up to {worst:g} times is allowed"
    times = ratio(artefact.worst_ratio)
    return f" Where it is furthest from the exact result, its error is {times} times {unit}{allowed}."
