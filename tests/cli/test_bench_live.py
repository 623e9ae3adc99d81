"""The live table: what it shows, that it is drawn seldom and by no thread, nothing off a terminal."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from vit_deploy.bench.cases import Case
from vit_deploy.bench.measured import Measured
from vit_deploy.cli._bench_live import PAUSE_S, Hidden, LiveTable, live_table


def case(artefact: str, backend: str, batch: int = 1, role: str = "case") -> Case:
    return Case(
        bundle="b", artefact=artefact, format="onnx", precision="fp32", backend=backend, device="cpu",
        batch_size=batch, threads=2, verified=True, files={"f": "x"}, role=role,
    )  # fmt: skip


CASES = [
    case("pytorch-fp32", "eager"),
    case("x\x1b[31m", "ort"),
    case("x\x1b[31m", "ort", 8),
    case("x", "g", 1, "ceiling"),
]


class Terminal:
    """A live table on a terminal that is a text, at a time that is told."""

    def __init__(self, **options) -> None:
        self.text, self.now = io.StringIO(), 0.0
        console = Console(file=self.text, force_terminal=True, width=100, height=40)
        self.table = LiveTable(CASES, console, clock=lambda: self.now, **options)
        self.measured = [Measured(entry) for entry in CASES]

    def turn(self, place: int, *samples: int) -> None:
        self.measured[place].rounds.append(list(samples))
        self.table.round_done(place, self.measured[place])

    def shown(self) -> list[str]:
        plain = Console(width=100, file=io.StringIO())
        plain.print(self.table.table())
        lines = plain.file.getvalue().splitlines()
        return [line.strip() for line in lines if " on " in line and " cases done " not in line]


def test_rows_say_how_far_they_are():
    terminal = Terminal()
    terminal.table.phase("batch 1 on cpu: warming up")
    assert [("warming up" in line, "waiting" in line) for line in terminal.shown()] == [
        (True, False), (True, False), (False, True),
    ]  # fmt: skip
    terminal.table.phase("batch 1 on cpu: measuring", 20)
    for _ in range(8):
        terminal.turn(0, 4_000_000)
        terminal.turn(1, 1_000_000)
        terminal.turn(3, 1)  # a ceiling has no row
    eager, other, _ = terminal.shown()
    assert "round 8/20" in eager
    assert eager.split()[-3:] == ["4.00", "0.0", "%"]
    assert other.split()[-4:] == ["1.00", "0.0", "%", "0.25"]
    terminal.measured[2].error = "it died\nof something"
    terminal.table.case_failed(2, terminal.measured[2])
    terminal.table.group_done(terminal.measured[:2])
    assert [" done " in line for line in terminal.shown()] == [True, True, False]
    assert "failed: it died" in terminal.shown()[2]


def test_a_name_steers_no_terminal():
    assert "\x1b" not in "".join(Terminal().shown())


def test_what_an_earlier_run_measured_is_kept():
    assert "kept" in Terminal(done={CASES[0].key}).shown()[0]


def test_it_is_drawn_four_times_a_second_at_most_and_by_no_thread():
    terminal = Terminal()
    before = threading.active_count()
    drawn = 0
    with terminal.table:
        assert threading.active_count() == before
        for step in range(100):
            terminal.now = step * 0.05
            size = len(terminal.text.getvalue())
            terminal.turn(0, 1_000_000 + step)
            drawn += len(terminal.text.getvalue()) > size
    assert drawn == pytest.approx(5.0 / PAUSE_S, abs=1)


def test_it_keeps_no_hold_of_what_it_is_told():
    terminal = Terminal()
    terminal.turn(0, 2_000_000)
    terminal.measured[0].rounds.clear()
    assert "2.00" in terminal.shown()[0]


def test_a_terminal_that_is_gone_ends_no_run():
    terminal = Terminal()
    with terminal.table:
        terminal.table._live.update = lambda *_, **__: (_ for _ in ()).throw(OSError("gone"))
        terminal.turn(0, 1)


def test_off_a_terminal_nothing_is_shown(capsys):
    with live_table(CASES) as live:
        assert type(live) is Hidden
        live.phase("batch 1 on cpu: starting")
        live.round_done(0, Measured(CASES[0], rounds=[[1]]))
    assert capsys.readouterr() == ("", "")
