"""The coordinator: starts the workers, lets one at a time measure, gathers what they give.

Cases with the same device and batch size are peers: they are compared, so their workers live side
by side and take turns. Groups of peers follow one another, which bounds the memory.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.bench import process
from vit_deploy.bench.listener import Quiet
from vit_deploy.bench.process import CaseFailed
from vit_deploy.bench.result import BenchResult, Measured, find_baseline, make_row
from vit_deploy.bench.statistics import CONFIDENCE, relative_half_width, samples_needed
from vit_deploy.errors import UsageFailed
from vit_deploy.protocols import Silent
from vit_deploy.worker_process import thread_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.listener import Listener
    from vit_deploy.bench.process import CaseWorker, StartWorker
    from vit_deploy.protocols import Progress

NS_PER_S = 1_000_000_000
MINIMUM_ROUNDS = 3
"""Precision is not believed before this many rounds: samples of one round are alike."""

MAXIMUM_SAMPLES = 10_000
"""Samples of one round: enough for p99, and a result that can still be read."""


LONGEST_S = 1_000_000
"""Nothing takes longer, in seconds, nor has more rounds."""


@dataclass(frozen=True)
class Settings:
    """What governs a run.

    Attributes:
        duration_s: time for the samples of each case; its warm-up may last as long again.
        rounds: into how many turns that time is cut.
        precision_target: the relative half-width of the median's 95 % confidence interval at which
            a group of peers stops early, once each of them has it.
        seed: of the order in which the workers take turns.
        timeout_s: how long a worker may take for an answer, beyond the time it was given.
        stable: the relative difference of two windows' medians at which a warm-up ends.
    """

    duration_s: float = 10.0
    rounds: int = 5
    precision_target: float = 0.01
    seed: int = 0
    timeout_s: float = 300.0
    stable: float = 0.05

    def __post_init__(self) -> None:
        checks = {
            "duration": (self.duration_s, 0 < self.duration_s <= LONGEST_S),
            "rounds": (self.rounds, 1 <= self.rounds <= LONGEST_S),
            "precision-target": (self.precision_target, 0 < self.precision_target <= LONGEST_S),
            "timeout": (self.timeout_s, 0 < self.timeout_s <= LONGEST_S),
        }
        for name, (value, fits) in checks.items():
            if not fits:
                raise UsageFailed(f"--{name} is {value}", expected=f"a number above 0, and at most {LONGEST_S}")

    @property
    def slice_ns(self) -> int:
        """Time for the samples of one case in one round."""
        return int(self.duration_s * NS_PER_S / self.rounds)

    @property
    def minimum_samples(self) -> int:
        """Samples of one round however long they last: so many that the median gets an interval."""
        return -(-samples_needed(0.5) // self.rounds)


def run_bench(
    cases: Sequence[Case],
    settings: Settings,
    *,
    start_worker: StartWorker = process.start_worker,
    done: Mapping[str, Measured] | None = None,
    progress: Progress | None = None,
    listener: Listener | None = None,
) -> BenchResult:
    """Measure the cases; one that fails becomes a failed row.

    Args:
        cases: what to measure.
        settings: how long, how exactly, in which random order.
        start_worker: starts the worker of a case.
        done: what an earlier run has measured, by :attr:`~vit_deploy.bench.cases.Case.key`; peers that are
            all among it are not measured again.
        progress: told of each phase.
        listener: told of each turn, failure and finished group.

    Raises:
        UsageFailed: when there is nothing to measure.
    """
    if not cases:
        raise UsageFailed("there is nothing to measure", expected="at least one case")
    generator = random.Random(settings.seed)  # noqa: S311 - an order, no secret
    runs = [_Run(index, case, settings, start_worker) for index, case in enumerate(cases)]
    told_of = listener or Quiet()
    told_of.started(len(runs))
    order: list[tuple[int, ...]] = []
    for peers in dict.fromkeys(case.peers for case in cases):
        members = [run for run in runs if run.measured.case.peers == peers]
        kept = [(done or {}).get(run.measured.case.key) for run in members]
        if all(kept):
            for run, measured in zip(members, kept, strict=True):
                run.measured = measured or run.measured
            continue
        order += _Group(members, settings, generator, progress or Silent(), told_of).measure()
        told_of.group_done([run.measured for run in members])
    everyone = [run.measured for run in runs]
    rows = tuple(make_row(measured, find_baseline(measured, everyone)) for measured in everyone)
    told = {
        **asdict(settings),
        "confidence": CONFIDENCE,
        "clock": "perf_counter_ns",
        "thread_settings": {str(case.threads): thread_settings(case.threads) for case in cases},
    }
    return BenchResult(rows, tuple(order), told)


class _Run:
    """One case and its worker."""

    def __init__(self, index: int, case: Case, settings: Settings, start: StartWorker) -> None:
        self.index = index
        self._start = start
        self.measured = Measured(case)
        self._settings = settings
        self._worker: CaseWorker | None = None

    @property
    def alive(self) -> bool:
        return not self.measured.error

    @property
    def precise(self) -> bool:
        width = relative_half_width(self.measured.samples)
        return width is not None and width <= self._settings.precision_target

    def attempt(self, act: Callable[[], None]) -> None:
        """Do one act; a failure of the case ends its worker and stays with the case."""
        if not self.alive:
            return
        try:
            act()
        except CaseFailed as failure:
            self.measured.error = str(failure) or "the worker failed without a word"
            self.measured.exit_code = failure.exit_code
            self.measured.worker_exit = failure.worker_exit
            self.close(at_once=True)

    def start(self) -> None:
        self._worker = self._start(self.measured.case)
        opened = self._ask("open", case=self.measured.case.to_dict(), spawned_ns=self._worker.spawned_ns)
        self.measured.facts = opened["facts"]
        self.measured.cold_start_ns = opened["cold_start_ns"]

    def warm(self) -> None:
        limit = self._settings.duration_s
        self.measured.warm_up = self._ask(
            "warm", limit, limit_ns=int(limit * NS_PER_S), tolerance=self._settings.stable
        )

    def take_turn(self) -> None:
        settings = self._settings
        taken = self._ask(
            "measure",
            settings.slice_ns / NS_PER_S,
            budget_ns=settings.slice_ns,
            minimum=settings.minimum_samples,
            maximum=MAXIMUM_SAMPLES,
        )
        self.measured.rounds.append(taken["samples_ns"])
        self.measured.elapsed_ns.append(taken["elapsed_ns"])
        self.measured.rested &= taken["rested"]

    def finish(self) -> None:
        peaks = self._ask("finish")
        self.measured.peak_rss_bytes = peaks["peak_rss_bytes"]
        self.measured.peak_device_bytes = peaks["peak_device_bytes"]

    def _ask(self, command: str, extra_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        if self._worker is None:
            raise CaseFailed("the worker was never started")
        return self._worker.ask(command, self._settings.timeout_s + extra_s, **arguments)

    def close(self, *, at_once: bool = False) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close(at_once=at_once)


class _Group:
    """Peers, which take turns."""

    def __init__(
        self,
        runs: Sequence[_Run],
        settings: Settings,
        generator: random.Random,
        progress: Progress,
        listener: Listener,
    ) -> None:
        self._runs = runs
        self._settings = settings
        self._random = generator
        self._progress = progress
        self._listener = listener

    def measure(self) -> list[tuple[int, ...]]:
        """Take every member from cold to finished; the order of each round by index."""
        at_once = True
        try:
            self._phase("starting")
            self._in_random_order(lambda run: run.start())
            self._phase("warming up")
            self._in_random_order(lambda run: run.warm())
            order = []
            for number in range(1, self._settings.rounds + 1):
                if self._is_done(number):
                    break
                self._phase(f"round {number} of {self._settings.rounds}")
                order.append(self._in_random_order(self._take_turn))
            self._in_random_order(lambda run: run.finish())
            at_once = False
            return order
        finally:
            for run in self._runs:
                run.close(at_once=at_once)

    def _take_turn(self, run: _Run) -> None:
        run.take_turn()
        self._listener.round_done(run.index, run.measured)

    def _is_done(self, number: int) -> bool:
        living = self._living()
        return not living or (number > MINIMUM_ROUNDS and all(run.precise for run in living))

    def _living(self) -> list[_Run]:
        return [run for run in self._runs if run.alive]

    def _in_random_order(self, act: Callable[[_Run], None]) -> tuple[int, ...]:
        # The order is drawn over all members, so that one's failure does not change the others' orders.
        shuffled = self._random.sample(list(self._runs), len(self._runs))
        turns = [run for run in shuffled if run.alive]
        for run in turns:
            run.attempt(lambda run=run: act(run))  # type: ignore[misc]
            if not run.alive:
                self._listener.case_failed(run.index, run.measured)
            self._progress.advance()
        return tuple(run.index for run in turns)

    def _phase(self, text: str) -> None:
        device, batch_size, _ = self._runs[0].measured.case.peers
        self._progress.phase(f"batch {batch_size} on {device}: {text}", len(self._living()))
