"""Where a result of ``bench`` goes: JSON, one page of HTML, Markdown, CSV, and the journal of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vit_deploy.bench.document import BenchReport
    from vit_deploy.bench.plan import Skipped
    from vit_deploy.bench.result import BenchResult


class Documents:
    """The files that a user has asked for; it is found out at once that one cannot be written.

    Attributes:
        output: of the JSON document; the journal of the run lies beside it.
        resume: whether to go on with that journal.

    Raises:
        OutputFailed: for a file that cannot be written.
        BackendMissing: for a page of HTML without the library that makes it.
        UsageFailed: for ``--resume`` without ``--output``.
    """

    def __init__(
        self,
        output: Path | None = None,
        html: Path | None = None,
        markdown: Path | None = None,
        csv: Path | None = None,
        *,
        resume: bool = False,
    ) -> None:
        from vit_deploy.errors import UsageFailed
        from vit_deploy.report.writing import require_writable

        self.output, self.resume = output, resume
        self._html, self._markdown, self._csv = html, markdown, csv
        if resume and output is None:
            raise UsageFailed(
                "--resume needs to know which run", expected="--output as it was given to that run"
            )
        for path in filter(None, (output, html, markdown, csv)):
            require_writable(path)
        if html is not None:
            from vit_deploy.report.page import templates

            templates()

    def report(self, result: BenchResult, skipped: Sequence[Skipped]) -> BenchReport:
        """The document of a result."""
        from vit_deploy.bench.document import BenchReport
        from vit_deploy.environment import environment

        return BenchReport.of(result, environment(), skipped)

    def write(self, report: BenchReport) -> None:
        """Write every file that was asked for.

        Raises:
            OutputFailed: when a disk is full, or a folder is gone.
        """
        from vit_deploy.report.writing import write_text

        if self.output is not None:
            write_text(self.output, report.to_json())
        if self._html is not None:
            from vit_deploy.report.bench.html import write_html

            write_html(report, self._html)
        if self._markdown is not None:
            from vit_deploy.report.bench.markdown import write_markdown

            write_markdown(report, self._markdown)
        if self._csv is not None:
            from vit_deploy.report.bench.csv import write_csv

            write_csv(report, self._csv)


class Listeners:
    """Several listeners of one run, told one after the other."""

    def __init__(self, *listeners: Any) -> None:
        self._listeners = listeners

    def __getattr__(self, name: str) -> Any:
        def tell(*arguments: Any) -> None:
            for listener in self._listeners:
                getattr(listener, name)(*arguments)

        return tell
