"""A comparison of two results for people: a table on a terminal, Markdown for a pull request's comment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.bench.gate_grammar import in_unit, percent
from vit_deploy.bench.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vit_deploy.bench.compare import Change, Comparison, RowChange
    from vit_deploy.bench.gate import Finding, Judgement

_DASH = "–"
_MARKS = {"worse": "✗", "better": "✓"}
_COLOURED = {"worse": "❌", "better": "✅"}
_SHOWN = {"p50": True, "p99": False, "images_per_s": False, "ratio": True, "cold": False, "rss": False}
"""The metrics that a table has room for, and whether with their interval; the JSON document has them all."""

_OUTCOMES = {"failed": "❌", "holds": "✅", "undecided": "❔", "refused": "⚠️"}
MOST_ROWS = 100
"""Rows of a comment; the JSON document has them all."""

NOT_INTERLEAVED = (
    "the two runs were not interleaved: an interval covers what varied within them, "
    "not what the machine did between them; the ratio to a baseline of the same run is free of that"
)


def shown_metrics(comparison: Comparison) -> list[str]:
    """The metrics that a table shows: those of which some row has a figure in both results."""
    return [
        name
        for name in _SHOWN
        if any(name in row.changes and row.changes[name].relative is not None for row in comparison.rows)
    ]


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: the change of each figure with its interval, then the latency itself."""
    names = shown_metrics(comparison)
    headings = ["artefact", "backend", "case", "p50 ms>", *(f"{METRICS[name].title}>" for name in names)]
    return headings, [_cells(row, names) for row in comparison.rows]


def _cells(row: RowChange, names: Sequence[str]) -> list[str]:
    new = row.new
    case = row.key.removeprefix(f"{new.artefact}/{new.backend}/")
    latency = f"{_ms(row.old.p50_ms)} → {_ms(new.p50_ms)}"
    figures = [change_text(row.changes.get(name), _SHOWN[name]) for name in names]
    return [new.artefact, new.backend, case, latency, *figures]


def _ms(value: float | None) -> str:
    return _DASH if value is None else in_unit(value, "ms").removesuffix(" ms")


def change_text(change: Change | None, spread: bool = True, marks: Mapping[str, str] = _MARKS) -> str:
    """``+3.1 % (+2.0 to +4.2) ✗``; a dash for what cannot be said.

    Args:
        change: what is told.
        spread: whether with its interval.
        marks: what stands behind a change for the worse, and for the better.
    """
    if change is None or change.relative is None:
        return _DASH
    text = percent(change.relative)
    if spread and change.interval is not None:
        low, high = map(percent, change.interval)
        text += f" ({low.removesuffix(' %')} to {high.removesuffix(' %')})"
    return f"{text} {marks.get(change.word, '')}".rstrip()


def notes(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """What is to be said of rows, by key: rows that only one result has last."""
    for row in comparison.rows:
        if row.notes:
            yield row.key, "; ".join(row.notes)
    for old in comparison.only_old:
        yield old.key, "only in OLD"
    for new in comparison.only_new:
        yield new.key, "only in NEW"


def markdown(comparison: Comparison, judgement: Judgement | None, refusal: str = "") -> str:
    """The comparison as a comment: the verdict, a table, what failed, the rest folded away.

    Args:
        comparison: what was found.
        judgement: what the gates say of it, where there are any.
        refusal: why the gates could not be judged.
    """
    from vit_deploy.report.markdown import escape

    blocks = [f"### {_headline(comparison, judgement, refusal)}"]
    if refusal:
        blocks.append(escape(refusal))
    blocks.append(_table(comparison))
    if judgement is not None and judgement.findings:
        blocks.append(_gates(judgement))
    if comparison.lost:
        lines = [
            f"- ❌ {_code(key)}: {escape(reason)}" for key, reason in list(comparison.lost.items())[:MOST_ROWS]
        ]
        blocks.append("\n".join(["**Held before, and do not now**", "", *lines]))
    blocks += [_details(comparison), f"<sub>{escape(NOT_INTERLEAVED[:1].upper() + NOT_INTERLEAVED[1:])}.</sub>"]
    return _fitted([block for block in blocks if block])


def _headline(comparison: Comparison, judgement: Judgement | None, refusal: str) -> str:
    if refusal or (judgement is not None and not judgement.judged):
        return "⚠️ Benchmark: not judged"
    words = [
        change.word for row in comparison.rows for change in row.changes.values() if change.metric == "p50"
    ]
    counts = f"{words.count('worse')} slower, {words.count('better')} faster of {len(words)} rows"
    if judgement is None:
        return f"Benchmark: {counts}"
    failures = len(judgement.of("failed"))
    if failures:
        return f"❌ Benchmark: {failures} of {len(judgement.findings)} gates failed; {counts}"
    open_ones = len(judgement.of("undecided", "refused"))
    tail = f", {open_ones} not decided" if open_ones else ""
    return f"✅ Benchmark: no gate failed{tail}; {counts}"


def _table(comparison: Comparison) -> str:
    if not comparison.rows:
        return "*The results have no row in common.*"
    names = shown_metrics(comparison)
    titles = ["artefact", "backend", "case", "p50 ms", *(METRICS[name].title for name in names)]
    lines = [f"| {' | '.join(titles)} |", f"| :-- | :-- | :-- | {' | '.join(['--:'] * (len(titles) - 3))} |"]
    for row in comparison.rows[:MOST_ROWS]:
        artefact, backend, case, latency = _cells(row, [])
        figures = [change_text(row.changes.get(name), _SHOWN[name], _COLOURED) for name in names]
        lines.append(f"| {' | '.join([_code(artefact), _code(backend), _code(case), latency, *figures])} |")
    if len(comparison.rows) > MOST_ROWS:
        lines += ["", f"*{len(comparison.rows) - MOST_ROWS} more rows are in the JSON document.*"]
    return "\n".join(lines)


def _gates(judgement: Judgement) -> str:
    ranked = judgement.of("failed") + judgement.of("refused", "undecided") + judgement.of("holds")
    lines = [_gate_line(entry) for entry in ranked[:MOST_ROWS]]
    return "\n".join(["**Gates**", "", *lines])


def _gate_line(entry: Finding) -> str:
    from vit_deploy.report.markdown import escape

    return f"- {_OUTCOMES[entry.outcome]} {_code(entry.gate)} on {_code(entry.key)}: {escape(entry.text)}"


def _details(comparison: Comparison) -> str:
    from vit_deploy.report.markdown import escape

    lines = [f"- {_code(key)}: {escape(text[:600])}" for key, text in list(notes(comparison))[:MOST_ROWS]]
    lines += [
        f"- {_code(entry.name)}: {escape(f'{entry.old} → {entry.new}')}" for entry in comparison.differences
    ]
    if not lines:
        return ""
    return "\n".join(["<details>", "<summary>Notes and differences</summary>", "", *lines, "", "</details>"])


def _code(text: str) -> str:
    from vit_deploy.report.markdown import code

    return code(text)


def _fitted(blocks: Sequence[str]) -> str:
    """As many blocks as a comment has room for."""
    from vit_deploy.report.markdown import MOST_BYTES

    left_out = "*The rest is left out: the JSON document has it.*"
    chosen: list[str] = []
    room = MOST_BYTES - len(left_out) - 4
    for block in blocks:
        size = len(block.encode()) + 2
        if size > room:
            chosen.append(left_out)
            break
        chosen.append(block)
        room -= size
    return "\n\n".join(chosen) + "\n"
