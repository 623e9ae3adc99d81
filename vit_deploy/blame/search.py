"""Where an artefact's error comes in: the first tap that diverges, by bisection.

Each extra run has two neighbouring taps in it at the most, so that a backend's fusions survive: with a
value that has to be given out, it may compute otherwise. A tap diverges if the criterion does not hold
there, by eager's own error at that very tap. One run without taps comes first; all runs together are at
most ``2 * log2(depth)``, so in the shallowest models the last run takes what taps are left.

The search takes for granted that what diverges stays so behind. Where a reading says otherwise, that is
said. int8 and fp8 have no eager yardstick: there, as in the criterion, the declared rounding is one, and a
tap diverges at :data:`vit_deploy.parity.limits.SUSPECT` times that.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.blame.case import Case, limits_of
from vit_deploy.blame.formats import found_taps, open_tapped
from vit_deploy.blame.opening import opener
from vit_deploy.blame.taps import TOKENS, in_words
from vit_deploy.errors import VitDeployError
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.blame.eager_taps import Reading
    from vit_deploy.blame.formats import Opener
    from vit_deploy.blame.record import TapReading
    from vit_deploy.facts import Device, Verdict
    from vit_deploy.parity import ParityCheck
    from vit_deploy.protocols import Arrays, Artefact, Progress, Runtime

_SILENT = Silent()

FAINT = 2.0
"""Times eager's error, as a root mean square over the tokens of a tap, from which a tap diverges in the
second search. Honest backends stay below 1.6; a small fault may reach the limits at the outputs alone,
where pooling averages honest rounding away."""

GONE = 2.0
"""How far beyond its limit an error must be for its absence under a tap to mean something."""


@dataclass(frozen=True)
class Finding:
    """Where an error comes in.

    Attributes:
        where: the first tap that diverges; empty if it is not known.
        bisection: what was read at each tap that was tried, in the order of the search.
        runs: how many extra runs of the artefact that took.
        notes: what a person should know of it.
    """

    where: str
    bisection: tuple[TapReading, ...] = ()
    runs: int = 0
    notes: tuple[str, ...] = ()


def find(
    check: ParityCheck,
    artefact: Artefact,
    verdict: Verdict,
    runtime: Runtime,
    device: Device,
    *,
    open_session: Opener | None = None,
    progress: Progress = _SILENT,
) -> Finding:
    """Find the first tap at which an artefact that failed diverges from eager PyTorch.

    Args:
        check: that the artefact failed.
        artefact: what failed.
        verdict: what the check said.
        runtime: what it was judged on.
        device: where.
        open_session: opens an artefact; as the check does when ``None``.
        progress: told how far it is.

    Returns:
        What was found. That an artefact cannot be looked into is in the notes, never raised.
    """
    with tempfile.TemporaryDirectory(prefix="vit-deploy-where-") as folder:
        search = _Search(check, artefact, verdict, runtime, device, opener(check, open_session), Path(folder))
        try:
            where = search.run(progress)
        except VitDeployError as error:
            where = ""
            search.notes.append(f"it was not found where the error comes in: {error.found}")
        finally:
            search.case.truth.close()
    return Finding(where, tuple(search.tried), search.runs, tuple(search.notes))


def run_budget(depth: int) -> int:
    """Extra runs that the search may take: one without taps, and one with, at the least."""
    return max(2, math.floor(2 * math.log2(depth)))


@dataclass
class Bracket:
    """Which places may be the first that diverges: ``low`` to ``high``, where ``high`` is known to.

    Attributes:
        low: the first place that may be it.
        high: the last place that may be it; the number of places where it may lie behind them all.
    """

    low: int
    high: int

    @property
    def is_closed(self) -> bool:
        """Whether one place is left."""
        return self.low >= self.high

    def probe(self, runs_left: int) -> list[int]:
        """The places to look at next: two neighbours in the middle, or all that matter in the last run."""
        if runs_left <= 1 and self.high - self.low > 2:
            return list(range(self.low, self.high))
        middle = self.low + (self.high - self.low) // 2
        return [middle] if middle == self.low else [middle - 1, middle]

    def narrow(self, place: int, *, diverges: bool) -> None:
        """Take in what was seen at a place."""
        if diverges:
            self.high = min(self.high, place)
        elif place < self.high:
            self.low = max(self.low, place + 1)


@dataclass
class _Search:
    """One search, and what it has seen so far."""

    check: ParityCheck
    artefact: Artefact
    verdict: Verdict
    runtime: Runtime
    device: Device
    open_session: Opener
    folder: Path
    tried: list[TapReading] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs: int = 0

    def __post_init__(self) -> None:
        run = self.check.case(self.artefact, self.verdict)
        self.case = Case(self.check, self.artefact, run, limits_of(self.artefact, self.verdict))
        self.limit = self.check.limit(self.artefact, self.verdict)
        self.budget = run_budget(self.artefact.config.depth)
        self.readings: dict[str, Reading] = {}
        self.disturbances: dict[str, float] = {}

    def run(self, progress: Progress) -> str:
        """The first tap that diverges; empty if it is not known."""
        progress.phase(f"{self.artefact.name}: where the error comes in", self.budget)
        self.untouched = self._infer(())
        progress.advance()
        self.ratio = self.check.ratio(self.artefact, self.untouched, self.case.case)
        broken = self._broken_outputs()
        if not broken:
            self.notes.append(
                f"the same run, again, is within the limit at {self.ratio:.3g} times eager's own error: "
                "the error comes and goes, or shows over many inputs only"
            )
            return ""
        if TOKENS in self.readings and self.readings[TOKENS].public.holds:
            return broken[0]
        places = found_taps(self.artefact)
        where = self._bisect(places, broken[0], progress)
        self._note_disturbance()
        self._note_healing(places, where)
        return where

    def _broken_outputs(self) -> list[str]:
        """The outputs that diverge, in the order of computation, or the worst one; none if none may be."""
        for name in self.case.truth.names:
            if name in self.artefact.spec.output_names:
                self._read(name, self.untouched)
        if self.ratio <= self.limit:
            return []
        readings = [reading.public for reading in self.readings.values()]
        broken = [reading.tap for reading in readings if not reading.holds]
        return broken or [max(readings, key=lambda reading: reading.ratio).tap]

    def _bisect(self, places: Sequence[str], behind: str, progress: Progress) -> str:
        bracket = Bracket(0, len(places))
        gone = self._narrow(places, bracket, progress, faint=False)
        last = self.readings.get(places[-1])
        if not gone and bracket.low == len(places) and last is not None and last.typical > FAINT:
            self.notes.append(
                f"the error is faint inside the model ({last.typical:.3g} times eager's own at {places[-1]}, "
                "over all tokens): it was looked for by that, not by the limits"
            )
            bracket = Bracket(0, len(places) - 1)
            gone = self._narrow(places, bracket, progress, faint=True)
        if gone:
            return gone
        if not bracket.is_closed:
            first, last_place = places[bracket.low], places[bracket.high]
            self.notes.append(f"it may be anywhere from {first} to {last_place}: the extra runs were used up")
        return places[bracket.high] if bracket.high < len(places) else behind

    def _narrow(self, places: Sequence[str], bracket: Bracket, progress: Progress, *, faint: bool) -> str:
        """Narrow the bracket as far as runs are left; the tap under which the error went away, if any."""
        for place, tap in enumerate(places):
            if tap in self.readings:
                bracket.narrow(place, diverges=self._diverges(tap, faint))
        while not bracket.is_closed and self.runs < self.budget:
            probe = bracket.probe(self.budget - self.runs)
            taps = [places[place] for place in probe]
            if self._look(taps):
                return taps[0]
            progress.advance()
            for place, tap in zip(probe, taps, strict=True):
                bracket.narrow(place, diverges=self._diverges(tap, faint))
        return ""

    def _diverges(self, tap: str, faint: bool) -> bool:
        reading = self.readings[tap]
        return not reading.public.holds or (faint and reading.typical > FAINT)

    def _look(self, taps: Sequence[str]) -> bool:
        """Read taps in one run; whether the error went away because of them."""
        outputs = self._infer(taps)
        for tap in taps:
            self._read(tap, outputs)
        self.disturbances[" and ".join(taps)] = self.case.moved(outputs, self.untouched)
        ratio = self.check.ratio(self.artefact, outputs, self.case.case)
        gone = ratio <= self.limit and self.ratio > GONE * self.limit
        if not gone or not all(self.readings[tap].public.holds for tap in taps):
            return False
        self.notes.append(
            f"the error goes away where {' and '.join(taps)} must be given out: it comes of computing across "
            f"{in_words(taps[0])}, by a fusion of the backend"
        )
        return True

    def _read(self, tap: str, outputs: Arrays) -> None:
        self.readings[tap] = self.case.read(tap, outputs)
        self.tried.append(self.readings[tap].public)

    def _infer(self, taps: Sequence[str]) -> Arrays:
        """The outputs of the run in question, and what is at the taps."""
        from vit_deploy.protocols import SessionOptions

        self.runs += 1
        options = SessionOptions()
        if taps:
            session = open_tapped(
                self.artefact, taps, self.folder, self.runtime, self.device, options, self.open_session
            )
        else:
            session = self.open_session(self.runtime, self.artefact, self.device, options)
        with session:
            return session.run(self.case.feed())

    def _note_disturbance(self) -> None:
        if not any(self.disturbances.values()):
            return
        taps = max(self.disturbances, key=lambda name: self.disturbances[name])
        most = self.disturbances[taps]
        told = (
            "it gives other outputs, or NaN" if most == math.inf else f"by {most:.3g} times eager's own error"
        )
        self.notes.append(f"taps change what the artefact gives: with {taps}, {told}")

    def _note_healing(self, places: Sequence[str], where: str) -> None:
        """Say so where something behind the tap that was found holds: the search is not certain then."""
        if where not in places:
            return
        behind = [tap for tap in places[places.index(where) + 1 :] if tap in self.readings]
        healed = [tap for tap in behind if self.readings[tap].public.holds]
        if healed and not self.readings[where].public.holds:
            self.notes.append(
                f"{where} diverges and {healed[0]}, behind it, does not: the error fades on its way, so an "
                "earlier one may have been overlooked"
            )
