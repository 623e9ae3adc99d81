"""Where the findings of ``verify`` go: the terminal, or one JSON document, and the files asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from vit_deploy.cli._output import note, print_notes, warn
from vit_deploy.cli._verify_view import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vit_deploy.cli._verify_subject import Subject
    from vit_deploy.deploy.verify import Judged
    from vit_deploy.parity.against import Comparison
    from vit_deploy.parity.inputs import Sample


@dataclass(frozen=True)
class Reports:
    """The documents that were asked for.

    Attributes:
        as_json: whether JSON takes the table's place on stdout.
        junit: file for JUnit XML.
        markdown: file for Markdown.
        html: file for the page.
    """

    as_json: bool = False
    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None

    @classmethod
    def asked(cls, words: Mapping[str, Any]) -> Reports:
        """From the command's arguments.

        Raises:
            OutputFailed: for a file that cannot be written: better now than after all the work.
        """
        from vit_deploy.report.writing import require_writable

        reports = cls(words["as_json"], words["junit"], words["markdown"], words["html"])
        for path in (reports.junit, reports.markdown, reports.html):
            if path is not None:
                require_writable(path)
        return reports

    @property
    def pictured(self) -> bool:
        """Whether the error of each artefact is drawn from block to block."""
        return self.html is not None or self.markdown is not None

    def give(
        self,
        subject: Subject,
        judged: Sequence[Judged],
        samples: Sequence[Sample],
        comparison: Comparison | None,
    ) -> None:
        """Print the findings, and write the files.

        Raises:
            OutputFailed: when a file cannot be written.
        """
        from vit_deploy.environment import environment
        from vit_deploy.report.document import build_report

        labels = subject.model.labels
        report = build_report(
            subject.name, judged, samples, environment(), labels=labels, comparison=comparison
        )
        if self.as_json:
            click.echo(report.to_json(), nl=False)
        else:
            show(judged, f"{'bundle' if subject.bundle else 'candidate of'} {subject.name}")
            if comparison is not None:
                print_notes(("against", finding.text) for finding in comparison.findings)
        for text in dict.fromkeys(text for entry in judged for text in _near_overflow(entry)):
            warn(text)
        self._write(report, samples)

    def _write(self, report: Any, samples: Sequence[Sample]) -> None:
        if self.junit:
            from vit_deploy.report.junit import write_junit

            write_junit(report, self.junit)
        if self.markdown:
            from vit_deploy.report.markdown import write_markdown

            write_markdown(report, self.markdown)
        if self.html:
            from vit_deploy.report.html import write_html

            pictures = {
                place: sample.picture for place, sample in enumerate(samples) if sample.picture is not None
            }
            write_html(report, pictures, self.html)
        for path in (self.junit, self.markdown, self.html):
            if path:
                note(f"written: {path}")


def _near_overflow(entry: Judged) -> list[str]:
    """Where the model's own numbers come near the end of fp16, or pass it."""
    warnings: list[str] = entry.verdict.details.get("range_watch", {}).get("warnings", [])
    return warnings
