"""One case of a run and its worker: what the coordinator asks it, and what becomes of its failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.bench.launches import median_over_launches
from vit_deploy.bench.machine import Tally
from vit_deploy.bench.measured import Measured
from vit_deploy.bench.process import CaseFailed
from vit_deploy.bench.settings import MAXIMUM_SAMPLES, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.bench.bootstrap import Estimate
    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.process import CaseWorker, StartWorker
    from vit_deploy.bench.settings import Settings, Turns

STOPPED = "stopped by the user"


class Member:
    """One case and its worker.

    Attributes:
        index: its place among the cases of the run.
        measured: what it gave so far.
        tally: what the machine did in its turns.
    """

    def __init__(self, index: int, case: Case, settings: Settings, start: StartWorker) -> None:
        self.index = index
        self.measured = Measured(case)
        self.tally = Tally()
        self._settings = settings
        self._start = start
        self._worker: CaseWorker | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not failed."""
        return not self.measured.error

    @property
    def pid(self) -> int | None:
        """The process id of its worker, while it has one."""
        return self._worker.pid if self._worker is not None else None

    @property
    def step_ns(self) -> int:
        """How long a step lasts, as its warm-up saw it."""
        return int(self.measured.warm_up.get("step_ns", 0))

    @property
    def precise(self) -> bool:
        """Whether its median is known closely enough."""
        known = self._median()
        width = known.half_width if known else None
        return width is not None and width <= self._settings.precision_target

    def _median(self) -> Estimate | None:
        return median_over_launches(self.measured.rounds, self.measured.launch_lengths)

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
        """Start the worker and take it through its cold start."""
        self._worker = self._start(self.measured.case)
        opened = self._ask("open", case=self.measured.case.to_dict(), spawned_ns=self._worker.spawned_ns)
        if not self.measured.launch_lengths:
            self.measured.facts = opened["facts"]
            self.measured.cold_start_ns = opened["cold_start_ns"]
        self.measured.launch_lengths.append(0)

    def warm(self) -> None:
        """Warm up until it is stable, or for as long as its samples may take."""
        limit = self._settings.duration_s
        told = self._ask("warm", limit, limit_ns=int(limit * NS_PER_S), tolerance=self._settings.stable)
        first = self.measured.warm_up or told
        self.measured.warm_up = {**first, "settled": first["settled"] and told["settled"]}

    def launch_again(self) -> None:
        """End the worker and start another one, taken to where the first was before its first turn."""
        self.close()
        self.start()
        self.warm()

    def take_turn(self, turns: Turns) -> None:
        """Measure for one turn."""
        taken = self._ask(
            "measure",
            turns.budget_ns / NS_PER_S,
            budget_ns=turns.budget_ns,
            minimum=turns.minimum,
            maximum=MAXIMUM_SAMPLES,
        )
        self.measured.launch_lengths[-1] += 1
        self.measured.rounds.append(taken["samples_ns"])
        self.measured.elapsed_ns.append(taken["elapsed_ns"])
        self.measured.rested &= taken["rested"]

    def finish(self) -> None:
        """Ask for its peaks, and end it."""
        told = self._ask("finish")
        self.measured.peak_rss_bytes = told["peak_rss_bytes"]
        self.measured.peak_device_bytes = told["peak_device_bytes"]
        self.measured.gpu = told.get("gpu") or {}

    def stop(self) -> None:
        """Note that the user stopped the run; what was measured counts where it has an interval."""
        known = self._median()
        if self.alive and (known is None or known.interval is None):
            self.measured.error, self.measured.exit_code = STOPPED, 1

    def _ask(self, command: str, extra_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        if self._worker is None:
            raise CaseFailed("the worker was never started")
        return self._worker.ask(command, self._settings.timeout_s + extra_s, **arguments)

    def close(self, *, at_once: bool = False) -> None:
        """End the worker, if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close(at_once=at_once)
