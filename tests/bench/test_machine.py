from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from vit_deploy.bench import machine
from vit_deploy.bench.machine import Moment, Tally, Watch

STAT = """cpu  9 9 9 9 9 9 9 9 9 9
cpu0 100 1 20 5000 30 4 5 60 70 0
cpu1 200 2 40 5000 30 8 10 20 70 0
cpu9 999 999 999 0 0 0 0 999 0 0
intr 1 2 3
"""


@pytest.fixture
def stat(tmp_path, monkeypatch):
    file = tmp_path / "stat"
    file.write_text(STAT)
    monkeypatch.setattr(machine, "_PROC_STAT", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    return file


def test_only_the_usable_cores_count(stat):
    ticks = os.sysconf("SC_CLK_TCK")
    found = machine.moment()
    assert found.busy == (100 + 1 + 20 + 4 + 5 + 200 + 2 + 40 + 8 + 10) / ticks
    assert found.steal == 80 / ticks


def test_a_system_without_the_files_is_no_quiet_one(tmp_path, monkeypatch):
    for name in ("_PROC_STAT", "_CPUINFO", "_CPU_FOLDERS"):
        monkeypatch.setattr(machine, name, tmp_path / "none")
    monkeypatch.setattr(machine, "_QUOTAS", (tmp_path / "none",))
    watch = Watch()
    with watch.turn(Tally(), {}, []):
        pass
    told = watch.summary()
    unknown = ("steal_share", "foreign_cores", "quota_throttled_share", "thermal_throttles", "mhz")
    assert [told[name] for name in unknown] == [None] * 5
    assert watch.last["foreign_s"] is None
    assert told["turns"] == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("usage_usec 9\nthrottled_usec 2500000\n", 2.5), ("nr_periods 1\nthrottled_time 500000000\n", 0.5)],
)
def test_a_quota_is_read_of_either_kind(tmp_path, monkeypatch, text, seconds):
    (tmp_path / "cpu.stat").write_text(text)
    monkeypatch.setattr(machine, "_QUOTAS", (tmp_path / "none", tmp_path / "cpu.stat"))
    assert machine.moment().throttled == seconds


def test_clock_and_throttling_are_read(tmp_path, monkeypatch):
    for number, khz in enumerate((2_000_000, 3_000_000)):
        for name, text in (("cpufreq/scaling_cur_freq", khz), ("thermal_throttle/core_throttle_count", 4)):
            file = tmp_path / f"cpu{number}" / name
            file.parent.mkdir(parents=True)
            file.write_text(f"{text}\n")
    monkeypatch.setattr(machine, "_CPU_FOLDERS", tmp_path)
    assert machine.clock_mhz() == 2500
    assert machine.thermal_throttles() == 8
    monkeypatch.setattr(machine, "_CPU_FOLDERS", tmp_path / "none")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\ncpu MHz\t\t: 1000.5\nprocessor\t: 1\ncpu MHz\t\t: 3000.5\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    assert machine.clock_mhz() == 2000.5


def moments(seconds=10.0, busy=0.0, steal=0.0, throttled=0.0, ours=0.0):
    return Moment(0, 0, 0, 0, {1: 0.0}), Moment(seconds, busy, steal, throttled, {1: ours})


@pytest.mark.parametrize(
    ("told", "threads", "reason"),
    [
        ({"busy": 20, "ours": 19.9}, 2, None),
        ({"busy": 20, "ours": 18}, 2, "other processes used 0.20 cores"),
        # One core is left free: half of it may be used by others.
        ({"busy": 15, "ours": 10}, 1, None),
        ({"busy": 17, "ours": 10}, 1, "other processes used 0.70 cores"),
        ({"steal": 0.3}, 2, None),
        ({"steal": 1.0}, 2, "the hypervisor kept 5 % of the cores' time"),
        ({"throttled": 1.0}, 2, "the quota of the container held it back for 10 % of the time"),
        ({"steal": 0.5, "seconds": 0.5}, 2, None),
    ],
)
def test_a_disturbed_case_says_by_what(told, threads, reason):
    tally = Tally()
    tally.add(*moments(**told))
    assert tally.disturbances(threads, 2) == ([reason] if reason else [])


def test_cpu_time_of_another_process_is_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        time.sleep(0.3)
        assert machine.cpu_seconds(spinning.pid) > 0.05
        acting, waiting = Tally(), Tally()
        with Watch().turn(acting, {spinning.pid: waiting}, [spinning.pid]):
            time.sleep(0.3)
        spinning.kill()
    assert waiting.idle_share > 0.3
    assert acting.idle_share is None
    assert machine.cpu_seconds(spinning.pid) is None


def test_what_waits_and_sleeps_is_idle():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        time.sleep(0.5)
        tally = Tally()
        with Watch().turn(Tally(), {waiting.pid: tally}, [waiting.pid]):
            time.sleep(0.3)
    assert tally.idle_share < machine.IDLE_LIMIT
