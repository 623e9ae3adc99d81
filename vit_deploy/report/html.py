"""One page of HTML that says everything, offline: it asks for nothing, and is read without JavaScript.

What the page may hold is bounded; where it would be larger, the least important parts are left out and the
page says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.report import facts, figures, words
from vit_deploy.report.checks import decision_checks, output_checks
from vit_deploy.report.page import MOST_BYTES, first_that_fits, templates, trimmings
from vit_deploy.report.thumbnails import Thumbnail, picture_of, thumbnail
from vit_deploy.report.writing import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vit_deploy.parity.inputs import Picture
    from vit_deploy.report.document import ArtefactReport, ParityReport
    from vit_deploy.report.records import SampleEvidence

__all__ = ["MOST_BYTES", "html", "write_html"]

WORST_SAMPLES = 6
_URGENCY = ("failed", "unverified", "passed")


@dataclass(frozen=True)
class Detail:
    """How much of each artefact the page tells.

    Attributes:
        tables: whether every sample and every tap has its row.
        pictures: whether the worst samples are shown as pictures.
        charts: whether there are charts of those that passed.
    """

    tables: bool = True
    pictures: bool = True
    charts: bool = True


_DETAILS = (
    Detail(),
    Detail(tables=False),
    Detail(tables=False, pictures=False),
    Detail(tables=False, pictures=False, charts=False),
)


def write_html(report: ParityReport, pictures: Mapping[Any, Picture], path: str | Path) -> None:
    """Write the report as one page of HTML of less than :data:`MOST_BYTES`.

    Args:
        report: what is shown.
        pictures: the samples' uint8 ``(h, w, c)`` pictures, by place among the samples or by name.
        path: of the file.

    Raises:
        BackendMissing: when jinja2 is not installed.
        OutputFailed: when it cannot be written.
    """
    write_text(path, html(report, pictures))


def html(report: ParityReport, pictures: Mapping[Any, Picture]) -> str:
    """The report as one page of HTML.

    Raises:
        BackendMissing: when jinja2 is not installed.
    """
    template, shared = templates().get_template("parity.html.j2"), trimmings()
    overview = figures.overview_figure(report.artefacts)

    def page(detail: Detail) -> str:
        entries = [_entry(artefact, place, pictures, detail) for place, artefact in enumerate(report.artefacts)]
        return template.render(
            **shared,
            report=report,
            detail=detail,
            overview=overview,
            entries=entries,
            by_urgency=sorted(entries, key=lambda entry: _URGENCY.index(entry["artefact"].outcome)),
        )

    return first_that_fits(map(page, _DETAILS))


def _entry(
    artefact: ArtefactReport, number: int, pictures: Mapping[Any, Picture], detail: Detail
) -> dict[str, Any]:
    """Everything the page shows of one artefact."""
    drawn = detail.charts or artefact.outcome == "failed"
    return {
        "artefact": artefact,
        "id": f"artefact-{number}",
        "verdict": words.verdict(artefact),
        "outputs": output_checks(artefact),
        "decisions": decision_checks(artefact),
        "drift": figures.drift_figure(artefact) if drawn else None,
        "drift_told": figures.drift_sentence(artefact.drift.readings) if artefact.drift is not None else "",
        "histograms": figures.histogram_figures(artefact) if drawn else [],
        "ranges": figures.range_figure(artefact) if drawn else None,
        "worst": [(sample, _thumbnail(sample, pictures, detail)) for sample in _worst(artefact)],
        "built": facts.built_rows(artefact),
        "steadiness": facts.steadiness_rows(artefact),
        "warnings": facts.range_warnings(artefact),
        "notes": facts.range_notes(artefact),
    }


def _worst(artefact: ArtefactReport) -> list[SampleEvidence]:
    """The samples with the largest errors; those without a finite one come first."""
    ranked = sorted(
        artefact.evidence.samples,
        key=lambda sample: -(float("inf") if sample.worst_ratio is None else sample.worst_ratio),
    )
    return ranked[:WORST_SAMPLES]


def _thumbnail(sample: SampleEvidence, pictures: Mapping[Any, Picture], detail: Detail) -> Thumbnail | None:
    picture = picture_of(sample, pictures) if detail.pictures else None
    return None if picture is None else thumbnail(picture)
