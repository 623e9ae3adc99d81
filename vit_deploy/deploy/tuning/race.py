"""The search: many short runs, then longer ones for those that are still in it.

Successive halving (Jamieson & Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter
Optimization, AISTATS 2016) spends the same time on each rung and gives the survivors more of it. Here a
candidate leaves the race because the interval of its paired ratio to the leader says that it is worse, as
in racing (Maron & Moore, Hoeffding Races, NIPS 1993): never because of a point estimate alone, unless
there is no time to measure all again, and then it is told so.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vit_deploy.bench import Settings
from vit_deploy.deploy.tuning.score import UNITS, cost, ratio_of
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vit_deploy.bench.result import BenchResult, Row
    from vit_deploy.bundle.default import Objective
    from vit_deploy.deploy.tuning.budget import Limit
    from vit_deploy.deploy.tuning.grid import Candidate
    from vit_deploy.protocols import Progress

    Measure = Callable[..., BenchResult]

Status = Literal["winner", "no difference", "worse", "over budget", "failed", "no time", "in the race"]

FIRST_DURATION_S = 0.6
LONGEST_FINAL_S = 10.0
RUNGS = 4
FINALISTS = 3
FINAL_SHARE = 0.3
"""The share of the time that is kept for the final."""

CLEAR = 0.02
"""A candidate leaves where its whole interval is worse than the leader by more than this: the leader is the
best of many by chance too, and a difference below it is not worth a wrong farewell."""

NEVER_EARLY = 1e-9
LEAST_TIMEOUT_S = 120.0


@dataclass
class Trial:
    """One candidate on its way through the search.

    Attributes:
        case: what is tried.
        row: what its last, and longest, run gave; ``None`` before the first.
        status: how far it came.
        why: why it left the race, a sentence.
        runs: how many runs it was in.
    """

    case: Candidate
    row: Row | None = None
    status: Status = "in the race"
    why: str = ""
    runs: int = 0

    @property
    def measured(self) -> bool:
        """Whether there are figures of it."""
        return self.row is not None and self.row.ok

    def leave(self, status: Status, why: str) -> None:
        """Take it out of the race."""
        self.status, self.why = status, why


@dataclass
class Race:
    """The trials, the time they have, and how they are measured.

    Attributes:
        trials: in the order they are tried.
        objective: what is to be best.
        budget: what the winner must hold.
        time_s: seconds that the search may take; a run that is under way is not cut short.
        seed: of the order of turns and heats.
        heat: how many workers may live side by side.
        measure: :func:`vit_deploy.bench.run_bench`.
        progress: told of each phase.
        last: the result of the last run.
    """

    trials: list[Trial]
    objective: Objective
    budget: Sequence[Limit]
    time_s: float
    seed: int
    heat: int
    measure: Measure
    progress: Progress = field(default_factory=Silent)
    last: BenchResult | None = None

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._random = random.Random(self.seed)  # noqa: S311 - an order, no secret
        self._spent_s, self._opened = 0.0, 0

    @property
    def overhead_s(self) -> float:
        """Seconds that a candidate takes in a run beside its warm-up and its samples, as seen so far."""
        return max(0.0, self._spent_s / self._opened) if self._opened else 0.0

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._began + self.time_s - time.monotonic()

    def standing(self) -> list[Trial]:
        """Those still in the race, the best first by their last figures, the unmeasured last."""
        return sorted((entry for entry in self.trials if entry.status == "in the race"), key=self.rank)

    def rank(self, trial: Trial) -> float:
        """The trial's cost; infinite where there is none."""
        return cost(trial.row, self.objective) if trial.row is not None and trial.row.ok else float("inf")

    def run(self) -> list[Trial]:
        """Rung after rung, until those that are left fit into the final.

        Returns:
            Those to be tried in the final, the best first: the survivors, then the best of the others.
        """
        duration = FIRST_DURATION_S
        for rung in range(1, RUNGS + 1):
            self._rung(rung, duration)
            duration *= 2
            if len(self.standing()) <= FINALISTS or not self._thin_out(duration):
                break
        return self.standing()

    def _rung(self, rung: int, duration_s: float) -> None:
        """Measure everyone once, heat by heat; the best so far runs in each, for the others' ratios."""
        leader = self._best_of(self.trials)
        waiting = [entry for entry in self.standing() if entry is not leader]
        if rung > 1:
            self._random.shuffle(waiting)
        while waiting:
            heat = [*([leader] if leader else []), *waiting][: self.heat]
            if not self._has_time(len(heat), duration_s):
                for entry in waiting:
                    if entry.row is None:
                        entry.leave("no time", "there was no time to measure it: give --time more")
                return
            self.progress.phase(f"round {rung}: {len(waiting)} candidates to go")
            waiting = [entry for entry in waiting if entry not in heat]
            self.heat_of(heat, duration_s)
            best = self._best_of(heat)
            if best is not None:
                self._drop_worse(heat, best)
            leader = best or self._best_of(self.trials)

    def _best_of(self, trials: Sequence[Trial]) -> Trial | None:
        """The best that was measured and is still in the race, so not known to break the budget."""
        return min(
            (entry for entry in trials if entry.status == "in the race" and entry.measured),
            key=self.rank,
            default=None,
        )

    def _has_time(self, count: int, duration_s: float) -> bool:
        """Whether ``count`` more can be measured; the very first always are."""
        if not self._opened:
            return True
        needed = count * (self.overhead_s + 2 * duration_s)
        return needed <= self.left_s - FINAL_SHARE * self.time_s

    def heat_of(
        self, trials: Sequence[Trial], duration_s: float, *, soundness: bool = False, launches: int = 1
    ) -> list[Trial]:
        """Measure some side by side; those that fail or clearly break the budget leave the race.

        Args:
            trials: who takes turns.
            duration_s: time for the samples of each.
            soundness: whether one is measured against itself too.
            launches: how many processes each has in turn.

        Raises:
            KeyboardInterrupt: when the user stopped it.
        """
        settings = Settings(
            duration_s=duration_s,
            soundness=soundness,
            launches=launches,
            precision_target=NEVER_EARLY,
            seed=self._random.randrange(2**31),
            timeout_s=max(LEAST_TIMEOUT_S, self.time_s),
        )
        began = time.monotonic()
        # The phases of a heat say nothing to one who waits for the search.
        result = self.measure([entry.case for entry in trials], settings, progress=_Steps(self.progress))
        if result.interrupted:
            raise KeyboardInterrupt
        self._spent_s += time.monotonic() - began - 2 * duration_s * len(trials)
        self._opened += launches * len(trials)
        self.last = result
        rows = {row.key: row for row in result.rows}
        for entry in trials:
            self._take(entry, rows[entry.case.key])
        return [entry for entry in trials if entry.status == "in the race"]

    def _take(self, trial: Trial, row: Row) -> None:
        trial.row, trial.runs = row, trial.runs + 1
        if not row.ok:
            trial.leave("failed", row.error or "it failed without a word")
            return
        broken = [limit.text for limit in self.budget if limit.clearly_broken(row)]
        if broken:
            trial.leave("over budget", f"it does not hold {', '.join(broken)}")

    def _drop_worse(self, heat: Sequence[Trial], best: Trial) -> None:
        """Let go what the best of a heat beats by more than chance."""
        for entry in heat:
            if entry is best or entry.status != "in the race" or entry.row is None or best.row is None:
                continue
            ratio = ratio_of(entry.row, best.row, self.objective)
            if ratio is not None and ratio.low > 1 + CLEAR:
                entry.leave("worse", f"{ratio.in_words} {UNITS[self.objective]} of {best.case.key}")

    def _thin_out(self, duration_s: float) -> bool:
        """Keep as many as there is time to measure again; whether that is worth a rung."""
        standing = self.standing()
        each = self.overhead_s + 2 * duration_s
        fitting = int((self.left_s - FINAL_SHARE * self.time_s) / each)
        kept = min(len(standing), max(FINALISTS, fitting))
        for entry in standing[kept:]:
            entry.leave("no time", "it was behind, and there was no time to be sure of it: give --time more")
        return fitting >= kept > FINALISTS


class _Steps:
    """A progress that shows the steps of a run and not its phases."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def phase(self, text: str, total: int | None = None) -> None:
        """Ignored."""

    def advance(self, steps: int = 1) -> None:
        """Ignored: the search counts candidates."""

    @property
    def cancelled(self) -> bool:
        return self._progress.cancelled
