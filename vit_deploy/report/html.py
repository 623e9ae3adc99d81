"""One page of HTML that says everything, offline: it asks for nothing, and is read without JavaScript.

What the page may hold is bounded; where it would be larger, the least important parts are left out and the
page says so.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import BackendMissing
from vit_deploy.report import charts, facts, figures, words
from vit_deploy.report.checks import decision_checks, output_checks
from vit_deploy.report.thumbnails import Thumbnail, picture_of, thumbnail
from vit_deploy.report.writing import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jinja2 import Environment

    from vit_deploy.parity.inputs import Picture
    from vit_deploy.report.document import ArtefactReport, ParityReport
    from vit_deploy.report.records import SampleEvidence

MOST_BYTES = 1_000_000
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
    template = _environment().get_template("parity.html.j2")
    style, script = _asset("page.css"), _asset("sort.js")
    page = ""
    for detail in _DETAILS:
        entries = [_entry(artefact, place, pictures, detail) for place, artefact in enumerate(report.artefacts)]
        page = template.render(
            report=report,
            detail=detail,
            style=style,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            overview=figures.overview_figure(report.artefacts),
            entries=entries,
            by_urgency=sorted(entries, key=lambda entry: _URGENCY.index(entry["artefact"].outcome)),
        )
        if len(page.encode()) < MOST_BYTES:
            break
    return page


def _environment() -> Environment:
    try:
        import jinja2
    except ImportError as error:
        raise BackendMissing(
            "the page of HTML needs jinja2, which is not installed",
            expected="the extra `report`",
            next_command="pip install 'vit-deploy[report]'",
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vit_deploy.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["first_upper"] = lambda text: text[:1].upper() + text[1:]
    environment.globals.update(words=words, facts=facts, meter=charts.meter, swatch=charts.swatch)
    return environment


def _asset(name: str) -> str:
    """A file of the package that stands in the page as it is."""
    return (resources.files("vit_deploy.report") / "templates" / name).read_text(encoding="utf-8")


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
