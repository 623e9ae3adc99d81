"""Peers, which are compared with each other: their workers live side by side and take turns.

A round gives each of them one turn, in an order that is drawn anew. Ceilings, which no ratio is taken to,
come along in every fourth round only. The rounds fall into launches: at the end of one every worker ends, and
another takes its place.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vit_deploy.bench import soundness
from vit_deploy.bench.baseline import find_baseline
from vit_deploy.bench.member import Member
from vit_deploy.bench.rows import latency_ratio, throughput_ratio
from vit_deploy.bench.settings import NS_PER_S, Turns
from vit_deploy.environment import usable_cores

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from vit_deploy.bench.listener import Listener
    from vit_deploy.bench.machine import Watch
    from vit_deploy.bench.settings import Settings
    from vit_deploy.protocols import Progress

FIRST_LOOK = 20
"""Precision is looked at after this many rounds, or all but a few, and then ever more seldom."""

LATER_LOOKS = 1.15
CEILING_EVERY = 4


class Group:
    """Peers, from cold to finished.

    Attributes:
        members: the cases, and the twin once there is one.
        order: for each round, the indices of the members in the order in which they measured.
        interrupted: whether the user stopped it.
    """

    def __init__(
        self,
        members: Sequence[Member],
        settings: Settings,
        generator: random.Random,
        watch: Watch,
        progress: Progress,
        listener: Listener,
    ) -> None:
        self.members = list(members)
        self.order: list[tuple[int, ...]] = []
        self.interrupted = False
        self._settings = settings
        self._random = generator
        self._watch = watch
        self._progress = progress
        self._listener = listener
        self._next_look = 0

    def measure(self, make_twin: Callable[[Member], Member] | None = None) -> None:
        """Take every member from cold to finished.

        Args:
            make_twin: makes the member that measures a case against itself; ``None`` for none.
        """
        at_once = True
        try:
            self._prepare(make_twin)
            self._take_turns(Turns.of(self._settings, [member.step_ns for member in self._living()]))
            self._judge_machine()
            self._phase("finishing")
            self._in_random_order(Member.finish)
            at_once = False
        except KeyboardInterrupt:
            self.interrupted = True
            self._judge_machine()
            for member in self.members:
                member.stop()
        finally:
            for member in self.members:
                member.close(at_once=at_once)

    def _prepare(self, make_twin: Callable[[Member], Member] | None) -> None:
        self._phase("starting")
        self._in_random_order(Member.start)
        self._phase("warming up")
        self._in_random_order(Member.warm)
        chosen = soundness.choose(member.measured for member in self.members) if make_twin else None
        if make_twin is None or chosen is None:
            return
        twin = make_twin(next(member for member in self.members if member.measured is chosen))
        self.members.append(twin)
        for act in (Member.start, Member.warm):
            self._act(twin, act)

    def _take_turns(self, turns: Turns) -> None:
        self._next_look = min(FIRST_LOOK, turns.rounds)
        for number in range(turns.rounds):
            if not self._living() or self._is_known(number, turns) or self._is_spent(number, turns):
                return
            if number % turns.each == 0:
                self._launch(number // turns.each + 1, turns)
            acting = [
                m for m in self.members if m.measured.case.role != "ceiling" or not number % CEILING_EVERY
            ]
            self.order.append(self._in_random_order(lambda member: self._turn(member, turns), acting))
            self._progress.advance()

    def _launch(self, number: int, turns: Turns) -> None:
        """Begin a launch; the workers of the first one are there already."""
        which = f", launch {number} of {turns.launches}" if turns.launches > 1 else ""
        if number > 1:
            self._phase(f"starting again{which}")
            self._in_random_order(Member.launch_again)
        self._phase(f"measuring{which}", min(turns.each, turns.rounds - (number - 1) * turns.each))

    def _turn(self, member: Member, turns: Turns) -> None:
        waiting = {other.pid: other.tally for other in self._living() if other is not member and other.pid}
        pids = [*waiting, *([member.pid] if member.pid else [])]
        with self._watch.turn(member.tally, waiting, pids):
            member.take_turn(turns)
        self._listener.machine(self._watch.last)
        self._listener.round_done(member.index, member.measured)

    def _is_spent(self, number: int, turns: Turns) -> bool:
        """Whether the time is up before the rounds are: steps last longer than their warm-up promised."""
        if self._settings.rounds is not None or number < min(FIRST_LOOK, turns.rounds):
            return False
        longest = max(sum(member.measured.elapsed_ns) for member in self._living())
        return longest >= 1.5 * self._settings.duration_s * NS_PER_S

    def _is_known(self, number: int, turns: Turns) -> bool:
        """Whether every median, and every ratio to the baseline, is known closely enough.

        It is looked at in the first launch, and then where one ends. Only the widths of intervals are looked
        at, never where they lie: a run that went on until 1 was excluded would exclude it too often. It is
        looked at seldom, as a width may be small by luck too.
        """
        if number < self._next_look or (number > turns.each and number % turns.each):
            return False
        self._next_look = math.ceil(number * LATER_LOOKS)
        living = [member for member in self._living() if member.measured.case.role != "ceiling"]
        return all(member.precise for member in living) and all(self._is_compared(m) for m in living)

    def _is_compared(self, member: Member) -> bool:
        everyone = [other.measured for other in self.members]
        baseline = find_baseline(member.measured, everyone, self._settings.baseline)
        if member.measured.case.role == "twin":
            baseline = next(m for m in everyone if soundness.twin_of(m.case).key == member.measured.case.key)
        if baseline is None or baseline is member.measured:
            return True
        found = latency_ratio(member.measured, baseline), throughput_ratio(member.measured, baseline)
        widths = [entry.half_width if entry else None for entry in found]
        return all(width is not None and width <= self._settings.precision_target for width in widths)

    def _judge_machine(self) -> None:
        for member in self.members:
            case = member.measured.case
            member.measured.idle_share = member.tally.idle_share
            threads = case.threads if case.device == "cpu" else 1
            member.measured.disturbed = member.tally.disturbances(threads, usable_cores())

    def _living(self) -> list[Member]:
        return [member for member in self.members if member.alive]

    def _in_random_order(
        self, act: Callable[[Member], None], among: Sequence[Member] | None = None
    ) -> tuple[int, ...]:
        # The order is drawn over all, so that one's failure does not change the others' orders.
        drawn = self._random.sample(self.members, len(self.members))
        turns = [member for member in drawn if member.alive and (among is None or member in among)]
        for member in turns:
            self._act(member, act)
        return tuple(member.index for member in turns)

    def _act(self, member: Member, act: Callable[[Member], None]) -> None:
        if self._progress.cancelled:
            raise KeyboardInterrupt
        member.attempt(lambda: act(member))
        if not member.alive:
            self._listener.case_failed(member.index, member.measured)

    def _phase(self, text: str, total: int | None = None) -> None:
        device, batch_size, _ = self.members[0].measured.case.peers
        self._progress.phase(f"batch {batch_size} on {device}: {text}", total)
