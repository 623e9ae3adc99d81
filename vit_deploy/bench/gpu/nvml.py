"""NVIDIA's management library: energy by the card's own counter, the clock, and what holds it back.

From the package ``nvidia-ml-py`` (extra ``gpu``), whose calls are described in NVIDIA's NVML API reference,
https://docs.nvidia.com/deploy/nvml-api/. The card counts for itself as a whole: what other processes have
it do is in the figures too.
"""

from __future__ import annotations

import ctypes
import uuid
from dataclasses import dataclass
from typing import Any

SLOWDOWNS = {
    "power": 0x04 | 0x80,
    "thermal": 0x20 | 0x40,
    "hardware": 0x08,
}
"""Why the clock is held back, by bits of NVML's clocks event reasons: software's power cap and the power
brake; software's and hardware's thermal slowdown; any slowdown that the hardware chose. An idle card and a
clock that was set by hand are no slowdowns."""


@dataclass(frozen=True)
class Look:
    """One look at a card.

    Attributes:
        energy_mj: millijoules since the driver was loaded; ``None`` where the card does not count them.
        clock_mhz: of the multiprocessors; ``None`` where it is not told.
        slowdowns: those of :data:`SLOWDOWNS` in force.
    """

    energy_mj: int | None
    clock_mhz: int | None
    slowdowns: frozenset[str]


class Card:
    """One GPU, as NVML knows it."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    @classmethod
    def open(cls, name: str) -> Card | None:
        """The card with that UUID (``GPU-…``); ``None`` where NVML or the card is not to be had."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(name))
        except pynvml.NVMLError:
            return None

    def look(self) -> Look:
        """What it says at this moment."""
        library = self._library
        energy = self._ask(library.nvmlDeviceGetTotalEnergyConsumption)
        clock = self._ask(library.nvmlDeviceGetClockInfo, library.NVML_CLOCK_SM)
        reasons = self._ask(library.nvmlDeviceGetCurrentClocksEventReasons) or 0
        in_force = frozenset(name for name, bits in SLOWDOWNS.items() if reasons & bits)
        return Look(energy, clock, in_force)

    def _ask(self, call: Any, *arguments: Any) -> int | None:
        """An older card or driver does not know every question."""
        try:
            return int(call(self._handle, *arguments))
        except self._library.NVMLError:
            return None


def uuid_of(index: int) -> str | None:
    """The UUID of CUDA device ``index``, as NVML writes it; ``None`` where there is no driver or device.

    NVML counts every card of the machine, and CUDA those that the process was shown: their numbers differ.
    The driver itself is asked (``cuDeviceGetUuid``), as PyTorch would be a heavy guest in a worker that
    does without it.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
        failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index)
        failed = failed or driver.cuDeviceGetUuid(ctypes.byref(raw), device)
    except (OSError, AttributeError):
        return None
    return None if failed else f"GPU-{uuid.UUID(bytes=bytes(raw))}"
