"""What was compared with what limit, one line each: the table that every rendering shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.report.words import UNKNOWN, agreement, bound, ratio, scientific

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vit_deploy.report.document import ArtefactReport
    from vit_deploy.report.records import Agreement


@dataclass(frozen=True)
class Check:
    """One figure beside its limit.

    Attributes:
        subject: what was measured, such as an output's name.
        figure: which figure of it.
        measured: the figure in words.
        allowed: the limit in words; empty where there is none, and the figure is only told.
        holds: whether it does; ``None`` where there is no limit, or too few samples to tell.
        share: how much of what is allowed is used, where that is a number.
    """

    subject: str
    figure: str
    measured: str
    allowed: str = ""
    holds: bool | None = None
    share: float | None = None


def output_checks(artefact: ArtefactReport) -> dict[str, list[Check]]:
    """The ratios of each output beside their limits."""
    outputs: Mapping[str, Mapping[str, Any]] = artefact.details.get("outputs") or {}
    return {
        name: [_ratio(artefact, name, figures, *row) for row in _RATIOS] for name, figures in outputs.items()
    }


def decision_checks(artefact: ArtefactReport) -> list[Check]:
    """What a user of the outputs would notice, beside the budgets that were in force."""
    return [*_classes(artefact), *_embeddings(artefact)]


def all_checks(artefact: ArtefactReport) -> list[Check]:
    """Both, in order."""
    rows = [check for checks in output_checks(artefact).values() for check in checks]
    return rows + decision_checks(artefact)


_RATIOS = (
    ("worst_ratio", "worst", "error at the worst"),
    ("p95_ratio", "p95", "error at the 95th percentile"),
)


def _ratio(
    artefact: ArtefactReport, name: str, figures: Mapping[str, Any], key: str, limit: str, told: str
) -> Check:
    value, allowed = figures.get(key), artefact.limits.get(limit)
    if allowed is None:
        return Check(name, told, f"{ratio(value)} ×")
    holds = value is not None and value <= allowed
    share = value / allowed if value is not None and allowed else None
    return Check(name, told, f"{ratio(value)} ×", f"≤ {allowed:g} ×", holds, share)


def _classes(artefact: ArtefactReport) -> Iterator[Check]:
    found = artefact.decisions
    limits = artefact.limits
    if found is None:
        return
    for key, told in (("top1", "first class is the same"), ("top5", "first class is among the first five")):
        counts = getattr(found, key)
        if counts is not None and (counts.of or counts.near_ties):
            lower = bound(counts)
            measured = agreement(counts) + (f"; {lower}" if lower != UNKNOWN else "")
            allowed, holds = "", None
            if limits.get(key) is not None:
                allowed, holds = f"≥ {100 * limits[key]:g} % for sure", _shown(counts, limits[key])
                if counts.samples_needed:
                    measured += f"; {counts.samples_needed:,} samples would show it"
            elif key == "top1" and limits.get("flips") is not None:
                flips = int(limits["flips"])
                allowed, holds = f"all but {flips}" if flips else "all", counts.of - counts.agreed <= flips
            yield Check("decisions", told, measured, allowed, holds)
    if found.kl is not None and found.kl.mean is not None:
        measured = f"{scientific(found.kl.mean)} nats mean, {scientific(found.kl.max)} at the worst"
        yield _at_most(
            "decisions", "class probabilities differ (KL)", measured, found.kl.mean, limits.get("kl")
        )


def _shown(counts: Agreement, budget: float) -> bool | None:
    """Whether the samples show that a decision agrees as often as it must; ``None`` where they are too few."""
    if counts.lower_bound is not None and counts.lower_bound >= budget:
        return True
    return False if counts.upper_bound is not None and counts.upper_bound < budget else None


def _embeddings(artefact: ArtefactReport) -> Iterator[Check]:
    found = artefact.decisions.embeddings if artefact.decisions is not None else {}
    for name, entry in found.items():
        least, recall = entry.cosine_min, entry.recall_at_10
        if least is not None:
            yield _at_least(name, "cosine at the worst", _cosine(least), least, artefact.limits.get("cosine"))
        if recall is not None:
            measured = f"{100 * recall:.1f} %"
            yield _at_least(name, "same ten nearest", measured, recall, artefact.limits.get("recall"))


def _cosine(value: float) -> str:
    """A cosine near 1 is told by what is missing."""
    return f"1 − {scientific(1 - value)}" if 0.999 < value < 1 else f"{value:.4f}"


def _at_most(subject: str, figure: str, measured: str, value: float, limit: float | None) -> Check:
    if limit is None:
        return Check(subject, figure, measured)
    return Check(subject, figure, measured, f"≤ {limit:g}", value <= limit)


def _at_least(subject: str, figure: str, measured: str, value: float, limit: float | None) -> Check:
    if limit is None:
        return Check(subject, figure, measured)
    return Check(subject, figure, measured, f"≥ {limit:g}", value >= limit)
