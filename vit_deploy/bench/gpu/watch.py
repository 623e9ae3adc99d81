"""What a worker on a GPU does: after each turn a look at the clock; when all are over, split and energy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vit_deploy.bench.gpu.nvml import Card, Look, uuid_of
from vit_deploy.bench.gpu.split import TorchTimeline, measure_split, stream_of
from vit_deploy.bench.statistics import median
from vit_deploy.bench.timing import time_steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.facts import Device
    from vit_deploy.protocols import Step
    from vit_deploy.spec import IOSpec

ENERGY_NS = 2_000_000_000
"""The card's counter moves some ten times a second or more often: this is long enough for 5 %."""

RAMP_NS = 300_000_000
"""So long before it, for clock and power to rise to what they are under load."""

MOST_INFERENCES = 1_000_000


class GpuWatch:
    """Watches one GPU for one case; on a CPU it does nothing.

    Args:
        device: where the case runs.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._card = _card_of(device)
        self._looks: list[Look] = []

    def look(self) -> None:
        """Look at clock and slowdowns, just after a turn, while they are still those of the turn."""
        if self._card is not None:
            self._looks.append(self._card.look())

    def seen(self) -> dict[str, float]:
        """What the turns told, by name, each where it is known.

        Returns:
            ``clock_mhz`` (the median), and for each of :data:`vit_deploy.bench.gpu.nvml.SLOWDOWNS` that was in
            force ``slowed_<name>``, the share of looks.
        """
        told: dict[str, float] = {}
        clocks = [look.clock_mhz for look in self._looks if look.clock_mhz is not None]
        if clocks:
            told["clock_mhz"] = float(median(clocks))
        for name in sorted({name for look in self._looks for name in look.slowdowns}):
            told[f"slowed_{name}"] = sum(name in look.slowdowns for look in self._looks) / len(self._looks)
        return told

    def measure(self, step: Step, spec: IOSpec, free: Mapping[str, int]) -> dict[str, float]:
        """The split and the energy of an inference, when the turns are over; empty on a CPU.

        Args:
            step: one inference, warm.
            spec: the artefact's inputs and outputs.
            free: the size of each free dimension.
        """
        if self._device.kind != "cuda":
            return {}
        return {**self._split(step, spec, free), **self._energy(step)}

    def _split(self, step: Step, spec: IOSpec, free: Mapping[str, int]) -> dict[str, float]:
        """See :func:`vit_deploy.bench.gpu.split.measure_split`; empty where the stream is out of reach."""
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

    def _energy(self, step: Step) -> dict[str, float]:
        """``energy_j`` of an inference and ``power_w``, of the whole card, its rest included.

        Not of the turns: they are as short as the counter's period, so that it would give a case the energy
        of its neighbour. One stretch of inferences is as long as many periods.
        """
        if self._card is None:
            return {}
        time_steps(step, RAMP_NS)
        before, began = self._card.look(), time.perf_counter_ns()
        count = len(time_steps(step, ENERGY_NS, maximum=MOST_INFERENCES))
        after, elapsed_s = self._card.look(), (time.perf_counter_ns() - began) / 1e9
        if before.energy_mj is None or after.energy_mj is None:
            return {}
        joules = (after.energy_mj - before.energy_mj) / 1e3
        return {"energy_j": joules / count, "power_w": joules / elapsed_s}


def _card_of(device: Device) -> Card | None:
    if device.kind != "cuda":
        return None
    name = uuid_of(device.index)
    return None if name is None else Card.open(name)
