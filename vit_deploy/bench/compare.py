"""Two results beside each other: what became slower, by how much, and how sure that is.

Rows meet by their key. The two runs were not interleaved, so what the machine did on either day is in the
absolute figures; see :mod:`vit_deploy.bench.metrics` for what their intervals cover, and prefer ``ratio``,
in which the machine cancels, where both runs hold the same baseline.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vit_deploy.bench.likeness import Difference, require_like
from vit_deploy.bench.metrics import METRICS, Metric, Reading, change_between

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vit_deploy.bench.document import BenchReport, RowRecord

Word = Literal["better", "worse", "same", "unknown"]


@dataclass(frozen=True)
class Change:
    """One figure of one row in both runs.

    Attributes:
        metric: its name in :data:`~vit_deploy.bench.metrics.METRICS`.
        old: the figure before, in the metric's unit.
        new: the figure now.
        relative: by how much it grew: 0.03 is 3 % more.
        interval: its 95 % interval, made of those of both runs.
        why: why there is no figure, or no interval.
        word: ``better`` or ``worse`` where the interval leaves out no change at all; ``unknown`` without one.
    """

    metric: str
    old: float | None
    new: float | None
    relative: float | None = None
    interval: tuple[float, float] | None = None
    why: str = ""
    word: Word = "unknown"


@dataclass(frozen=True)
class RowChange:
    """One row that both results have.

    Attributes:
        old: before.
        new: now.
        changes: by metric, in the order of the table; empty where the row failed in either.
        notes: what is to be known of it: other bytes, disturbed samples, a failure.
    """

    old: RowRecord
    new: RowRecord
    changes: Mapping[str, Change]
    notes: tuple[str, ...]

    @property
    def key(self) -> str:
        """What both rows are found by."""
        return self.new.key

    @property
    def files_changed(self) -> tuple[str, ...]:
        """Names of the artefact's files whose bytes are others now, or which only one of the runs had."""
        was, now = self.old.files, self.new.files
        return tuple(name for name in dict.fromkeys([*was, *now]) if was.get(name) != now.get(name))


@dataclass(frozen=True)
class Comparison:
    """Everything that was found.

    Attributes:
        old: the earlier result.
        new: the later one.
        rows: those of both, in the order of the later one.
        only_old: rows that the later one has not.
        only_new: rows that the earlier one had not.
        differences: of their environments, allowed ones included.
    """

    old: BenchReport
    new: BenchReport
    rows: tuple[RowChange, ...]
    only_old: tuple[RowRecord, ...] = ()
    only_new: tuple[RowRecord, ...] = ()
    differences: tuple[Difference, ...] = field(default=())

    @property
    def lost(self) -> dict[str, str]:
        """The rows that held before, and failed or are missing now: why, by key."""
        skipped = {entry.backend: entry.reason for entry in self.new.skipped}
        found = {
            row.key: "it is missing" + (f": {skipped[row.backend]}" if row.backend in skipped else "")
            for row in self.only_old
            if row.ok
        }
        failed = {
            row.key: f"it failed: {row.new.error or 'no reason was told'}"
            for row in self.rows
            if row.old.ok and not row.new.ok
        }
        return {**found, **failed}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in the JSON document."""
        return {
            "rows": [_row_dict(row) for row in self.rows],
            "only_old": [row.key for row in self.only_old],
            "only_new": [row.key for row in self.only_new],
            "lost": [{"key": key, "reason": reason} for key, reason in self.lost.items()],
            "differences": [asdict(entry) for entry in self.differences],
        }


def compare(old: BenchReport, new: BenchReport, allow_different: Iterable[str] = ()) -> Comparison:
    """Compare two results.

    Args:
        old: the earlier one.
        new: the later one.
        allow_different: names of differences of the environments that are meant.

    Raises:
        UsageFailed: when the environments are unlike in what was not allowed.
    """
    found = require_like(old, new, allow_different)
    before = {row.key: row for row in old.rows}
    after = {row.key: row for row in new.rows}
    return Comparison(
        old=old,
        new=new,
        rows=tuple(_row(before[key], row, old, new) for key, row in after.items() if key in before),
        only_old=tuple(row for key, row in before.items() if key not in after),
        only_new=tuple(row for key, row in after.items() if key not in before),
        differences=tuple(found),
    )


def _row(was: RowRecord, now: RowRecord, old: BenchReport, new: BenchReport) -> RowChange:
    changes = {}
    if was.ok and now.ok:
        for metric in METRICS.values():
            before, after = metric.read(was), metric.read(now)
            if metric.name == "ratio" and before.value and after.value and was.baseline_key != now.baseline_key:
                after = Reading(None, why="its baseline is another row now")
            changes[metric.name] = _change(metric, before, after)
    bare = RowChange(was, now, changes, ())
    return RowChange(was, now, changes, tuple(_notes(bare, old, new)))


def _change(metric: Metric, before: Reading, after: Reading) -> Change:
    relative, interval = change_between(before, after)
    why = "; ".join(dict.fromkeys(entry.why for entry in (before, after) if entry.why))
    return Change(metric.name, before.value, after.value, relative, interval, why, _word(metric, interval))


def _word(metric: Metric, interval: tuple[float, float] | None) -> Word:
    if interval is None:
        return "unknown"
    low, high = interval
    if low <= 0 <= high:
        return "same"
    return "worse" if (low > 0) == metric.lower_is_better else "better"


def _notes(row: RowChange, old: BenchReport, new: BenchReport) -> list[str]:
    notes = []
    if row.files_changed:
        notes.append(f"other bytes: {', '.join(row.files_changed[:4])}")
    if row.new.baseline_key and row.new.baseline_key == row.old.baseline_key != row.key:
        was, now = old.row(row.new.baseline_key), new.row(row.new.baseline_key)
        if was is not None and now is not None and was.files != now.files:
            notes.append("the baseline has other bytes")
    for word, entry in (("OLD", row.old), ("NEW", row.new)):
        if not entry.ok:
            notes.append(f"failed in {word}: {entry.error or 'no reason was told'}")
        notes += [f"disturbed in {word}: {reason}" for reason in entry.disturbed]
    return notes


def _row_dict(row: RowChange) -> dict[str, Any]:
    new = row.new
    return {
        "key": row.key,
        "artefact": new.artefact,
        "backend": new.backend,
        "device": new.device,
        "batch_size": new.batch_size,
        "image_size": None if new.image_size is None else list(new.image_size),
        "threads": new.threads,
        "streams": new.streams,
        "ok": {"old": row.old.ok, "new": new.ok},
        "sha256": {"old": row.old.sha256, "new": new.sha256},
        "files_changed": list(row.files_changed),
        "changes": {name: asdict(change) for name, change in row.changes.items()},
        "notes": list(row.notes),
    }
