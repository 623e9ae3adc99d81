"""A table of the cases on a terminal while ``bench`` measures them; nothing off a terminal.

It takes no time from what is measured. There is no thread that redraws: the table is drawn within the calls
that the coordinator makes to its listener and its progress, on its one thread, which lets a worker measure
only after they have returned. So nothing is drawn while a worker takes its turn, and at most every
:data:`PAUSE_S`. What the terminal's own process does with the text afterwards is beyond us; the run's watch
over the machine sees it, as it sees any other process.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.listener import Quiet
from vit_deploy.cli._output import printable
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from rich.console import Console, RenderableType

    from vit_deploy.bench.cases import Case
    from vit_deploy.bench.measured import Measured

PAUSE_S = 0.25
"""Between two drawings, at least."""

NS_PER_MS = 1e6
_STYLES = {"waiting": "dim", "kept": "dim", "done": "green", "failed": "red"}


class Hidden(Quiet, Silent):
    """What is told of a run that nobody looks at."""


@dataclass
class _Line:
    """What is shown of one case. It holds figures of its own: those of a run go on changing."""

    case: Case
    state: str = "waiting"
    error: str = ""
    medians: list[float] = field(default_factory=list)


class LiveTable(Hidden):
    """A listener, and a progress, that shows what it is told.

    Args:
        cases: of the run, in its order.
        console: a terminal's.
        baseline: what ratios stand against, as the user has named it.
        done: keys of cases that an earlier run has measured.
        clock: seconds that rise.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        console: Console,
        *,
        baseline: str = "",
        done: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.live import Live

        from vit_deploy.report.bench.rows import Naming

        rows = {place: case for place, case in enumerate(cases) if case.role == "case"}
        self._lines = {
            place: _Line(case, "kept" if case.key in done else "waiting") for place, case in rows.items()
        }
        self._naming = Naming(list(rows.values()))
        self._console, self._baseline, self._clock = console, baseline, clock
        self._phase, self._turns = "", 0
        self._peers: Any = None
        self._drawn: float | None = None
        # Without its thread: see above. It is wiped at the end, as the result follows.
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def phase(self, text: str, total: int | None = None) -> None:
        """A new phase of a group of peers begins, of so many rounds."""
        self._phase, self._turns = text, total or 0
        group, _, act = text.rpartition(": ")
        for line in self._lines.values():
            begun = f"batch {line.case.batch_size} on {line.case.device}" == group
            if begun and not line.medians and line.state not in ("kept", "done", "failed"):
                line.state, self._peers = act, line.case.peers
        self.draw()

    def advance(self, steps: int = 1) -> None:
        """A round is over."""
        self.draw()

    def round_done(self, case_index: int, measured: Measured) -> None:
        """One more turn of a case."""
        from vit_deploy.bench.statistics import median

        line = self._lines.get(case_index)
        if line is None:
            return
        if measured.rounds and measured.rounds[-1]:
            line.medians.append(median(measured.rounds[-1]))
        number = len(measured.rounds)
        line.state = f"round {number}/{self._turns}" if self._turns else f"round {number}"
        self._peers = line.case.peers
        self.draw()

    def case_failed(self, case_index: int, measured: Measured) -> None:
        """A case came to nothing."""
        line = self._lines.get(case_index)
        if line is not None:
            line.state, line.error = "failed", measured.error or "failed"
            self.draw()

    def group_done(self, measured: Sequence[Measured]) -> None:
        """These are measured."""
        over = {entry.case.key for entry in measured if not entry.error}
        for line in self._lines.values():
            if line.case.key in over:
                line.state = "done"
        self.draw()

    def draw(self) -> None:
        """Draw the table, unless it was drawn a moment ago: the next call shows what is new."""
        now = self._clock()
        if self._drawn is not None and now - self._drawn < PAUSE_S:
            return
        self._drawn = now
        # A terminal that is gone, or knows no such letter, must not end a run.
        with contextlib.suppress(OSError, UnicodeError):
            self._live.update(self.table(), refresh=True)

    def table(self) -> RenderableType:
        """The cases as they are now; of more than there is room for, those that take turns."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        over = sum(line.state in ("done", "failed", "kept") for line in self._lines.values())
        title = f"{over} of {len(self._lines)} cases done · {self._phase}"
        table = Table(
            box=box.SIMPLE_HEAD,
            title=Text(printable(title)),
            title_justify="left",
            pad_edge=False,
            expand=False,
        )
        for heading in ("case", "state", "p50 ms", "±", "ratio"):
            right = heading not in ("case", "state")
            table.add_column(heading, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
        for line in self._shown():
            shown = [Text(printable(text)) for text in self._cells(line)]
            shown[1].stylize(_STYLES.get(line.state, "bold"))
            table.add_row(*shown)
        return table

    def _shown(self) -> list[_Line]:
        room = max(1, self._console.height - 6)
        lines = list(self._lines.values())
        if len(lines) <= room:
            return lines
        return [line for line in lines if line.case.peers == self._peers][:room]

    def _cells(self, line: _Line) -> list[str]:
        from vit_deploy.bench.statistics import median, relative_half_width
        from vit_deploy.report.bench.words import number

        name = self._naming.whole(line.case)
        if line.error:
            return [name, f"failed: {line.error.splitlines()[0][:60]}", "", "", ""]
        if not line.medians:
            return [name, line.state, "", "", ""]
        width, ratio = relative_half_width(line.medians), self._ratio(line)
        return [
            name,
            line.state,
            number(median(line.medians) / NS_PER_MS),
            "" if width is None else f"{100 * width:.1f} %",
            "" if ratio is None else f"{ratio:.2f}",
        ]

    def _ratio(self, line: _Line) -> float | None:
        """The present ratio to the baseline: the median, over rounds, of the medians' ratio in each round."""
        from vit_deploy.bench.baseline import find_baseline
        from vit_deploy.bench.measured import Measured
        from vit_deploy.bench.statistics import median

        told = {place: Measured(entry.case, error=entry.error) for place, entry in self._lines.items()}
        mine = next(told[place] for place, entry in self._lines.items() if entry is line)
        base = find_baseline(mine, list(told.values()), self._baseline)
        if base is None or base is mine:
            return None
        theirs = next(self._lines[place].medians for place, entry in told.items() if entry is base)
        pairs = zip(line.medians, theirs, strict=False)  # one of them is a turn ahead within a round
        ratios = [one / other for one, other in pairs if other > 0]
        return median(ratios) if ratios else None


@contextlib.contextmanager
def live_table(
    cases: Sequence[Case], *, baseline: str = "", done: Collection[str] | Mapping[str, Any] = ()
) -> Iterator[Hidden]:
    """The table on stderr while the block runs; where that is no terminal, a listener that shows nothing.

    Args:
        cases: of the run, in its order, with those of its ceilings.
        baseline: ``--baseline``.
        done: keys of cases that are not measured again.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield Hidden()
        return
    with LiveTable(cases, console, baseline=baseline, done=done) as table:
        yield table
