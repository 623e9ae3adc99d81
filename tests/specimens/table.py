"""The coverage table: measurements as JSON, and the page that is written from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.specimens.measure import ACTS, Cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA = "vit-deploy/coverage/1"

TITLES = {
    "timm": "timm",
    "transformers": "transformers",
    "torchvision": "torchvision",
    "open_clip": "OpenCLIP",
    "jax_npz": "Google's JAX `.npz`",
    "native": "vit-deploy's own bundles",
    "dialect": "Training scripts' dialects",
}

HEAD = Path(__file__).with_name("head.md")


@dataclass(frozen=True)
class Row:
    """One specimen's measurements."""

    source: str
    family: str
    name: str
    cells: Mapping[str, Cell]

    @property
    def id(self) -> str:
        """The specimen's."""
        return f"{self.source}/{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        cells = {act: cell.to_dict() for act, cell in self.cells.items()}
        return {"source": self.source, "family": self.family, "name": self.name, "cells": cells}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Row:
        """The inverse of :meth:`to_dict`."""
        cells = {act: Cell.from_dict(cell) for act, cell in data["cells"].items()}
        return cls(data["source"], data["family"], data["name"], cells)


def document(rows: Sequence[Row], strangers: Sequence[Row], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, as plain JSON data."""
    return {
        "schema": SCHEMA,
        "environment": dict(environment),
        "specimens": [row.to_dict() for row in rows],
        "strangers": [row.to_dict() for row in strangers],
    }


def page(measured: Mapping[str, Any]) -> str:
    """The page, from what :func:`document` gives."""
    rows = [Row.from_dict(entry) for entry in measured["specimens"]]
    strangers = [Row.from_dict(entry) for entry in measured["strangers"]]
    notes = _Notes()
    parts = [
        HEAD.read_text(encoding="utf-8"),
        _summary(rows),
        *_tables(rows, notes),
        _refused(strangers),
        notes.text(),
    ]
    return "\n".join([*parts, _versions(measured["environment"])])


class _Notes:
    """Footnotes: equal messages share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, message: str) -> str:
        return f"[^{self._numbers.setdefault(message, len(self._numbers) + 1)}]"

    def text(self) -> str:
        return "".join(f"[^{number}]: {_escaped(message)}\n" for message, number in self._numbers.items())


def _escaped(message: str) -> str:
    return " ".join(message.split()).replace("|", "\\|")


def _summary(rows: Sequence[Row]) -> str:
    proved = [row for row in rows if row.cells["proved"].verdict == "passed"]
    worst = max((row.cells["proved"].figure or 0.0 for row in proved), default=0.0)
    lines = [
        f"**{len(proved)} of {len(rows)} checkpoints** of {len({row.family for row in proved})} families from "
        f"{len({row.source for row in proved})} sources are imported and proved; the worst error is at most "
        f"{_power_of_ten(worst)}.",
        "",
        "| act | passed | refused | failed | not measured here |",
        "| --- | --- | --- | --- | --- |",
    ]
    for act, title in ACTS.items():
        found = [row.cells[act].verdict for row in rows if act in row.cells]
        counts = [found.count(verdict) for verdict in ("passed", "refused", "failed", "unavailable")]
        lines.append(f"| {title} | {' | '.join(map(str, counts))} |")
    return "\n".join([*lines, ""])


def _tables(rows: Sequence[Row], notes: _Notes) -> list[str]:
    tables = []
    for source in dict.fromkeys(row.source for row in rows):
        titles = " | ".join(ACTS.values())
        lines = [f"## {TITLES.get(source, source)}", "", f"| family | checkpoint | {titles} |"]
        lines.append("| --- " * (len(ACTS) + 2) + "|")
        for row in rows:
            if row.source == source:
                cells = " | ".join(_shown(act, row.cells.get(act), notes) for act in ACTS)
                lines.append(f"| {row.family} | {_code(row.name)} | {cells} |")
        tables.append("\n".join([*lines, ""]))
    return tables


def _code(name: str) -> str:
    """The architecture or class as code, what was changed of it in words."""
    first, comma, rest = name.partition(", ")
    return f"`{first}`{comma}{rest}"


def _shown(act: str, cell: Cell | None, notes: _Notes) -> str:
    if cell is None:
        return "–"
    if cell.verdict != "passed":
        return f"{'not measured' if cell.verdict == 'unavailable' else cell.verdict}{notes.mark(cell.reason)}"
    if act == "proved":
        return _power_of_ten(cell.figure or 0.0)
    if "sizes" in cell.details:
        return ", ".join(str(size) for size in cell.details["sizes"])
    return "built" if act == "tensorrt" else f"{max(1, math.ceil(cell.figure or 0.0))}×"


def _power_of_ten(error: float) -> str:
    """The next power of ten above."""
    return f"1e{math.ceil(math.log10(error)):d}" if error else "0"


def _refused(strangers: Sequence[Row]) -> str:
    lines = [
        "## What is refused",
        "",
        "Checkpoints that are no Vision Transformer of these families are never imported as if they were.",
        "",
        "| what | from | checkpoint | message |",
        "| --- | --- | --- | --- |",
    ]
    for row in strangers:
        cell = row.cells["proved"]
        told = (
            _escaped(cell.reason)
            if cell.verdict == "refused"
            else f"**{cell.verdict}**: {_escaped(cell.reason)}"
        )
        lines.append(f"| {row.family} | {TITLES.get(row.source, row.source)} | {_code(row.name)} | {told} |")
    return "\n".join([*lines, ""])


def _versions(environment: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return f"Measured with Python {environment['python']} on {environment['system']}: {packages}.\n"
