"""One page of HTML for a benchmark, offline: it asks for nothing, and is read without JavaScript.

Whatever the number of rows and samples it stays below :data:`~vit_deploy.report.page.MOST_BYTES`: where it
would be larger it tells less, as :data:`~vit_deploy.report.bench.page.DETAILS` has it, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.report.bench.page import DETAILS, Detail, Page
from vit_deploy.report.page import first_that_fits, templates, trimmings
from vit_deploy.report.writing import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.bench.document import BenchReport


def write_html(report: BenchReport, path: str | Path) -> None:
    """Write the report as one page of HTML of less than a megabyte.

    Args:
        report: what a run found.
        path: of the file.

    Raises:
        BackendMissing: when jinja2 is not installed.
        OutputFailed: when it cannot be written.
    """
    write_text(path, html(report))


def html(report: BenchReport) -> str:
    """The report as one page of HTML.

    Raises:
        BackendMissing: when jinja2 is not installed.
    """
    template, shared = templates().get_template("bench.html.j2"), trimmings("bench.css")

    def page(detail: Detail) -> str:
        return template.render(**shared, page=Page(report, detail).data())

    return first_that_fits(map(page, DETAILS))
