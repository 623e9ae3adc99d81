"""Markdown for a pull request or a README: the verdict first, one table for each group, the rest folded away.

What matters least is left out first, so that the whole stays below GitHub's limit for a comment. Names and
errors come from users and backends: nothing in them becomes markup, a link or a mention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.report.bench import words
from vit_deploy.report.bench.facts import environment_rows, scenario_cells, settings_rows
from vit_deploy.report.bench.rows import Group, Naming, groups, is_baseline
from vit_deploy.report.markdown import code, cut, escape, fenced, fitted
from vit_deploy.report.words import UNKNOWN, count
from vit_deploy.report.writing import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vit_deploy.bench.document import BenchReport, RowRecord

MOST_ROWS = 100
"""Of one table."""

_HEADINGS = (
    ("artefact", ":--"),
    ("p50 ms", "--:"),
    ("95 %", "--:"),
    ("p90", "--:"),
    ("p99", "--:"),
    ("images/s", "--:"),
    ("time ÷ baseline", "--:"),
    ("of the ceiling", "--:"),
    ("peak memory", "--:"),
    ("cold start", "--:"),
    ("parity", ":--"),
)
_MARKS = {"passed": "✅", "failed": "❌", "unverified": "⚠️"}
_PARITY = {"passed": "✅", "unverified": "⚠️ unverified", "reference": "reference"}


def write_markdown(report: BenchReport, path: str | Path) -> None:
    """Write the report as Markdown.

    Raises:
        OutputFailed: when it cannot be written.
    """
    write_text(path, markdown(report))


def markdown(report: BenchReport) -> str:
    """The report as Markdown, short enough for a comment on GitHub, ending in a line break."""
    naming = Naming(report.rows)
    found = groups(report)
    told, sound = words.headline(report), not words.is_unsound(report)
    opening = [f"### {_mark(report)}Benchmark: {escape(told[:1].lower() + told[1:])}", ""]
    opening += _cautions(report, first=True)
    verdicts = [words.verdict(group, naming, sound) for group in found[:40] if group.measured]
    opening += [f"- {escape(cut(told[:1].upper() + told[1:]))}" for told in verdicts]
    blocks = [opening, _cautions(report, first=False), *(_group(group, naming) for group in found)]
    blocks += [list(_scenarios(report, naming)), list(_skipped(report)), [_legend(report)], _folded(report)]
    return fitted(["\n".join(block) for block in blocks if block])


def _mark(report: BenchReport) -> str:
    """A cross where the figures decide nothing, a warning where there is something to know first."""
    if words.is_unsound(report) or not any(row.ok for row in report.rows):
        return f"{_MARKS['failed']} "
    return f"{_MARKS['unverified']} " if words.cautions(report) else ""


def _cautions(report: BenchReport, *, first: bool) -> list[str]:
    """Those of the whole run, which stand before the verdict, or the others."""
    lines: list[str] = []
    for caution in words.cautions(report):
        if caution.first is not first:
            continue
        shown, rest = caution.lines[:10], len(caution.lines) - 10
        lines.append(f"> {_MARKS[caution.kind]} **{escape(caution.title)}**")
        lines += [f"> - {escape(cut(line, 300))}" for line in shown]
        lines += [f"> - *{rest} more*"] if rest > 0 else []
        lines.append("")
    return lines if first else lines[:-1]


def _group(group: Group, naming: Naming) -> list[str]:
    title = group.title[:1].upper() + group.title[1:]
    lines = [f"**{escape(title)}**", ""]
    # A column that has nothing to tell of any row is no column.
    table = [_cells(row, naming) for row in group.rows[:MOST_ROWS]]
    kept = [
        place for place in range(len(_HEADINGS)) if place < 2 or any(cells[place] != UNKNOWN for cells in table)
    ]
    lines.append(f"| {' | '.join(_HEADINGS[place][0] for place in kept)} |")
    lines.append(f"| {' | '.join(_HEADINGS[place][1] for place in kept)} |")
    lines += [f"| {' | '.join(cells[place] for place in kept)} |" for cells in table]
    if len(group.rows) > MOST_ROWS:
        lines += ["", f"*{len(group.rows) - MOST_ROWS} more are in the JSON document.*"]
    return lines


def _cells(row: RowRecord, naming: Naming) -> list[str]:
    name = code(naming.in_group(row))
    if not row.ok:
        why = escape(cut(row.error or "failed without a word", 120))
        return [name, f"❌ {why}", *[UNKNOWN] * (len(_HEADINGS) - 2)]
    outcome, error = words.parity(row)
    return [
        f"{name}{' ⚠️' if row.disturbed else ''}",
        words.number(row.p50_ms),
        words.between(row.p50_interval_ms, row.p50_ms) or UNKNOWN,
        words.number(row.p90_ms),
        words.number(row.p99_ms),
        words.number(row.images_per_s),
        _ratio(row),
        words.percent(row.limit.get("share") if row.limit else None),
        words.gigabytes(row.peak_rss_bytes),
        words.seconds(row.cold_ms),
        f"{_PARITY[outcome]} {error}".strip(),
    ]


def _ratio(row: RowRecord) -> str:
    if is_baseline(row):
        return "baseline"
    if row.ratio is None:
        return UNKNOWN
    interval = words.between(row.ratio_interval, row.ratio)
    return f"**{words.ratio(row.ratio)}**{f' ({interval})' if interval else ''}"


def _scenarios(report: BenchReport, naming: Naming) -> Iterator[str]:
    if not report.scenarios:
        return
    yield "**Scenarios** (MLPerf LoadGen)"
    yield ""
    yield "| case | scenario | verdict | rate /s | asked /s | p50 ms | p90 ms | p99 ms |"
    yield "| :-- | :-- | :-- | --: | --: | --: | --: | --: |"
    for cells in [scenario_cells(report, entry, naming) for entry in report.scenarios[:MOST_ROWS]]:
        mark = {"valid": "✅ ", "invalid": "❌ "}.get(cells["verdict"], "")
        figures = [cells[name] for name in ("achieved", "target", "p50", "p90", "p99")]
        case, what = code(cut(cells["case"], 120)), escape(cells["scenario"])
        yield f"| {' | '.join([case, what, mark + escape(cells['verdict']), *figures])} |"


def _skipped(report: BenchReport) -> Iterator[str]:
    if report.skipped:
        yield "**Left out**"
        yield ""
    for entry in report.skipped[:40]:
        mend = f" Mend: {code(cut(entry.mend, 200))}" if entry.mend else ""
        yield f"- {code(entry.backend)}: {escape(cut(entry.reason, 200))}.{mend}"


def _legend(report: BenchReport) -> str:
    baselines = dict.fromkeys(row.baseline for row in report.rows if row.baseline)
    base = f" The baseline is {', '.join(map(code, list(baselines)[:4]))}." if baselines else ""
    return (
        "<sub>Medians with their 95 % intervals; below 1 is faster than the baseline."
        f"{base} {escape(words.soundness(report))}</sub>"
    )


def _folded(report: BenchReport) -> list[str]:
    facts = [*settings_rows(report), *environment_rows(report)]
    title = f"{count(sum(len(row.samples_ns) for row in report.rows), 'sample')}, settings and environment"
    lines = [f"{name}: {value}" for name, value in facts]
    return ["<details>", f"<summary>{title}</summary>", "", *fenced(lines), "", "</details>"]
