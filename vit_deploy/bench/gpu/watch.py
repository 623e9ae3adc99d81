"""What a worker on a GPU does around its turns: energy, clock and slowdowns; at the end, the split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.bench.gpu.nvml import Card, Look, uuid_of
from vit_deploy.bench.gpu.split import TorchTimeline, measure_split, stream_of
from vit_deploy.bench.statistics import median

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.facts import Device
    from vit_deploy.protocols import Step
    from vit_deploy.spec import IOSpec

SHORTEST_NS = 1_000_000_000
"""Energy is not told of less time: the card's counter moves some ten times a second."""


class GpuWatch:
    """Watches one GPU during the turns of one case; on a CPU it does nothing.

    Args:
        device: where the case runs.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._card = _card_of(device)
        self._energy_mj = 0
        self._elapsed_ns = 0
        self._inferences = 0
        self._looks: list[Look] = []

    def look(self) -> Look | None:
        """What the card says now; ``None`` where it cannot be asked."""
        return None if self._card is None else self._card.look()

    def note(self, before: Look | None, inferences: int, elapsed_ns: int) -> None:
        """Note a turn that is just over.

        Args:
            before: the look just before it.
            inferences: all that the card did meanwhile; 0 where some of them were not counted.
            elapsed_ns: how long it lasted.
        """
        after = self.look()
        if before is None or after is None:
            return
        self._looks.append(after)
        if before.energy_mj is not None and after.energy_mj is not None and inferences:
            self._energy_mj += after.energy_mj - before.energy_mj
            self._elapsed_ns += elapsed_ns
            self._inferences += inferences

    def watched(self) -> dict[str, float]:
        """What the turns told, by name, each where it is known.

        Returns:
            ``energy_j`` of one inference (the whole card's, its rest included), ``power_w``, ``clock_mhz``
            (median of the looks after each turn), and for each of
            :data:`vit_deploy.bench.gpu.nvml.SLOWDOWNS` that was seen ``slowed_<name>``, the share of looks.
        """
        told: dict[str, float] = {}
        if self._elapsed_ns >= SHORTEST_NS:
            told["energy_j"] = self._energy_mj / 1e3 / self._inferences
            told["power_w"] = self._energy_mj / 1e3 / (self._elapsed_ns / 1e9)
        clocks = [look.clock_mhz for look in self._looks if look.clock_mhz is not None]
        if clocks:
            told["clock_mhz"] = float(median(clocks))
        for name in sorted({name for look in self._looks for name in look.slowdowns}):
            told[f"slowed_{name}"] = sum(name in look.slowdowns for look in self._looks) / len(self._looks)
        return told

    def split(self, step: Step, spec: IOSpec, free: Mapping[str, int]) -> dict[str, float]:
        """The parts of one inference's time, see :func:`vit_deploy.bench.gpu.split.measure_split`.

        Empty on a CPU, and where the step's stream is out of reach.

        Args:
            step: one inference, warm.
            spec: the artefact's inputs and outputs.
            free: the size of each free dimension.
        """
        if self._device.kind != "cuda":
            return {}
        stream = stream_of(step, self._device.index)
        if stream is None:
            return {}
        inputs = [(entry.at(free), entry.dtype) for entry in spec.inputs]
        outputs = [(entry.at(free), entry.dtype) for entry in spec.outputs]
        try:
            return measure_split(step, TorchTimeline(stream, inputs, outputs))
        except RuntimeError:
            # Not enough memory for the copies, say. The case is measured already; this is an extra.
            return {}


def _card_of(device: Device) -> Card | None:
    if device.kind != "cuda":
        return None
    name = uuid_of(device.index)
    return None if name is None else Card.open(name)
