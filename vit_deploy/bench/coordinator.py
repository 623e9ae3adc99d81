"""The coordinator: starts the workers, lets one at a time measure, gathers what they give.

Cases with the same device, batch and image size are peers: they are compared, so their workers live side
by side and take turns. Groups of peers follow one another, which bounds the memory.
"""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vit_deploy.bench import process, soundness
from vit_deploy.bench.baseline import check_baseline, find_baseline
from vit_deploy.bench.group import Group
from vit_deploy.bench.listener import Quiet
from vit_deploy.bench.machine import Watch
from vit_deploy.bench.member import Member
from vit_deploy.bench.result import BenchResult
from vit_deploy.bench.rows import make_row
from vit_deploy.bench.settings import Settings
from vit_deploy.bench.statistics import CONFIDENCE
from vit_deploy.errors import UsageFailed
from vit_deploy.protocols import Silent
from vit_deploy.worker_process import thread_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.listener import Listener
    from vit_deploy.bench.measured import Measured
    from vit_deploy.bench.process import StartWorker
    from vit_deploy.protocols import Progress

__all__ = ["Settings", "run_bench"]


def run_bench(
    cases: Sequence[Case],
    settings: Settings,
    *,
    start_worker: StartWorker = process.start_worker,
    done: Mapping[str, Measured] | None = None,
    progress: Progress | None = None,
    listener: Listener | None = None,
) -> BenchResult:
    """Measure the cases; one that fails becomes a failed row, and Ctrl-C ends the run with what there is.

    Args:
        cases: what to measure; those with the role ``ceiling`` get no row, but bound the others'.
        settings: how long, how exactly, in which random order, against which baseline.
        start_worker: starts the worker of a case.
        done: what an earlier run has measured, by :attr:`~vit_deploy.bench.cases.Case.key`; peers that are
            all among it are not measured again.
        progress: told of each phase.
        listener: told of each turn, failure and finished group.

    Raises:
        UsageFailed: when there is nothing to measure, or the baseline is not among the cases.
    """
    if not any(case.role == "case" for case in cases):
        raise UsageFailed("there is nothing to measure", expected="at least one case")
    check_baseline(settings.baseline, cases)
    run = _Run(cases, settings, start_worker, progress or Silent(), listener or Quiet())
    run.measure(done or {})
    return run.result()


class _Run:
    """The groups of one run, one after the other."""

    def __init__(
        self,
        cases: Sequence[Case],
        settings: Settings,
        start: StartWorker,
        progress: Progress,
        listener: Listener,
    ) -> None:
        self._settings = settings
        self._start = start
        self._progress = progress
        self._listener = listener
        self._members = [Member(index, case, settings, start) for index, case in enumerate(cases)]
        self._random = random.Random(settings.seed)  # noqa: S311 - an order, no secret
        self._watch = Watch()
        self._order: list[tuple[int, ...]] = []
        self._twins: list[Measured] = []
        self._interrupted = False

    def measure(self, done: Mapping[str, Measured]) -> None:
        """Measure every group of peers that is not wholly in ``done``."""
        groups = {
            peers: [member for member in self._members if member.measured.case.peers == peers]
            for peers in dict.fromkeys(member.measured.case.peers for member in self._members)
        }
        self._listener.started(len(self._members) + self._settings.soundness)
        self._twins += [kept for kept in done.values() if kept.case.role == "twin"]
        fresh = [members for members in groups.values() if not _take_up(members, done)]
        for number, members in enumerate(fresh):
            if self._interrupted:
                for member in members:
                    member.stop()
                continue
            self._measure_group(members, with_twin=number == 0 and self._settings.soundness)

    def _measure_group(self, members: Sequence[Member], *, with_twin: bool) -> None:
        group = Group(members, self._settings, self._random, self._watch, self._progress, self._listener)
        group.measure(self._make_twin if with_twin else None)
        self._order += group.order
        self._interrupted = group.interrupted
        self._twins += [member.measured for member in group.members if member.measured.case.role == "twin"]
        if not group.interrupted:
            self._listener.group_done([member.measured for member in group.members])

    def _make_twin(self, member: Member) -> Member:
        twin = soundness.twin_of(member.measured.case)
        return Member(len(self._members), twin, self._settings, self._start)

    def result(self) -> BenchResult:
        """What was found so far."""
        everyone = [member.measured for member in self._members]
        ceilings = [measured for measured in everyone if measured.case.role == "ceiling"]
        holding = [ceiling for ceiling in ceilings if ceiling.samples and not ceiling.error]
        rows = tuple(
            make_row(measured, find_baseline(measured, everyone, self._settings.baseline), holding)
            for measured in everyone
            if measured.case.role == "case"
        )
        verdicts = [soundness.judge(twin, everyone) for twin in self._twins]
        return BenchResult(
            rows,
            tuple(self._order),
            self._told(),
            soundness=soundness.worst(verdicts),
            machine=self._watch.summary(),
            ceilings=_ceilings(ceilings),
            interrupted=self._interrupted,
        )

    def _told(self) -> dict[str, Any]:
        threads = dict.fromkeys(member.measured.case.threads for member in self._members)
        return {
            **asdict(self._settings),
            "confidence": CONFIDENCE,
            "soundness_confidence": soundness.CONFIDENCE,
            "clock": "perf_counter_ns",
            "thread_settings": {str(count): thread_settings(count) for count in threads},
        }


def _take_up(members: Sequence[Member], done: Mapping[str, Measured]) -> bool:
    """Take what was measured of a group earlier, where all of it was."""
    kept = [done.get(member.measured.case.key) for member in members]
    found = [measured for measured in kept if measured is not None]
    if len(found) < len(members):
        return False
    for member, measured in zip(members, found, strict=True):
        member.measured = measured
    return True


def _ceilings(measured: Sequence[Measured]) -> tuple[dict[str, Any], ...]:
    if not measured:
        return ()
    from vit_deploy.bench.ceiling import describe_ceiling

    return tuple(describe_ceiling(entry) for entry in measured)
