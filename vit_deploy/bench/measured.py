"""What one worker gave: raw data, from which every figure is derived."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from vit_deploy.bench.cases import Case

if TYPE_CHECKING:
    from collections.abc import Mapping

PHASES = ("import", "check", "open", "first")
"""A cold start, from the start of the process to the end of its first inference."""


@dataclass
class Measured:
    """What one worker gave, as it is gathered; a failure leaves the rest as it was by then.

    Attributes:
        case: what was measured.
        rounds: nanoseconds of each step, by round; the steps of all streams.
        elapsed_ns: how long each round took, all its streams together.
        launch_lengths: how many of the rounds each launch of its worker took.
        cold_start_ns: nanoseconds of each of :data:`PHASES`, of the first launch.
        facts: what the session reported of itself.
        warm_up: steps, elapsed nanoseconds, step of the first launch; whether those of all launches settled.
        rested: whether the worker's threads came to rest after each of its turns.
        idle_share: the share of one core that the worker used while others measured; ``None`` if unknown.
        disturbed: why its samples may not be trusted, a line for each kind of disturbance.
        gpu: what was timed on the device, see :attr:`Row.gpu`.
        peak_rss_bytes: the most memory the worker of the last launch had resident.
        peak_device_bytes: the most that PyTorch held on the GPU.
        error: why the case failed, empty where it did not.
        exit_code: the exit code that this failure means, were it the only case.
        worker_exit: how the worker process ended, where it died: a signal's number is negative.
    """

    case: Case
    rounds: list[list[int]] = field(default_factory=list)
    elapsed_ns: list[int] = field(default_factory=list)
    launch_lengths: list[int] = field(default_factory=list)
    cold_start_ns: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warm_up: Mapping[str, Any] = field(default_factory=dict)
    rested: bool = True
    idle_share: float | None = None
    disturbed: list[str] = field(default_factory=list)
    gpu: Mapping[str, float] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    peak_device_bytes: int | None = None
    error: str = ""
    exit_code: int = 0
    worker_exit: int | None = None

    @property
    def samples(self) -> list[int]:
        """All samples in the order they were taken."""
        return [sample for entry in self.rounds for sample in entry]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a journal keeps it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measured:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError: when a field is missing.
        """
        given = {entry.name: data[entry.name] for entry in fields(cls)}
        return cls(**{**given, "case": Case.from_dict(data["case"])})
