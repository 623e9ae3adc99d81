"""Find the way to run a bundle that is best on this machine, among its proven artefacts.

The search measures with :mod:`vit_deploy.bench`: worker processes that take turns, medians with intervals,
ratios paired round by round. What it finds holds for this machine, this load and these versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.coordinator import run_bench
from vit_deploy.bench.result import BenchResult
from vit_deploy.deploy.tuning.decision import Decision, decide
from vit_deploy.deploy.tuning.final import final
from vit_deploy.deploy.tuning.grid import Wish, candidates_of
from vit_deploy.deploy.tuning.race import Race, Trial
from vit_deploy.errors import BudgetUnmet, RunFailed, UsageFailed
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.bench.result import Row
    from vit_deploy.bundle.default import DefaultRecord, Objective
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.deploy.tuning.budget import Limit
    from vit_deploy.deploy.tuning.grid import Candidate, LeftOut
    from vit_deploy.deploy.tuning.race import Measure
    from vit_deploy.protocols import Progress

DEFAULT_TIME_S = 120.0

LARGEST_HEAT = 6
WORKER_BYTES = 500_000_000
"""What a worker takes beside its artefact: Python, PyTorch or another library, activations."""
FOLD = 4
"""How many times its files' bytes an opened artefact takes at most, for all that was seen."""


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
        objective: what was to be best.
        budget: what the winner had to hold.
        trials: everything that was tried, the best first.
        left_out: what was not tried, and why.
        decision: who won and why; ``None`` where nothing holds the budget.
        disturbed: what other processes did during the last run, the final.
        result: the last row of each trial, as a result of :func:`vit_deploy.bench.run_bench`.
    """

    objective: Objective
    budget: tuple[Limit, ...]
    trials: tuple[Trial, ...]
    left_out: tuple[LeftOut, ...]
    decision: Decision | None
    disturbed: tuple[str, ...]
    result: BenchResult

    @property
    def front(self) -> tuple[str, ...]:
        """The keys of those that no other beats in latency, throughput and memory at once.

        By point estimates, from the longest run of each.
        """
        rows = [entry.row for entry in self.trials if entry.row is not None and entry.row.ok]
        return tuple(row.key for row in rows if not any(_beats(other, row) for other in rows))

    @property
    def doubt(self) -> str:
        """Why the final is no evidence, if one of it was not equal to itself; empty where nothing was seen."""
        told = self.result.soundness
        return "" if told is None or told["sound"] else str(told["reason"])

    @property
    def best(self) -> Trial | None:
        """The winner; where nothing holds the budget, the best of what was measured."""
        measured = (entry for entry in self.trials if entry.measured)
        return self.decision.winner if self.decision else next(measured, None)

    def require_winner(self) -> Decision:
        """The decision.

        Raises:
            BudgetUnmet: when nothing holds the budget, naming the best that was.
        """
        if self.decision is not None:
            return self.decision
        best = self.best
        asked = ", ".join(limit.text for limit in self.budget)
        if best is None or best.row is None:
            raise BudgetUnmet(f"nothing was measured that could hold {asked}")
        has = ", ".join(f"{limit.metric} {limit.told(best.row)}" for limit in self.budget)
        raise BudgetUnmet(
            f"nothing that was measured holds the budget; the best was {best.case.key} with {has}",
            expected=asked,
            next_command="tune with another --budget, with --time for longer runs, or export in other formats "
            "and precisions",
        )


def tune(
    bundle: Bundle,
    objective: Objective = "latency",
    *,
    budget: Sequence[Limit] = (),
    time_s: float = DEFAULT_TIME_S,
    wish: Wish | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    measure: Measure | None = None,
) -> Tuning:
    """Search among the artefacts that passed parity; nothing is written.

    Args:
        bundle: what is tuned.
        objective: ``latency``, the median time of an inference at batch 1; ``throughput``, images per
            second; ``memory``, the peak of a process that serves it.
        budget: what the winner must hold, as :func:`vit_deploy.deploy.tuning.budget.parse_budget` reads it.
        time_s: seconds that the search may take; a run under way is not cut short.
        wish: what the search is restricted to.
        seed: of the order in which workers take turns.
        progress: told how far it is.
        measure: what measures, with the signature of :func:`vit_deploy.bench.run_bench`, which it is else.

    Raises:
        UsageFailed: when there is nothing to try.
        HostileInput: when a file was changed.
        RunFailed: when everything that was tried failed.
        KeyboardInterrupt: when the user stopped it.
    """
    cases, left_out = candidates_of(bundle, objective, wish)
    if not cases:
        raise _nothing_to_try(bundle, left_out)
    trials = [Trial(case) for case in cases]
    heat = _side_by_side(bundle, cases)
    race = Race(trials, objective, budget, time_s, seed, heat, measure or run_bench, progress or Silent())
    race.run()
    holding = final(race)
    decision = decide(holding, objective) if holding else None
    _tell_apart(holding, decision, objective)
    if not any(entry.measured for entry in trials):
        raise _all_failed(trials)
    ranked = sorted(trials, key=lambda entry: (entry is not (decision and decision.winner), race.rank(entry)))
    rows = tuple(_alone(entry.row) for entry in ranked if entry.row is not None)
    last = race.last or BenchResult((), (), {})
    result = BenchResult(rows, (), last.settings, soundness=last.soundness, machine=last.machine)
    return Tuning(
        objective, tuple(budget), tuple(ranked), tuple(left_out), decision, _disturbances(last), result
    )


def default_record(tuning: Tuning) -> DefaultRecord:
    """The winner as a bundle's manifest keeps it.

    Raises:
        BudgetUnmet: when there is none.
    """
    from vit_deploy import __version__
    from vit_deploy.bundle.default import DefaultRecord, FiguresRecord, MachineRecord

    winner = tuning.require_winner().winner
    case, row = winner.case, winner.row
    if row is None or row.p50_ms is None or row.images_per_s is None:
        raise RunFailed(f"{case.key} won and has no figures")
    backend = str((row.facts or {}).get("version", ""))
    return DefaultRecord(
        artefact=case.artefact,
        files=dict(case.files),
        backend=case.backend,
        device=case.device,
        threads=case.threads,
        streams=case.streams,
        batch_size=case.batch_size,
        objective=tuning.objective,
        budget=[limit.text for limit in tuning.budget],
        environment=MachineRecord.here(case.device),
        figures=FiguresRecord(
            p50_ms=_four_digits(row.p50_ms),
            images_per_s=_four_digits(row.images_per_s),
            peak_rss_bytes=row.peak_rss_bytes,
        ),
        measured_with={"vit-deploy": __version__, **({case.backend: backend} if backend else {})},
    )


def _tell_apart(holding: Sequence[Trial], decision: Decision | None, objective: Objective) -> None:
    """What became of each finalist."""
    from vit_deploy.deploy.tuning.score import UNITS, ratio_of

    if decision is None or decision.winner.row is None:
        return
    decision.winner.status, decision.winner.why = "winner", decision.sentence
    for entry in holding:
        if entry is decision.winner or entry.row is None:
            continue
        ratio = ratio_of(entry.row, decision.winner.row, objective)
        words = f"{ratio.in_words} {UNITS[objective]} of {decision.winner.case.key}" if ratio else ""
        entry.leave("worse" if ratio and ratio.low > 1 else "no difference", words)


def _side_by_side(bundle: Bundle, cases: Sequence[Candidate]) -> int:
    """How many workers fit into the memory that is free, two at least."""
    import psutil

    largest = max(bundle.records[case.artefact].nbytes for case in cases)
    room = psutil.virtual_memory().available // (WORKER_BYTES + FOLD * largest)
    return max(2, min(LARGEST_HEAT, int(room)))


def _beats(row: Row, other: Row) -> bool:
    mine, theirs = _point(row), _point(other)
    return all(one <= two for one, two in zip(mine, theirs, strict=True)) and mine != theirs


def _point(row: Row) -> tuple[float, float, float]:
    return row.p50_ms or float("inf"), -(row.images_per_s or 0.0), row.peak_rss_bytes or float("inf")


def _alone(row: Row) -> Row:
    """A row without its ratios: the rows of a search were not all measured beside one baseline."""
    none: dict[str, Any] = dict.fromkeys(
        (
            "ratio",
            "ratio_interval",
            "throughput_ratio",
            "throughput_ratio_interval",
            "baseline",
            "baseline_key",
        )
    )
    return replace(row, **none)


def _disturbances(result: BenchResult) -> tuple[str, ...]:
    """What disturbed the rows of a run, each kind once: the figures differ from row to row."""
    kinds: dict[str, str] = {}
    for row in result.rows:
        for words in row.disturbed:
            kinds.setdefault(re.sub(r"[0-9.]+", "", words), words)
    return tuple(kinds.values())


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def _nothing_to_try(bundle: Bundle, left_out: Sequence[LeftOut]) -> UsageFailed:
    reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in left_out)
    mends = [entry.mend for entry in left_out if entry.mend]
    return UsageFailed(
        f"there is nothing to tune in the bundle at {str(bundle.path)!r}" + (f": {reasons}" if reasons else ""),
        expected="an artefact that passed parity, and a backend that opens it here",
        next_command=mends[0] if mends else f"vit-deploy export -m MODEL --format onnx -o {bundle.path}",
    )


def _all_failed(trials: Sequence[Trial]) -> RunFailed:
    failed = next((entry for entry in trials if entry.status == "failed"), trials[0])
    return RunFailed(
        f"everything that was tried failed; {failed.case.key}: {failed.why}",
        expected="at least one candidate that runs",
        next_command="vit-deploy doctor",
    )
