"""What can go wrong, one class per stage, each with the exit code the command line gives it.

A message has three parts: what was found, what was expected, and the next command.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class VitDeployError(Exception):
    """The root of every error this package raises on purpose.

    Args:
        found: what was found, as a full sentence without its final stop.
        expected: what would have been right.
        next_command: the exact command, or action, that comes next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, found: str, *, expected: str = "", next_command: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.next_command = next_command

    @property
    def in_a_line(self) -> str:
        """What was found and what comes next, for a table's notes."""
        return "; ".join(part for part in (self.found, self.next_command) if part)

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"expected: {self.expected}")
        if self.next_command:
            lines.append(f"next: {self.next_command}")
        return "\n  ".join(lines)


class UsageFailed(VitDeployError):
    """The command was given words or flags that do not fit together (exit 2)."""

    exit_code = 2


class ImportFailed(VitDeployError):
    """A checkpoint could not be turned into a model (exit 6)."""

    exit_code = 6


class HostileInput(VitDeployError):
    """An input is broken, oversized, tampered with or holds code (exit 6)."""

    exit_code = 6


class ExportFailed(VitDeployError):
    """An exporter could not make its artefact, or made one that the linter refuses (exit 1)."""


class OutputFailed(VitDeployError):
    """A result could not be written: a read-only folder, a full disk (exit 1)."""


class RunFailed(VitDeployError):
    """A runtime failed on an artefact, or reports other facts than were asked for (exit 1)."""


class BackendDied(RunFailed):
    """A backend crashed, or never came back and was killed (exit 1): what it ran must not be run again."""


class BudgetUnmet(VitDeployError):
    """Nothing that was measured holds the budget that a tuning was given (exit 1)."""


class ParityFailed(VitDeployError):
    """An artefact is not equal to eager PyTorch by the parity criterion (exit 3)."""

    exit_code = 3


class BackendMissing(VitDeployError):
    """A backend is not installed, or this machine cannot run it (exit 4)."""

    exit_code = 4


class GateFailed(VitDeployError):
    """A performance gate did not hold (exit 5)."""

    exit_code = 5


def nearest(name: str, valid: Iterable[str], limit: int = 3) -> list[str]:
    """The valid names that look most like ``name``, nearest first."""
    return difflib.get_close_matches(name, list(valid), n=limit, cutoff=0.5)


def unknown_name(kind: str, name: str, valid: Iterable[str], next_command: str = "") -> UsageFailed:
    """The error for a name that is not one of ``valid``, which it lists, nearest first.

    Args:
        kind: what the name was meant for, such as ``format``.
        name: what was given.
        valid: every name that would do.
        next_command: the command that lists them.
    """
    names = list(valid)
    close = nearest(name, names)
    ordered = close + [other for other in names if other not in close]
    shown = ", ".join(ordered[:12]) + (f", … ({len(ordered)} in all)" if len(ordered) > 12 else "")
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return UsageFailed(f"unknown {kind} {name!r}{hint}", expected=f"one of {shown}", next_command=next_command)
