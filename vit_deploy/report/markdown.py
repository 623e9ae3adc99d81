"""Markdown for a pull request: the verdict first, one table, the culprit in words, the rest folded away.

GitHub refuses comments of more than 65,536 characters, so what matters least is left out first. Names and
reasons come from users and backends: nothing in them becomes markup, a link or a mention.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from vit_deploy.report import words
from vit_deploy.report.checks import all_checks
from vit_deploy.report.facts import built_lines, fact_rows, range_warnings, steadiness_lines
from vit_deploy.report.writing import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vit_deploy.report.document import ArtefactReport, ParityReport
    from vit_deploy.report.records import AgainstRecord, Tap

MOST_BYTES = 60_000
"""Below GitHub's limit, whichever way it counts."""

_MARKS = {"passed": "✅", "failed": "❌", "unverified": "⚪"}
_LEVELS = "▁▂▃▄▅▆▇█"
_REASON = 600
"""Letters of a reason that stand outside the folded part."""


def write_markdown(report: ParityReport, path: str | Path) -> None:
    """Write the report as Markdown.

    Raises:
        OutputFailed: when it cannot be written.
    """
    write_text(path, markdown(report))


def markdown(report: ParityReport) -> str:
    """The report as Markdown of at most :data:`MOST_BYTES` bytes, ending in a line break."""
    opening = [f"### {_MARKS[report.outcome]} Parity: {_begin(words.headline(report))}", ""]
    if words.rest(report):
        opening += [f"{escape(words.rest(report)).capitalize()}.", ""]
    opening += _table(report)
    blocks = [opening, *(block for artefact in _failed_first(report) if (block := _story(artefact)))]
    if report.against is not None:
        blocks.append(_against(report.against))
    blocks += [_folded(artefact) for artefact in _failed_first(report)]
    blocks.append(_environment(report))
    return fitted(["\n".join(block) for block in blocks])


def fitted(blocks: Sequence[str]) -> str:
    """As many of the blocks as there is room for, in order, and a line that says so where not all do."""
    left_out = "*The rest is left out: the HTML and the JSON report have it.*"
    room = MOST_BYTES - len(left_out) - 4
    chosen: list[str] = []
    for block in blocks:
        size = len(block.encode()) + 2
        if size > room:
            break
        chosen.append(block)
        room -= size
    if len(chosen) < len(blocks):
        chosen.append(left_out)
    return "\n\n".join(chosen) + "\n"


def _failed_first(report: ParityReport) -> list[ArtefactReport]:
    order = ("failed", "unverified", "passed")
    return sorted(report.artefacts, key=lambda artefact: order.index(artefact.outcome))


def _table(report: ParityReport) -> list[str]:
    """One row for each artefact; of hundreds, those that matter most."""
    shown = _failed_first(report)[:100] if len(report.artefacts) > 100 else report.artefacts
    lines = [
        "| artefact | verdict | worst error | 95 % of errors | first class | backend |",
        "| :-- | :-- | --: | --: | --: | :-- |",
    ]
    for artefact in shown:
        top1 = artefact.decisions.top1 if artefact.decisions is not None else None
        cells = (
            code(artefact.name),
            f"{_MARKS[artefact.outcome]} {artefact.outcome}",
            _with_limit(artefact.worst_ratio, artefact.limits.get("worst")),
            _with_limit(artefact.p95_ratio, artefact.limits.get("p95")),
            words.agreement(top1),
            code(artefact.backend) if artefact.backend else words.UNKNOWN,
        )
        lines.append(f"| {' | '.join(cells)} |")
    if len(shown) < len(report.artefacts):
        lines += ["", f"*{len(report.artefacts) - len(shown)} more are in the JSON report.*"]
    return [*lines, "", "<sub>Errors are in units of eager PyTorch's own: 1 × is as exact as PyTorch.</sub>"]


def _begin(sentence: str) -> str:
    """A sentence that goes on after a colon."""
    return escape(sentence[:1].lower() + sentence[1:])


def _with_limit(value: float | None, limit: float | None) -> str:
    return _times(value) + (f" (≤ {limit:g})" if value is not None and limit is not None else "")


def _times(value: float | None) -> str:
    return words.UNKNOWN if value is None else f"{words.ratio(value)} ×"


def _story(artefact: ArtefactReport) -> list[str]:
    """Why an artefact did not pass: the culprit, the reason, what is not as required, where it drifts."""
    if artefact.outcome == "passed":
        warnings = range_warnings(artefact)
        return [f"⚠️ {code(artefact.name)}: {escape(cut('; '.join(warnings)))}"] if warnings else []
    lines = [f"**{code(artefact.name)}**"]
    if artefact.culprit is not None and artefact.culprit.sentence:
        told = artefact.culprit.sentence
        lines += ["", f"> {escape(cut(told[:1].upper() + told[1:]))}"]
    if artefact.reason:
        lines += ["", escape(cut(artefact.reason))]
    if artefact.unmet:
        lines += ["", *(f"- not as required: {escape(cut(told))}" for told in artefact.unmet[:10])]
    return lines + _drift(artefact)


def _against(found: AgainstRecord) -> list[str]:
    """What differs from the bundle that was accepted last, what fails first."""
    ranked = sorted(found.findings, key=lambda entry: entry.severity != "fails")
    lines = [
        f"- {'❌ ' if entry.severity == 'fails' else ''}"
        f"{f'{code(entry.artefact)}: ' if entry.artefact else ''}{escape(cut(entry.text, 300))}"
        for entry in ranked[:40]
    ]
    mark = _MARKS["failed" if found.passed is False else "passed"]
    return [
        f"{mark} **Beside the bundle that was accepted last**",
        "",
        *(lines or ["No difference was found."]),
    ]


def _drift(artefact: ArtefactReport) -> list[str]:
    """The error from tap to tap as a row of bars, a bar's height the logarithm of the ratio."""
    if artefact.drift is None or not artefact.drift.readings:
        return []
    readings = artefact.drift.readings
    first = next((tap for tap in readings if not tap.holds), None)
    told = f"first beyond its limit: {first.tap}" if first is not None else "every tap is within its limit"
    ends = f"{readings[0].tap} → {readings[-1].tap}"
    return ["", *fenced([f"{sparkline(readings)}  {ends}", told])]


def sparkline(readings: Sequence[Tap]) -> str:
    """One bar for each reading, by the logarithm of its ratio; ``!`` where it is not finite."""
    logs = [math.log10(max(tap.ratio, 1e-3)) if tap.ratio is not None else None for tap in readings]
    # Ratios up to 10 are rounding: the bars rise from there, so that noise does not look like a cliff.
    high = max([3.0, *(value for value in logs if value is not None)])
    low = -0.5

    def bar(value: float | None) -> str:
        if value is None:
            return "!"
        share = (min(high, max(low, value)) - low) / (high - low)
        return _LEVELS[round(share * (len(_LEVELS) - 1))]

    return "".join(map(bar, logs))


def _folded(artefact: ArtefactReport) -> list[str]:
    """Everything else of one artefact, shown when it is opened."""
    lines = ["<details>", f"<summary>{_html(artefact.name)}: figures</summary>", ""]
    for part in _PARTS:
        told = list(part(artefact))
        lines += [*told, ""] if told else []
    return [*lines, "</details>"]


def _checks(artefact: ArtefactReport) -> Iterator[str]:
    checks = all_checks(artefact)
    if checks:
        yield "| of | figure | measured | limit | |"
        yield "| :-- | :-- | --: | --: | :-- |"
    for check in checks[:80]:
        mark = {True: "✅", False: "❌", None: ""}[check.holds]
        yield f"| {code(check.subject)} | {check.figure} | {check.measured} | {check.allowed} | {mark} |"


def _ladder(artefact: ArtefactReport) -> Iterator[str]:
    stages = artefact.culprit.stages if artefact.culprit is not None else []
    if stages:
        yield "| stage | | worst error | holds | |"
        yield "| :-- | :-- | --: | :-- | :-- |"
    for stage in stages[:60]:
        word = {True: "yes", False: "**no**", None: "not run"}[stage.holds]
        cells = (
            escape(stage.kind),
            code(stage.name),
            _times(stage.worst_ratio),
            word,
            escape(cut(stage.note, 200)),
        )
        yield f"| {' | '.join(cells)} |"


def _taps(artefact: ArtefactReport) -> Iterator[str]:
    readings = artefact.drift.readings if artefact.drift is not None else []
    if readings:
        yield "| tap | error | PyTorch's own | ratio | holds |"
        yield "| :-- | --: | --: | --: | :-- |"
    for tap in readings[:200]:
        own, error = words.scientific(tap.eager_error), words.scientific(tap.error)
        cells = (code(tap.tap), error, own, _times(tap.ratio), "yes" if tap.holds else "**no**")
        yield f"| {' | '.join(cells)} |"


def _lists(artefact: ArtefactReport) -> Iterator[str]:
    for title, told in (
        ("Moves", steadiness_lines(artefact)),
        ("Built", built_lines(artefact)),
        ("Range watch", range_warnings(artefact)),
    ):
        if told:
            yield f"**{title}**"
            yield from (f"- {escape(cut(line, 300))}" for line in told[:40])


_PARTS: tuple[Callable[[ArtefactReport], Iterator[str]], ...] = (_checks, _ladder, _taps, _lists)


def _environment(report: ParityReport) -> list[str]:
    lines = [f"{name}: {value}" for name, value in fact_rows(report.environment)]
    return ["<details>", "<summary>Environment</summary>", "", *fenced(lines), "", "</details>"]


def cut(text: str, most: int = _REASON) -> str:
    """Text of at most so many letters; where some are left out, an ellipsis says so."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def escape(text: str) -> str:
    """Text that renders as itself, on one line: no markup, no HTML, no mention, no reference, no link."""
    flat = " ".join(_visible(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    marked = re.sub(r"([\\`*_\[\]|~>$])", r"\\\1", flat)
    # What a line begins with may make it a list, a heading or a rule.
    marked = re.sub(r"^([-+=])", r"\\\1", re.sub(r"^(\d+)([.)])", r"\1\\\2", marked))
    # A zero-width space keeps @name from calling a person, and #1 and addresses from becoming links.
    return re.sub("[@#]|:(?=//)|(?<=www)(?=[.])", "\\g<0>\u200b", marked)


def code(text: str) -> str:
    """Text as code inside a table's cell, whatever backticks are in it."""
    flat = " ".join(_visible(text).split()).replace("|", "\\|") or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", flat)), default=0) + 1)
    return f"{fence} {flat} {fence}" if "`" in flat else f"{fence}{flat}{fence}"


def fenced(lines: Sequence[str]) -> list[str]:
    """Lines as a block of code, whatever backticks are in them."""
    flat = [" ".join(_visible(line).split()) if "\n" in line else _visible(line) for line in lines]
    longest = max((len(run) for line in flat for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *flat, fence]


def _visible(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter.isspace() else "\ufffd" for letter in text)


def _html(text: str) -> str:
    """Text inside an HTML element on a page of Markdown."""
    flat = " ".join(_visible(text).split())
    return f"<code>{flat.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}</code>"
