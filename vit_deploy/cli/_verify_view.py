"""What ``verify`` shows at the terminal: a table, and below it what went wrong, where, and by whose fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.cli._output import print_notes, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vit_deploy.deploy.verify import Judged
    from vit_deploy.facts import Verdict

HEADINGS = ("artefact", "backend", "parity", "worst ratio>", "p95 ratio>", "top-1>", "samples>")


def show(judged: Sequence[Judged], title: str) -> None:
    """The table, and the notes under it."""
    print_table(HEADINGS, [_row(entry.name, entry.verdict) for entry in judged], title=title)
    print_notes((entry.name, text) for entry in judged for text in _notes(entry))


def _notes(entry: Judged) -> Iterator[str]:
    yield entry.verdict.reason
    if entry.culprit is not None:
        sentence = entry.culprit.sentence
        yield f"culprit: {sentence}"
        yield from (text for text in entry.culprit.notes if text not in sentence)
    yield from entry.unmet


def _row(name: str, verdict: Verdict) -> Sequence[str]:
    limits = verdict.details.get("limits", {})
    return (
        name,
        verdict.backend or "–",
        verdict.word,
        _ratio(verdict.worst_ratio, limits.get("worst")),
        _ratio(verdict.p95_ratio, limits.get("p95")),
        _top1(verdict),
        str(verdict.samples or "–"),
    )


def _ratio(ratio: float | None, limit: float | None) -> str:
    if ratio is None:
        return "–"
    shown = f"{ratio:.2f}" if ratio < 1000 else f"{ratio:,.0f}"
    return shown if limit is None else f"{shown} (≤ {limit:g})"


def _top1(verdict: Verdict) -> str:
    """Agreeing samples of those whose first class is clear."""
    top1 = verdict.details.get("top1")
    if not top1 or not (top1["of"] or top1["near_ties"]):
        return "–"
    ties = f" + {top1['near_ties']} ties" if top1["near_ties"] else ""
    return f"{top1['agreed']}/{top1['of']}{ties}"
