"""What the machine did meanwhile: steal, the load of others, the clock, throttling; how idle who waited was.

The coordinator looks just before and just after each turn. The time of the cores comes from ``/proc/stat``,
of the cores that this process may use; that of the workers from their own CPU clocks, to the nanosecond;
what is left was used by others. Files that a container or another system does not have are done without:
a figure that cannot be had is ``None``, never 0.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.environment import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

IDLE_LIMIT = 0.02
"""A waiting worker may use this share of one core."""

STEAL_LIMIT = 0.02
"""The hypervisor may keep this share of the cores' time for others."""

FOREIGN_LIMIT = 0.05
"""Other processes may use this share of the cores, and half of those that the case leaves free."""

THROTTLED_LIMIT = 0.01
"""The container's quota may hold processes back for this share of the time."""

SHORTEST_JUDGED_S = 1.0
"""Less time is not judged: ``/proc/stat`` counts in hundredths of a second."""

CLOCK_EVERY_S = 1.0

_PROC_STAT = Path("/proc/stat")
_CPUINFO = Path("/proc/cpuinfo")
_CPU_FOLDERS = Path("/sys/devices/system/cpu")
_QUOTAS = (Path("/sys/fs/cgroup/cpu.stat"), Path("/sys/fs/cgroup/cpu/cpu.stat"))


@dataclass(frozen=True)
class Moment:
    """Counters at one moment, in seconds.

    Attributes:
        at: of the wall clock.
        busy: of all usable cores, by anyone; ``None`` where the system does not tell.
        steal: of all usable cores, kept by the hypervisor.
        throttled: the container was held back by its quota; ``None`` where it has none.
        used: CPU time of each process that was asked for, by its id.
    """

    at: float
    busy: float | None
    steal: float | None
    throttled: float | None
    used: Mapping[int, float]


@dataclass
class Tally:
    """What was counted during the turns of one case, or of all: seconds, see :class:`Moment`.

    Attributes:
        wall: how long the turns lasted.
        foreign: CPU time of other processes.
        steal: time kept by the hypervisor.
        throttled: time held back by a quota.
        known: whether the system tells of its cores.
        waited: how long the case's worker waited for others' turns.
        waiting_used: CPU time that it used meanwhile.
    """

    wall: float = 0.0
    foreign: float = 0.0
    steal: float = 0.0
    throttled: float = 0.0
    known: bool = False
    waited: float = 0.0
    waiting_used: float = 0.0

    def add(self, before: Moment, after: Moment) -> None:
        """Count one turn."""
        self.wall += after.at - before.at
        if before.busy is not None and after.busy is not None:
            self.known = True
            ours = sum(after.used.values()) - sum(before.used.values())
            self.foreign += after.busy - before.busy - ours
        self.steal += (after.steal or 0) - (before.steal or 0)
        self.throttled += (after.throttled or 0) - (before.throttled or 0)

    @property
    def idle_share(self) -> float | None:
        """The share of one core that the worker used while others measured."""
        return self.waiting_used / self.waited if self.waited >= SHORTEST_JUDGED_S / 10 else None

    def disturbances(self, threads: int, cores: int) -> list[str]:
        """Why the samples of a case with so many threads may not be trusted; empty for no reason."""
        if self.wall < SHORTEST_JUDGED_S:
            return []
        steal = self.steal / self.wall / cores
        foreign = self.foreign / self.wall
        quota = self.throttled / self.wall
        may = FOREIGN_LIMIT * cores + max(0, cores - threads) / 2
        found = {
            f"other processes used {foreign:.2f} cores": self.known and foreign > may,
            f"the hypervisor kept {100 * steal:.0f} % of the cores' time": steal > STEAL_LIMIT,
            f"the quota of the container held it back for {100 * quota:.0f} % of the time": (
                quota > THROTTLED_LIMIT
            ),
        }
        return [text for text, holds in found.items() if holds]


@dataclass
class Watch:
    """Looks at the machine around each turn.

    Attributes:
        whole: what was counted in all turns.
        clock_mhz: the mean clock of the usable cores, about once a second.
        last: what was read around the last turn.
    """

    whole: Tally = field(default_factory=Tally)
    clock_mhz: list[float] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    _turns: int = 0
    _clock_at: float = 0.0
    _throttles: int | None = field(default_factory=lambda: thermal_throttles())

    @contextmanager
    def turn(self, acting: Tally, waiting: Mapping[int, Tally], pids: Iterable[int]) -> Iterator[None]:
        """Watch one turn.

        Args:
            acting: the tally of the case that measures.
            waiting: that of each worker that waits, by its process id.
            pids: all workers.
        """
        everyone = list(pids)
        before = moment(everyone)
        yield
        after = moment(everyone)
        for tally in (acting, self.whole):
            tally.add(before, after)
        for pid, tally in waiting.items():
            if pid in before.used and pid in after.used:
                tally.waited += after.at - before.at
                tally.waiting_used += after.used[pid] - before.used[pid]
        self._turns += 1
        this = Tally()
        this.add(before, after)
        self.last = {
            "wall_s": this.wall,
            "steal_s": this.steal,
            "foreign_s": max(0.0, this.foreign) if this.known else None,
            "throttled_s": this.throttled,
            "mhz": self._clock(after.at),
        }

    def _clock(self, now: float) -> float | None:
        if now - self._clock_at >= CLOCK_EVERY_S:
            self._clock_at = now
            if (mhz := clock_mhz()) is not None:
                self.clock_mhz.append(mhz)
        return self.clock_mhz[-1] if self.clock_mhz else None

    def summary(self) -> dict[str, Any]:
        """The figures of a whole run, as they stand in the document."""
        wall, cores, clocks = max(self.whole.wall, 1e-9), usable_cores(), self.clock_mhz
        throttles, now = self._throttles, thermal_throttles()
        quota = _quota() is not None
        return {
            "cores": cores,
            "turns": self._turns,
            "measuring_s": self.whole.wall,
            "steal_share": self.whole.steal / wall / cores if self.whole.known else None,
            "foreign_cores": max(0.0, self.whole.foreign / wall) if self.whole.known else None,
            "quota_throttled_share": self.whole.throttled / wall if quota else None,
            "thermal_throttles": None if now is None or throttles is None else now - throttles,
            "mhz": {"lowest": min(clocks), "median": statistics.median(clocks), "highest": max(clocks)}
            if clocks
            else None,
            "limits": {
                "idle_share": IDLE_LIMIT,
                "steal_share": STEAL_LIMIT,
                "foreign_share": FOREIGN_LIMIT,
                "quota_throttled_share": THROTTLED_LIMIT,
            },
        }


def moment(pids: Iterable[int] = ()) -> Moment:
    """The counters now; this process is always among those asked for, a process that is gone never is."""
    used = {os.getpid(): time.process_time()}
    for pid in pids:
        if (seconds := cpu_seconds(pid)) is not None:
            used[pid] = seconds
    busy, steal = _cores()
    return Moment(time.perf_counter(), busy, steal, _quota(), used)


def cpu_seconds(pid: int) -> float | None:
    """The CPU time that a process has used; ``None`` where it is gone.

    Linux has a clock for each process, whose id is made of the process's (``clock_getcpuclockid(3)``).
    """
    if hasattr(time, "clock_getres") and os.uname().sysname == "Linux":
        with suppress(OSError):
            return time.clock_gettime_ns((~pid << 3) | 2) / 1e9
        return None
    import psutil

    with suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return None


def _cores() -> tuple[float | None, float | None]:
    """Busy and stolen seconds of the cores that this process may use, since the system began."""
    ticks = os.sysconf("SC_CLK_TCK")
    busy = steal = 0
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    try:
        lines = _PROC_STAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    for line in lines:
        name, *counts = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in usable:
            # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
            user, nice, system, _, _, irq, softirq, stolen = map(int, counts[:8])
            busy += user + nice + system + irq + softirq
            steal += stolen
    return busy / ticks, steal / ticks


def _quota() -> float | None:
    """Seconds for which the container's processes were held back by its quota."""
    for file in _QUOTAS:
        with suppress(OSError, ValueError):
            entries = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
            if "throttled_usec" in entries:
                return int(entries["throttled_usec"]) / 1e6
            if "throttled_time" in entries:
                return int(entries["throttled_time"]) / 1e9
    return None


def clock_mhz() -> float | None:
    """The mean clock of the cores, as the system tells it."""
    with suppress(OSError, ValueError):
        files = _CPU_FOLDERS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
        if clocks := [int(file.read_text(encoding="ascii")) / 1000 for file in files]:
            return statistics.fmean(clocks)
    with suppress(OSError, ValueError):
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
        if clocks := [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]:
            return statistics.fmean(clocks)
    return None


def thermal_throttles() -> int | None:
    """How often the cores were slowed down because they were hot, since the system began."""
    with suppress(OSError, ValueError):
        files = _CPU_FOLDERS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
        if counts := [int(file.read_text(encoding="ascii")) for file in files]:
            return sum(counts)
    return None
