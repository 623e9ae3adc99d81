from __future__ import annotations

import itertools
import json
from dataclasses import replace

import psutil
import pytest

from vit_deploy.bench import Settings, process, run_bench
from vit_deploy.bench.group import FIRST_LOOK
from vit_deploy.bench.listener import Quiet
from vit_deploy.bench.measured import Measured
from vit_deploy.errors import UsageFailed

QUICK = {
    "duration_s": 0.2,
    "rounds": 4,
    "launches": 1,
    "precision_target": 1e-9,
    "soundness": False,
    "timeout_s": 60.0,
}


def bench(cases, **settings):
    return run_bench(cases, Settings(**{**QUICK, **settings}))


def test_rows_stand_in_the_order_that_was_asked(fake_cases):
    result = bench(fake_cases((1, 2), slow={"step_us": 4000}, quick={"step_us": 500}))
    assert [(row.artefact, row.batch_size) for row in result.rows] == [
        ("quick", 1),
        ("slow", 1),
        ("quick", 2),
        ("slow", 2),
    ]
    assert all(row.ok and row.verified for row in result.rows)
    quick, slow = result.rows[:2]
    assert quick.ratio == 1.0
    assert slow.ratio > 1.0
    assert slow.baseline == "quick on fake"
    assert slow.p50_ms >= 4.0
    assert slow.images_per_s == pytest.approx(1e3 / slow.p50_ms, rel=0.2)
    assert result.rows[3].images_per_s == pytest.approx(2e3 / result.rows[3].p50_ms, rel=0.2)
    assert result.exit_code == 0


def test_turns_are_taken_one_at_a_time_in_the_order_that_is_told(fake_cases, tmp_path):
    trace = tmp_path / "trace"
    names = ("a", "b", "c")
    result = bench(fake_cases(**{name: {"trace": str(trace)} for name in names}), rounds=6)
    seen = [pid for pid, _ in itertools.groupby(trace.read_text().split())]
    told = [index for entry in result.order for index in entry]
    # Starting and warming up are two rounds more, and a neighbour may go twice running.
    merged = [index for index, _ in itertools.groupby(told)]
    turns = seen[-len(merged) :]
    pid_of = dict(zip(merged, turns, strict=True))
    assert [pid_of[index] for index in merged] == turns
    assert len(set(pid_of.values())) == 3


class Instant:
    """A worker that answers at once."""

    spawned_ns = 0
    pid = 0

    def __init__(self, case):
        pass

    def ask(self, command, timeout_s, **arguments):
        return {
            "open": {"facts": {}, "cold_start_ns": {}},
            "warm": {"steps": 2, "elapsed_ns": 1, "settled": True, "step_ns": 6},
            "measure": {"samples_ns": [5, 7], "elapsed_ns": 12, "rested": True},
            "finish": {"peak_rss_bytes": 1, "peak_device_bytes": None},
        }[command]

    def close(self, *, at_once=False):
        pass


def test_the_order_is_random_and_seeded(fake_cases):
    cases = fake_cases(a={}, b={}, c={})
    first, again, other = (
        run_bench(cases, Settings(**{**QUICK, "seed": seed, "rounds": 20}), start_worker=Instant).order
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(first) == 20
    assert all(sorted(entry) == [0, 1, 2] for entry in first)
    assert len(set(first)) > 3


def test_ceilings_take_every_fourth_round_and_get_no_row(fake_cases, monkeypatch):
    from vit_deploy.bench import ceiling

    asked = []
    monkeypatch.setattr(ceiling, "describe_ceiling", lambda measured: {"key": measured.case.key})
    monkeypatch.setattr(ceiling, "limit_of", lambda *given: asked.append(given) or {"share": 0.5})
    (case,) = fake_cases(only={})
    bound = replace(case, role="ceiling", artefact="products")
    settings = Settings(**{**QUICK, "rounds": 9})
    result = run_bench([case, bound], settings, start_worker=Instant)
    assert [row.key for row in result.rows] == [case.key]
    assert [1 in entry for entry in result.order] == [True, False, False, False] * 2 + [True]
    assert result.ceilings == ({"key": bound.key},)
    assert result.rows[0].limit == {"share": 0.5}
    ((asked_case, p50_ns, images_per_s, ceilings),) = asked
    assert (asked_case, p50_ns) == (case, 6.0)
    assert images_per_s == pytest.approx(2e9 / 12)
    assert [entry.case for entry in ceilings] == [bound]


def test_samples_are_kept_by_round(fake_cases):
    (row,) = bench(fake_cases(only={})).rows
    assert len(row.round_lengths) == 4
    assert sum(row.round_lengths) == len(row.samples_ns) > 4
    assert all(isinstance(sample, int) for sample in row.samples_ns)


def test_slow_steps_still_give_an_interval(fake_cases):
    (row,) = bench(fake_cases(only={"step_us": 30_000}), duration_s=0.01, turn_s=0.01, rounds=None).rows
    assert row.round_lengths == (1,) * 8
    assert row.half_width is not None
    assert row.p90_ms is row.p99_ms is None


def test_precision_ends_the_run_early(fake_cases):
    result = bench(fake_cases(only={}), precision_target=100.0, rounds=50)
    assert len(result.order) == FIRST_LOOK


@pytest.mark.parametrize(
    ("orders", "message", "worker_exit"),
    [
        ({"crash_after": 40}, "killed by SIGKILL", -9),
        ({"exit_after": 40}, "exit code 3", 3),
        ({"raise_after": 40}, "out of tensors", None),
        ({"refuse": "no"}, "no", None),
    ],
)
def test_a_failure_is_a_row(fake_cases, orders, message, worker_exit):
    result = bench(fake_cases(bad={"step_us": 9000, **orders}, good={}))
    bad, good = result.rows
    assert not bad.ok
    assert message in bad.error
    assert bad.worker_exit == worker_exit
    assert bad.p50_ms is bad.images_per_s is bad.ratio is None
    assert good.ok
    assert good.ratio == 1.0
    assert len(good.round_lengths) == 4
    assert result.exit_code == 0


def test_every_launch_has_a_worker_of_its_own(fake_cases, tmp_path):
    trace = tmp_path / "trace"
    names = ("a", "b")
    result = bench(fake_cases(**{name: {"trace": str(trace)} for name in names}), rounds=7, launches=3)
    assert [row.launch_lengths for row in result.rows] == [(3, 3, 1)] * 2
    assert len(set(trace.read_text().split())) == 6
    assert all(row.ok and len(row.round_lengths) == 7 and row.ratio for row in result.rows)
    assert not psutil.Process().children(recursive=True)


def test_a_launch_has_two_rounds_at_least(fake_cases):
    (row,) = bench(fake_cases(only={}), rounds=5, launches=5).rows
    assert row.launch_lengths == (3, 2)


def test_the_cold_start_and_the_facts_are_those_of_the_first_launch(fake_cases):
    seen = []

    class Look(Quiet):
        def round_done(self, case_index, measured):
            seen.append((dict(measured.cold_start_ns), len(measured.launch_lengths)))

    bench_settings = Settings(**{**QUICK, "rounds": 4, "launches": 2})
    run_bench(fake_cases(only={}), bench_settings, listener=Look())
    assert [launch for _, launch in seen] == [1, 1, 2, 2]
    assert all(cold == seen[0][0] for cold, _ in seen)


def test_a_worker_that_fails_in_a_later_launch_is_a_row(fake_cases):
    begun = []

    def start(case):
        begun.append(case.key)
        if len(begun) == 4:
            raise process.CaseFailed("the second launch came to nothing")
        return process.start_worker(case)

    settings = Settings(**{**QUICK, "launches": 2})
    result = run_bench(fake_cases(a={}, b={}), settings, start_worker=start)
    assert sorted(row.ok for row in result.rows) == [False, True]
    failed = next(row for row in result.rows if not row.ok)
    assert "second launch" in failed.error
    assert not psutil.Process().children(recursive=True)


def test_a_hang_is_a_row(fake_cases):
    (row,) = bench(fake_cases(bad={"hang_after": 1}), timeout_s=1.0).rows
    assert not row.ok
    assert "did not answer 'open' within 1 s and was killed" in row.error


def test_the_exit_code_when_every_row_failed(fake_cases):
    assert bench(fake_cases(a={"refuse": "no"}, b={"crash_after": 1})).exit_code == 1


def test_no_process_is_left(fake_cases):
    bench(fake_cases(a={}, b={"crash_after": 3}))
    assert not psutil.Process().children(recursive=True)


class StopAt(Quiet):
    """Ctrl-C after so many turns."""

    def __init__(self, turns):
        self.turns = turns
        self.finished = []

    def round_done(self, case_index, measured):
        assert len(psutil.Process().children()) == 2
        self.turns -= 1
        if not self.turns:
            raise KeyboardInterrupt

    def group_done(self, measured):
        self.finished += [entry.case.key for entry in measured]


def test_ctrl_c_keeps_what_was_measured(fake_cases):
    listener = StopAt(40)
    cases = fake_cases((1, 2), a={}, b={})
    result = run_bench(cases, Settings(**{**QUICK, "rounds": 30}), listener=listener)
    assert not psutil.Process().children(recursive=True)
    assert result.interrupted
    assert [row.ok for row in result.rows] == [True, True, False, False]
    assert {row.error for row in result.rows} == {None, "stopped by the user"}
    assert {len(row.round_lengths) for row in result.rows[:2]} <= {19, 20, 21}
    assert all(row.p50_interval_ms and row.ratio for row in result.rows[:2])
    assert listener.finished == []
    assert result.to_dict()["interrupted"]


def test_ctrl_c_before_there_is_enough_leaves_no_figures(fake_cases):
    result = run_bench(fake_cases(a={}, b={}), Settings(**QUICK), listener=StopAt(2))
    assert result.interrupted
    assert [row.ok for row in result.rows] == [False, False]
    assert result.exit_code == 1


def test_what_an_earlier_run_measured_is_not_measured_again(fake_cases):
    cases = fake_cases((1, 2), a={}, b={})
    kept = {}

    class Keep(Quiet):
        def group_done(self, measured):
            kept.update({entry.case.key: Measured.from_dict(entry.to_dict()) for entry in measured})

    first = run_bench(cases, Settings(**QUICK), listener=Keep())
    half = {case.key: kept[case.key] for case in cases if case.batch_size == 1}
    started = []

    def start(case):
        started.append(case.key)
        return process.start_worker(case)

    second = run_bench(cases, Settings(**QUICK), done=half, start_worker=start)
    assert sorted(started) == [case.key for case in cases if case.batch_size == 2]
    assert [row.samples_ns for row in second.rows[:2]] == [row.samples_ns for row in first.rows[:2]]
    assert second.rows[2].samples_ns != first.rows[2].samples_ns
    assert all(row.ok and row.ratio for row in second.rows)


def test_an_unverified_artefact_is_marked(fake_cases):
    (row,) = bench(fake_cases(passed=None, only={})).rows
    assert row.ok
    assert not row.verified
    assert "unverified" in row.notes


def test_a_row_says_what_it_measured(fake_cases):
    cases = fake_cases(only={})
    result = bench(cases)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    (row,) = document["rows"]
    assert row["sha256"] == cases[0].sha256
    assert row["files"] == {"orders.json": cases[0].sha256}
    assert row["facts"]["version"] == "1.0"
    assert list(row["cold_start_ms"]) == ["import", "check", "open", "first"]
    assert row["warm_up"]["steps"] > 0
    assert document["settings"]["seed"] == 0
    assert document["settings"]["thread_settings"]["1"]["OMP_NUM_THREADS"] == "1"


def test_nothing_to_measure_is_refused():
    with pytest.raises(UsageFailed):
        run_bench([], Settings())


@pytest.mark.parametrize("setting", ["duration_s", "rounds", "precision_target", "timeout_s"])
def test_settings_are_above_zero(setting):
    with pytest.raises(UsageFailed, match=setting.removesuffix("_s").replace("_", "-")):
        Settings(**{setting: 0})
