"""What a benchmark's report says in words and figures, alike in every rendering."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.report.bench.rows import Group, Naming, groups
from vit_deploy.report.words import UNKNOWN, count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.document import BenchReport, RowRecord

    Interval = tuple[float, float] | None

REFERENCE = "pytorch"
"""The format of the reference weights, which all others are compared with."""

PHASES = {"import": "import", "check": "hash check", "open": "open", "first": "first inference"}
"""What a cold start is made of, in order, and how it is told."""


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, never in powers of ten; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.{_decimals(value, digits)}f}"


def _decimals(value: float, digits: int) -> int:
    if value == 0:
        return 0
    # Rounding may add a digit: 9.996 is 10.0 and not 10.00.
    rounded = float(f"{abs(value):.{digits - 1}e}")
    return min(12, max(0, digits - 1 - math.floor(math.log10(rounded))))


def between(interval: Interval, value: float | None = None, digits: int = 3) -> str:
    """``2.2–2.4``: with as many digits as it takes to tell the ends apart, two more at most; or nothing."""
    if interval is None:
        return ""
    low, high = interval
    told = f"{low:,.0f}", f"{high:,.0f}"
    least = _decimals(max(abs(value or 0.0), abs(low)), digits)
    for decimals in (least, least + 1, least + 2):
        told = f"{low:,.{decimals}f}", f"{high:,.{decimals}f}"
        if told[0] != told[1]:
            break
    return "–".join(told)


def ratio(value: float | None) -> str:
    """Time over the baseline's: ``0.44``, ``1.02``, ``12.3``; below a tenth three digits: ``0.0213``."""
    return number(value) if value is not None and value < 0.1 else times(value)


def times(value: float | None) -> str:
    """A ratio to be followed by ``×``: two decimals below 2, where a percent counts; ``2.3`` above."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.2f}" if value < 2 else number(value, 2 if value < 10 else 3)


def speed_up(row: RowRecord) -> str:
    """``2.3× eager (95 %: 2.2–2.4)``: how many times as fast as its baseline; empty where it is not known."""
    if not row.ratio or row.baseline is None or row.baseline_key == row.key:
        return ""
    told = f"{times(1 / row.ratio)}× {_short(row.baseline)}"
    if row.ratio_interval and row.ratio_interval[0] > 0:
        low, high = 1 / row.ratio_interval[1], 1 / row.ratio_interval[0]
        told += f" (95 %: {between((low, high), digits=2 if low >= 2 else 3)})"
    return told


def _short(baseline: str) -> str:
    """``eager`` for the reference weights on eager PyTorch, which need no other name."""
    return "eager" if baseline.endswith(" on eager") else baseline


def gigabytes(value: int | None) -> str:
    """``1.21 GB``."""
    from vit_deploy.report.words import size

    return UNKNOWN if value is None else size(value)


def seconds(milliseconds: float | None) -> str:
    """``1.24 s`` or ``87 ms``."""
    if milliseconds is None:
        return UNKNOWN
    return f"{number(milliseconds / 1e3)} s" if milliseconds >= 1000 else f"{number(milliseconds)} ms"


def percent(share: float | None) -> str:
    """``87 %``."""
    return UNKNOWN if share is None else f"{number(100 * share, 2 if share < 1 else 3)} %"


def parity(row: RowRecord) -> tuple[str, str]:
    """Whether the artefact equals eager PyTorch: ``passed``, ``unverified`` or ``reference``, and its error."""
    if row.format == REFERENCE:
        return "reference", ""
    if not row.verified:
        return "unverified", ""
    return "passed", "" if row.worst_ratio is None else f"{times(row.worst_ratio)} ×"


def ties(group: Group) -> list[RowRecord]:
    """The rows whose interval meets that of the fastest: the run does not tell them apart."""
    name = _sureness(group)
    if name is None:
        return []
    fastest, *others = group.measured
    edge = getattr(fastest, name)
    reach: list[tuple[RowRecord, Interval]] = [(row, getattr(row, name)) for row in others]
    return [row for row, interval in reach if interval is not None and interval[0] <= edge[1]]


def _sureness(group: Group) -> str | None:
    """Which interval tells the fastest from the others: that of the ratio, which pairs rounds, if there."""
    fastest = group.measured[0]
    paired = fastest.ratio_interval is not None and fastest.baseline_key != fastest.key
    name = "ratio_interval" if paired else "p50_interval_ms"
    return name if getattr(fastest, name) is not None else None


def is_unsound(report: BenchReport) -> bool:
    """Whether the same artefact, measured against itself, was not equal."""
    return report.soundness is not None and not report.soundness.sound


def verdict(group: Group, naming: Naming, sound: bool = True) -> str:
    """Who is fastest in a group, by how much, and whether that can be told."""
    if not group.measured:
        return f"nothing could be measured at {group.title}"
    fastest = group.measured[0]
    if len(group.measured) == 1:
        return f"measured at {group.title}: {_figures(fastest, naming)}"
    level = [naming.in_group(row) for row in ties(group)]
    what = "fastest" if sound else "lowest median, which decides nothing,"
    told = [f"{what} at {group.title}: {_figures(fastest, naming)}"]
    told += [f"not told apart from {_list(level)}"] if level else []
    told += ["with too few rounds for an interval"] if _sureness(group) is None else []
    told += ["but it was disturbed"] if fastest.disturbed else []
    if not fastest.verified:
        told.append("but it was never verified against eager PyTorch")
        sure = next((row for row in group.measured if row.verified), None)
        told += [f"of those that were, {_figures(sure, naming)}"] if sure is not None else []
    return "; ".join(told)


def _figures(row: RowRecord, naming: Naming) -> str:
    told = f"{naming.in_group(row)}, {number(row.p50_ms)} ms"
    return f"{told}, {by}" if (by := speed_up(row)) else told


def _list(names: Sequence[str], most: int = 3) -> str:
    shown = list(names[:most])
    rest = len(names) - len(shown)
    shown += [f"{rest} more"] if rest else []
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def headline(report: BenchReport) -> str:
    """What was found, in a few words; first of all whether it can be believed."""
    measured = [row for row in report.rows if row.ok]
    if not measured:
        return "Nothing could be measured"
    if is_unsound(report):
        return "This run is unsound: its figures decide nothing"
    naming = Naming(report.rows)
    firsts = {group.title: group.measured[0] for group in groups(report) if len(group.measured) > 1}
    names = list(dict.fromkeys(naming.of_series(row) for row in firsts.values()))
    if not names:
        told = count(len(measured), "case")
        return f"{told} measured"
    if len(names) > 1:
        batches = len({row.batch_size for row in firsts.values()})
        return f"No one is fastest at all {f'{batches} batch sizes' if batches > 1 else 'cases'}"
    only = next(iter(firsts.values()))
    by = speed_up(only).partition(" (")[0] if len(firsts) == 1 else ""
    level = any(ties(group) for group in groups(report) if len(group.measured) > 1)
    told = f"{names[0]} is {'among the fastest' if level else 'fastest'}"
    told += "" if only.verified else ", but never verified"
    told += ", as far as a disturbed run can tell" if any(row.disturbed for row in firsts.values()) else ""
    return f"{told}: {by}" if by else told


@dataclass(frozen=True)
class Caution:
    """What a reader has to know before the figures.

    Attributes:
        kind: ``failed`` for what is wrong, ``unverified`` for what is less than it should be.
        title: in a few words.
        lines: what it is about, one each.
        first: whether it is of the whole run, so that no figure can be read without it.
    """

    kind: str
    title: str
    lines: tuple[str, ...] = ()
    first: bool = False


def cautions(report: BenchReport) -> list[Caution]:
    """Everything that takes from the figures, the worst first."""
    naming = Naming(report.rows)
    found = [_unsound(report), _interrupted(report)]
    failed = [row for row in report.rows if not row.ok]
    if failed:
        lines = tuple(f"{naming.whole(row)}: {row.error or 'failed without a word'}" for row in failed)
        found.append(Caution("failed", f"{len(failed)} of {count(len(report.rows), 'case')} failed", lines))
    shaken = [row for row in report.rows if row.ok and row.disturbed]
    if shaken:
        lines = tuple(f"{naming.whole(row)}: {'; '.join(row.disturbed)}" for row in shaken)
        found.append(Caution("unverified", "Disturbed while it was measured", lines))
    unchecked = [row for row in report.rows if row.ok and not row.verified]
    if unchecked:
        names = tuple(dict.fromkeys(row.artefact for row in unchecked))
        found.append(Caution("unverified", "Never verified: parity with eager PyTorch was not checked", names))
    return [entry for entry in found if entry is not None]


def _unsound(report: BenchReport) -> Caution | None:
    if not is_unsound(report):
        return None
    told = soundness(report)
    return Caution("failed", "Unsound: no figure of this run should be used", (told,), first=True)


def _interrupted(report: BenchReport) -> Caution | None:
    if not report.interrupted:
        return None
    told = "What was measured by then is shown; medians rest on fewer rounds than were asked for."
    return Caution("unverified", "Interrupted before its end", (told,), first=True)


def soundness(report: BenchReport) -> str:
    """What the same artefact against itself has shown, as a sentence."""
    found = report.soundness
    if found is None:
        return "The same artefact was not measured against itself: nothing shows that equal comes out as equal."
    if found.ratio is None:
        return f"The same artefact against itself: {found.reason or 'nothing is known'}."
    sure = report.settings.get("soundness_confidence")
    sure = f"{100 * sure:g}" if isinstance(sure, float) else "95"
    interval = f" ({sure} %: {between(found.ratio_interval)})" if found.ratio_interval else ""
    told = f"The same artefact against itself took {times(found.ratio)} × its own time{interval}"
    if found.sound:
        return f"{told}, which holds 1: this run sees no difference where there is none."
    return f"{told}, which does not hold 1: it sees differences where there are none."
