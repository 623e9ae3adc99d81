"""What the page of a benchmark shows, at a level of detail: texts and drawings, ready for the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.report.bench import facts, words
from vit_deploy.report.bench.bars import cold_figure, memory_figure
from vit_deploy.report.bench.cells import failed_cells, limit_cells, result_cells
from vit_deploy.report.bench.curves import frontier_figure, throughput_figure
from vit_deploy.report.bench.rows import Group, Naming, groups, is_baseline, visible
from vit_deploy.report.bench.spread import distribution_figure, time_figure
from vit_deploy.report.words import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.document import BenchReport, RowRecord
    from vit_deploy.report.charts import Figure


@dataclass(frozen=True)
class Detail:
    """How much the page tells at most.

    Attributes:
        rows: cases in all tables together.
        lanes: cases drawn in one chart.
        drawn: cases drawn one by one in all charts of one kind together.
        facts: cases whose backend's own facts are told.
        letters: of a text that a backend or a user wrote.
        lines: of any list.
    """

    rows: int = 1000
    lanes: int = 24
    drawn: int = 72
    facts: int = 100
    letters: int = 2000
    lines: int = 100


DETAILS = (
    Detail(),
    Detail(rows=500, lanes=16, drawn=32, facts=12),
    Detail(rows=300, lanes=8, drawn=16, facts=0, letters=400, lines=40),
    Detail(rows=100, lanes=4, drawn=4, facts=0, letters=120, lines=20),
    Detail(rows=100, lanes=0, drawn=0, facts=0, letters=120, lines=20),
)
"""From the most to the least; the last fits whatever a report holds."""


@dataclass
class _Room:
    """How many more rows, or drawings of rows, there is room for."""

    left: int

    def take(self, wanted: int) -> int:
        taken = max(0, min(wanted, self.left))
        self.left -= taken
        return taken


class Page:
    """One report at one level of detail."""

    def __init__(self, report: BenchReport, detail: Detail) -> None:
        self._report = report
        self._detail = detail
        self._naming = Naming(report.rows)
        self._groups = groups(report)
        self._shortened = False

    def data(self) -> dict[str, Any]:
        """Everything that the template asks for, by name."""
        data = {
            **self._opening(),
            **self._tables(),
            **self._curves(),
            **self._starts(),
            **self._limits(),
            **self._trust(),
            **self._facts(),
        }
        return {**data, "shortened": self._shortened or self._detail != DETAILS[0]}

    def _cut(self, text: str) -> str:
        text, most = visible(text), self._detail.letters
        return text if len(text) <= most else f"{text[: most - 1]}…"

    def _first(self, entries: Sequence[Any], most: int | None = None) -> tuple[Sequence[Any], int]:
        """As many entries as there is room for, and how many are left out."""
        most = self._detail.lines if most is None else most
        self._shortened |= len(entries) > most
        return entries[:most], max(0, len(entries) - most)

    def _name(self, row: RowRecord) -> str:
        return self._cut(self._naming.whole(row))

    def _short_name(self, row: RowRecord) -> str:
        return self._cut(self._naming.in_group(row))

    def _opening(self) -> dict[str, Any]:
        report = self._report
        cautions = [self._caution(caution) for caution in words.cautions(report)]
        measured = [group for group in self._groups if group.measured]
        shown, left_out = self._first(measured)
        sound = not words.is_unsound(report)
        return {
            "headline": self._cut(words.headline(report)),
            "outcome": "failed" if any(entry["kind"] == "failed" for entry in cautions) else "passed",
            "subject": self._cut(self._subject()),
            "cautions": cautions,
            "verdicts": [self._cut(words.verdict(group, self._naming, sound)) for group in shown],
            "verdicts_left_out": left_out,
            "soundness": self._cut(words.soundness(report)),
        }

    def _caution(self, caution: words.Caution) -> dict[str, Any]:
        lines, left_out = self._first(caution.lines)
        told = {"kind": caution.kind, "title": caution.title, "first": caution.first}
        return {**told, "lines": [self._cut(line) for line in lines], "left_out": left_out}

    def _subject(self) -> str:
        """On what, and how many: ``AMD EPYC, 2 cores · 12 cases · 6,000 samples``."""
        report = self._report
        gpus = report.environment.get("gpus")
        machine = [str(report.environment.get("cpu") or "")]
        machine += [str(entry) for entry in gpus] if isinstance(gpus, list) else []
        cores = report.environment.get("cores")
        machine += [count(cores, "core")] if isinstance(cores, int) else []
        samples = sum(len(row.samples_ns) for row in report.rows)
        told = [", ".join(filter(None, machine)), count(len(report.rows), "case"), count(samples, "sample")]
        return " · ".join(filter(None, told))

    def _tables(self) -> dict[str, Any]:
        rows, drawings = _Room(self._detail.rows), _Room(self._detail.drawn)
        shown, shown_rows = [], 0
        for number, group in enumerate(self._groups[: self._detail.lines]):
            most = rows.take(len(group.rows))
            if not most:
                break
            shown_rows += most
            shown.append(self._group(group, number, most, drawings))
        left_out = len(self._groups) - len(shown)
        self._shortened |= bool(left_out) or shown_rows < len(self._report.rows)
        rest = sum(len(group.rows) for group in self._groups[len(shown) :])
        return {"groups": shown, "groups_left_out": left_out, "rows_left_out": rest}

    def _group(self, group: Group, number: int, most: int, drawings: _Room) -> dict[str, Any]:
        shown, measured = group.rows[:most], group.measured
        lanes = drawings.take(min(self._detail.lanes, len(measured)))
        has = {
            "p99": any(row.p99_ms is not None for row in shown),
            "ratio": any(row.ratio is not None for row in shown) and len(group.rows) > 1,
            "share": any(row.limit and row.limit.get("share") is not None for row in shown),
            "memory": any(row.peak_rss_bytes is not None for row in shown),
            "cold": any(row.cold_start_ms for row in shown),
        }
        baseline = next((row for row in group.rows if is_baseline(row)), None)
        alone = len(measured) < 2 or bool(words.ties(group))
        return {
            "id": f"group-{number}",
            "title": self._cut(group.title),
            "rows": [self._row(row, fastest=not alone and row is measured[0]) for row in shown],
            "rows_left_out": len(group.rows) - most,
            "has": has,
            "columns": 5 + sum(has.values()),
            "baseline": self._short_name(baseline) if baseline is not None and has["ratio"] else "",
            "distribution": distribution_figure(measured[:lanes], self._short_name) if lanes else None,
            "drawn": lanes,
            "drawings_left_out": len(measured) - lanes,
        }

    def _row(self, row: RowRecord, *, fastest: bool) -> dict[str, Any]:
        rest = self._naming.in_group(row).removeprefix(row.artefact).strip()
        shared = {"ok": row.ok, "artefact": self._cut(row.artefact), "qualifier": self._cut(rest)}
        if not row.ok:
            return {**shared, **failed_cells(row, self._cut)}
        return {**shared, **result_cells(row, self._cut), "fastest": fastest}

    def _curves(self) -> dict[str, Any]:
        rows = self._report.rows
        nothing: dict[str, Any] = {"throughput": None, "frontier": None, "front": [], "front_left_out": 0}
        if not self._detail.lanes:
            return nothing
        found = frontier_figure(rows)
        throughput = throughput_figure(rows)
        if found is None:
            return {**nothing, "throughput": throughput}
        drawing, front = found
        shown, left_out = self._first(front)
        told = [
            f"{self._name(row)}: {words.number(row.p50_ms)} ms, {words.number(row.images_per_s)} images/s"
            for row in shown
        ]
        return {"throughput": throughput, "frontier": drawing, "front": told, "front_left_out": left_out}

    def _starts(self) -> dict[str, Any]:
        rows = [row for row in self._report.rows if row.peak_rss_bytes or row.cold_start_ms]
        shown, left_out = self._first(rows, self._detail.lanes)
        return {
            "memory": memory_figure(shown) if shown else None,
            "device_memory": any(row.peak_device_bytes for row in shown),
            "cold": cold_figure(shown) if shown else None,
            "phases": list(words.PHASES.values()),
            "bars_left_out": left_out if shown else 0,
        }

    def _limits(self) -> dict[str, Any]:
        limited = [row for row in self._report.rows if row.limit and row.limit.get("share") is not None]
        split = [row for row in self._report.rows if row.gpu]
        shown, _ = self._first(limited, self._detail.rows // 4)
        on_gpu, _ = self._first(split)
        ceilings, _ = self._first(self._report.ceilings)
        return {
            "limits": [{"name": self._name(row), **limit_cells(row.limit or {})} for row in shown],
            "gpu": [(self._name(row), facts.gpu_rows(row)) for row in on_gpu],
            "ceilings": [facts.ceiling_rows(entry) for entry in ceilings],
        }

    def _trust(self) -> dict[str, Any]:
        drawings = _Room(self._detail.drawn)
        courses: list[tuple[str, Figure, int]] = []
        for group in self._groups:
            lanes = drawings.take(min(self._detail.lanes, len(group.measured)))
            drawing = time_figure(group.measured[:lanes], self._short_name) if lanes else None
            if drawing is not None:
                courses.append((self._cut(group.title), drawing, len(group.measured) - lanes))
        return {"courses": courses, "machine": facts.machine_rows(self._report)}

    def _facts(self) -> dict[str, Any]:
        report = self._report
        skipped, left_out = self._first(report.skipped)
        scenarios, _ = self._first(report.scenarios)
        told = [
            {
                "backend": self._cut(entry.backend),
                "reason": self._cut(entry.reason),
                "mend": self._cut(entry.mend),
            }
            for entry in skipped
        ]
        cells = [facts.scenario_cells(report, entry, self._naming) for entry in scenarios]
        packages = report.environment.get("packages")
        return {
            "scenarios": [{name: self._cut(text) for name, text in entry.items()} for entry in cells],
            "skipped": told,
            "skipped_left_out": left_out,
            "environment": facts.environment_rows(report),
            "settings": facts.settings_rows(report),
            "order": facts.order_text(report),
            "row_facts": [
                (self._name(row), rows)
                for row in report.rows[: self._detail.facts]
                if (rows := facts.row_facts(row))
            ],
            "version": str(packages.get("vit-deploy", "")) if isinstance(packages, dict) else "",
        }
