"""Who wants to know of a run while it goes on: a journal that keeps what was measured, a live table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vit_deploy.bench.result import Measured


class Listener(Protocol):
    """Told of a run's progress by the coordinator, between two turns, so that it disturbs no sample.

    What it is given goes on changing as the run goes on: a listener reads it at once and keeps no hold of
    it. What it raises ends the run, with every worker ended first.
    """

    def started(self, runs_total: int) -> None:
        """The run begins; ``runs_total`` cases are to be measured, those of the ceiling and A/A included."""

    def round_done(self, case_index: int, measured: Measured) -> None:
        """One more turn of a case is measured; ``case_index`` is its place among the cases given to the run."""

    def case_failed(self, case_index: int, measured: Measured) -> None:
        """A case came to nothing: ``measured.error`` says why."""

    def group_done(self, measured: Sequence[Measured]) -> None:
        """All cases that are compared with each other are finished, or failed."""

    def machine(self, reading: Mapping[str, Any]) -> None:
        """What the machine did during the last turn: steal, load of others, clock."""


class Quiet:
    """A :class:`Listener` that keeps nothing; a base for one that wants to know of a few things only."""

    def started(self, runs_total: int) -> None:
        """Ignored."""

    def round_done(self, case_index: int, measured: Measured) -> None:
        """Ignored."""

    def case_failed(self, case_index: int, measured: Measured) -> None:
        """Ignored."""

    def group_done(self, measured: Sequence[Measured]) -> None:
        """Ignored."""

    def machine(self, reading: Mapping[str, Any]) -> None:
        """Ignored."""
