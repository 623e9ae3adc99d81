"""What every command shares: tables for people, JSON for machines, progress on a terminal.

Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout instead of a table."
)


def note(text: str) -> None:
    """A line for the person at the terminal."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """A warning for the person at the terminal."""
    click.echo(f"warning: {text}", err=True)


def next_step(command: str) -> None:
    """The next useful command, which ends each success."""
    click.echo(f"next: {command}", err=True)


def print_json(schema: str, data: dict[str, Any]) -> None:
    """One JSON document: ``schema``, ``environment`` and the data.

    Args:
        schema: the document's kind, such as ``export``.
        data: what it says.
    """
    from vit_deploy.environment import environment

    document = {"schema": f"vit-deploy/{schema}/1", "environment": environment(), **data}
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """A table on stdout; a column whose heading ends in ``>`` is aligned to the right.

    Cells are data, never markup. Off a terminal nothing is cut: the table is as wide as it must be.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title) if title else None,
        title_justify="left",
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in headings:
        table.add_column(
            heading.removesuffix(">"), justify="right" if heading.endswith(">") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*[Text(printable(str(cell))) for cell in row])
    # rich takes 80 columns for what is no terminal, and would fold names that a script looks for.
    width = None if sys.stdout.isatty() else 100_000
    Console(file=sys.stdout, highlight=False, width=width).print(table, crop=False)


def printable(text: str) -> str:
    """The text with control characters spelled out: a label or a file name must not steer a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def print_notes(notes: Iterable[tuple[str, str]]) -> None:
    """What is to be said of a row, below its table on stdout: a long reason would make the table wide."""
    for name, text in notes:
        if text:
            click.echo(printable(f"{name}: {text}"))


def human_bytes(count: int) -> str:
    """``346 MB``: decimal units, three digits."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


class TerminalProgress:
    """Shows phases and a bar on stderr, on a terminal only."""

    def __init__(self) -> None:
        self._status: Any = None
        self._phase = ""
        self._total: int | None = None
        self._done = 0
        self.cancelled = False

    def __enter__(self) -> TerminalProgress:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def phase(self, text: str, total: int | None = None) -> None:
        """A new phase begins."""
        self._phase, self._total, self._done = text, total, 0
        self._show()

    def advance(self, steps: int = 1) -> None:
        """``steps`` more are done."""
        self._done += steps
        self._show()

    def _show(self) -> None:
        if self._status is not None:
            count = f" {self._done}/{self._total}" if self._total else ""
            self._status.update(f"{self._phase}{count}")
