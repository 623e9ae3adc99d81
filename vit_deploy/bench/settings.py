"""What governs a run of the benchmark, and how its time is cut into turns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.bench.statistics import samples_needed
from vit_deploy.errors import UsageFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

NS_PER_S = 1_000_000_000

LONGEST_S = 1_000_000
"""Nothing takes longer, in seconds, nor has more rounds."""

FEWEST_ROUNDS = 8
"""Rounds however long a step lasts: with fewer there is no interval worth the name."""

MOST_LAUNCHES = 100

MAXIMUM_SAMPLES = 10_000
"""Samples of one turn: enough for p99, and a result that can still be read."""


@dataclass(frozen=True)
class Settings:
    """What governs a run.

    Attributes:
        duration_s: time for the samples of each case; its warm-up may last as long again.
        rounds: into how many turns that time is cut; ``None`` cuts it into turns of ``turn_s``.
        turn_s: the shortest turn; a turn has at least one step. Short turns find small differences: noise
            that outlasts a turn meets all who are compared alike.
        precision_target: the relative half-width of the 95 % confidence intervals of medians and of ratios
            to the baseline at which a group of peers stops early, once each of them has it.
        seed: of the order in which the workers take turns.
        timeout_s: how long a worker may take for an answer, beyond the time it was given.
        stable: the relative difference of two windows' medians at which a warm-up ends.
        baseline: what ratios stand against: a backend, an artefact, or ``artefact:backend``; where it is
            empty eager, if it is measured, else the first of its peers.
        soundness: whether the first group has a case measured against itself.
        launches: how many processes each case has in turn, of which each measures its share of the rounds, and
            two at least: what differs from one process to the next is seen in no other way.
    """

    duration_s: float = 10.0
    rounds: int | None = None
    turn_s: float = 0.1
    precision_target: float = 0.01
    seed: int = 0
    timeout_s: float = 300.0
    stable: float = 0.05
    baseline: str = ""
    soundness: bool = True
    launches: int = 5

    def __post_init__(self) -> None:
        checks = {
            "duration": (self.duration_s, 0 < self.duration_s <= LONGEST_S),
            "rounds": (self.rounds, self.rounds is None or 1 <= self.rounds <= LONGEST_S),
            "turn": (self.turn_s, 0 < self.turn_s <= LONGEST_S),
            "precision-target": (self.precision_target, 0 < self.precision_target <= LONGEST_S),
            "timeout": (self.timeout_s, 0 < self.timeout_s <= LONGEST_S),
        }
        for name, (value, fits) in checks.items():
            if not fits:
                raise UsageFailed(f"--{name} is {value}", expected=f"a number above 0, and at most {LONGEST_S}")
        if not 1 <= self.launches <= MOST_LAUNCHES:
            raise UsageFailed(
                f"--launches is {self.launches}", expected=f"a whole number from 1 to {MOST_LAUNCHES}"
            )

    def launches_of(self, rounds: int) -> int:
        """How many launches so many rounds are enough for: a single round tells nothing of its launch."""
        return max(1, min(self.launches, rounds // 2))


@dataclass(frozen=True)
class Turns:
    """How a group's time is cut.

    Attributes:
        rounds: the most there will be.
        budget_ns: time for the samples of one turn.
        minimum: samples of one turn however long they last.
        launches: into how many launches the rounds fall.
    """

    rounds: int
    budget_ns: int
    minimum: int = 1
    launches: int = 1

    @property
    def each(self) -> int:
        """Rounds of one launch; the last one may have fewer."""
        return -(-self.rounds // self.launches)

    @classmethod
    def of(cls, settings: Settings, step_ns: Sequence[int]) -> Turns:
        """The turns of peers whose steps last ``step_ns``.

        All have turns of the same length, so that a moment of the machine weighs as much for each.
        """
        whole = int(settings.duration_s * NS_PER_S)
        if settings.rounds is not None:
            least = -(-samples_needed(0.5) // settings.rounds)
            return cls(settings.rounds, whole // settings.rounds, least, settings.launches_of(settings.rounds))
        shortest = int(settings.turn_s * NS_PER_S)
        slowest = max(step_ns, default=0)
        rounds = max(FEWEST_ROUNDS, math.ceil(whole / max(shortest, slowest, 1)))
        # A step that is begun is ended, so time for a bit less than one is time for just one.
        return cls(rounds, max(shortest, slowest * 9 // 10), launches=settings.launches_of(rounds))
