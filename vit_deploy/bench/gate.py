"""Performance gates: ``p50 > +3%`` fails a build, but only where that is known beyond doubt.

A gate names what must not be. ``+3%`` is against an earlier result, ``50ms`` and ``2GB`` are of the new one
alone. A figure that was sampled has a 95 % interval: the gate fails where all of it lies beyond the limit,
holds where none of it does, and is not decided where the limit lies within. A figure that a run measures
once (cold start, memory) has none, and is judged by its value.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.gate_grammar import Gate, Outcome, in_unit, parse_gate, percent
from vit_deploy.errors import GateFailed, UsageFailed, VitDeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vit_deploy.bench.compare import Comparison, RowChange
    from vit_deploy.bench.document import BenchReport, RowRecord
    from vit_deploy.bench.metrics import Metric, Reading

__all__ = ["Finding", "Gate", "Judgement", "NotJudged", "judge_comparison", "judge_result", "parse_gate"]


class NotJudged(VitDeployError):
    """The measurement is not fit to be judged (exit 1)."""


@dataclass(frozen=True)
class Finding:
    """What one gate says of one row."""

    gate: str
    key: str
    outcome: Outcome
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.gate}: {self.text}"


@dataclass(frozen=True)
class Judgement:
    """What all gates say of all rows."""

    findings: tuple[Finding, ...]

    def of(self, *outcomes: Outcome) -> tuple[Finding, ...]:
        """The findings with one of these outcomes."""
        return tuple(entry for entry in self.findings if entry.outcome in outcomes)

    @property
    def passed(self) -> bool | None:
        """Whether every gate holds on every row; ``None`` where some could not be decided."""
        if self.of("failed"):
            return False
        return None if self.of("undecided", "refused") or not self.findings else True

    @property
    def judged(self) -> bool:
        """Whether anything could be judged at all."""
        return bool(self.of("failed", "holds", "undecided"))

    def require(self, *, strict: bool = False) -> None:
        """Raise where a gate failed.

        Args:
            strict: whether what is not decided counts as failed.

        Raises:
            GateFailed: listing every row that failed.
            NotJudged: when nothing at all could be judged.
        """
        wrong = self.of("failed", "undecided", "refused") if strict else self.of("failed")
        if wrong:
            lines = "".join(f"\n    {entry}" for entry in wrong)
            raise GateFailed(
                f"{len(wrong)} of {len(self.findings)} gates did not hold:{lines}",
                expected="every gate holds" + (", and is decided, as --strict says" if strict else ""),
                next_command="find what made it slower, or measure longer if it is in doubt (--duration 60)",
            )
        if not self.judged:
            reasons = "".join(f"\n    {entry}" for entry in self.findings)
            raise NotJudged(
                f"no gate could be judged on any row{reasons}",
                expected="a row of both results, measured undisturbed",
                next_command="measure again, on a machine that does nothing else",
            )

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data, as it stands in the JSON document."""
        return [asdict(entry) for entry in self.findings]


def require_absolute(gates: Sequence[Gate]) -> None:
    """Refuse a gate that one result by itself cannot be held against.

    Raises:
        UsageFailed: for a gate that is against an earlier result.
    """
    for gate in gates:
        if gate.relative:
            raise UsageFailed(
                f"{gate.text!r} is against an earlier result, and there is none",
                expected=f"a figure of this result, such as 'p99 > 50ms', not {gate.text!r}",
                next_command=f"vit-deploy bench compare OLD.json NEW.json --fail-if {gate.text!r}",
            )


def judge_result(gates: Sequence[Gate], report: BenchReport) -> Judgement:
    """Judge one result by itself.

    Raises:
        UsageFailed: for a gate that is against an earlier result.
        NotJudged: when the run was unsound or was interrupted.
    """
    require_absolute(gates)
    _require_fit("the run", report)
    return Judgement(
        tuple(
            _failed_row(gate, row) if not row.ok else _absolute(gate, row, report)
            for gate in gates
            for row in report.rows
        )
    )


def judge_comparison(gates: Sequence[Gate], comparison: Comparison) -> Judgement:
    """Judge the later of two results, beside the earlier one.

    A row that held before and failed or is missing now fails each gate: no figure is worse than none.

    Raises:
        NotJudged: when either run was unsound or was interrupted.
    """
    _require_fit("OLD", comparison.old)
    _require_fit("NEW", comparison.new)
    return Judgement(tuple(entry for gate in gates for entry in _of_comparison(gate, comparison)))


def _of_comparison(gate: Gate, comparison: Comparison) -> Iterator[Finding]:
    lost = comparison.lost
    for key, reason in lost.items():
        yield Finding(gate.text, key, "failed", f"the row held before; {reason}")
    for row in comparison.rows:
        if row.key in lost:
            continue
        if not row.new.ok:
            yield Finding(gate.text, row.key, "undecided", "it failed in OLD and in NEW")
        elif not gate.relative:
            yield _absolute(gate, row.new, comparison.new)
        elif not row.old.ok:
            yield Finding(gate.text, row.key, "undecided", "it failed in OLD")
        else:
            finding = _against(gate, row, comparison)
            if finding is not None:
                yield finding
    for new in comparison.only_new:
        if not gate.relative:
            yield _absolute(gate, new, comparison.new) if new.ok else _failed_row(gate, new)


def _require_fit(word: str, report: BenchReport) -> None:
    soundness = report.soundness
    if soundness is not None and not soundness.sound:
        told = soundness.reason or "the same artefact, measured against itself, was told apart"
        raise NotJudged(
            f"{word} is unsound, and no gate is judged on it: {told}",
            expected="a run in which the same artefact is as fast as itself",
            next_command="measure again, on a machine that does nothing else, with a longer --duration",
        )
    if report.interrupted:
        raise NotJudged(
            f"{word} was interrupted, and no gate is judged on a part of a run",
            expected="a run that came to its end",
            next_command="vit-deploy bench with the same words and --resume",
        )


def _failed_row(gate: Gate, row: RowRecord) -> Finding:
    return Finding(gate.text, row.key, "failed", f"it failed: {row.error or 'no reason was told'}")


def _against(gate: Gate, row: RowChange, comparison: Comparison) -> Finding | None:
    """A relative gate on a row of both; ``None`` for the ratio of the baseline to itself."""
    metric = gate.metric
    if metric.name == "ratio" and row.new.baseline_key == row.key == row.old.baseline_key:
        return None
    disturbed = [
        *_disturbed(metric, row.old, comparison.old, "OLD"),
        *_disturbed(metric, row.new, comparison.new, "NEW"),
    ]
    if disturbed:
        return Finding(gate.text, row.key, "refused", "; ".join(disturbed))
    change = row.changes[metric.name]
    if change.relative is None:
        return Finding(gate.text, row.key, "undecided", change.why or "there is nothing to divide by")
    if change.interval is None and not metric.once:
        text = f"{percent(change.relative)}, not decided: {change.why or 'it has no interval'}"
        return Finding(gate.text, row.key, "undecided", text)
    return _decided(gate, row.key, change.relative, change.interval, percent)


def _absolute(gate: Gate, row: RowRecord, report: BenchReport) -> Finding:
    disturbed = _disturbed(gate.metric, row, report, "the run")
    if disturbed:
        return Finding(gate.text, row.key, "refused", "; ".join(disturbed))
    reading: Reading = gate.metric.read(row)
    if reading.value is None:
        # The baseline's ratio to itself is 1 by definition, and says nothing.
        outcome: Outcome = (
            "holds" if row.key == row.baseline_key and gate.metric.name == "ratio" else "undecided"
        )
        return Finding(gate.text, row.key, outcome, reading.why)

    def show(value: float) -> str:
        return in_unit(value, gate.metric.unit)

    interval = reading.interval
    if interval is None and not gate.metric.once:
        text = f"{show(reading.value)}, not decided: {reading.why}"
        return Finding(gate.text, row.key, "undecided", text)
    return _decided(gate, row.key, reading.value, interval, show)


def _decided(
    gate: Gate,
    key: str,
    value: float,
    interval: tuple[float, float] | None,
    show: Callable[[float], str],
) -> Finding:
    low, high = interval or (value, value)
    outcome = gate.decide(low, high)
    spread = f" ({show(low)} to {show(high)} at 95 %)" if interval else " (measured once)"
    after = ": the limit lies within the interval, not decided" if outcome == "undecided" else ""
    return Finding(gate.text, key, outcome, f"{show(value)}{spread}{after}")


def _disturbed(metric: Metric, row: RowRecord, report: BenchReport, word: str) -> list[str]:
    """Why a figure of this row may not be believed; of a ratio, its baseline's samples are a part."""
    if not metric.timed:
        return []
    rows = [row]
    if metric.name == "ratio" and row.baseline_key and row.baseline_key != row.key:
        rows += [entry for entry in [report.row(row.baseline_key)] if entry is not None]
    reasons = dict.fromkeys(reason for entry in rows for reason in entry.disturbed)
    return [f"disturbed in {word}: {reason}" for reason in reasons]
