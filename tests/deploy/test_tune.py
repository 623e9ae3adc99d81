"""Who wins, exactly: on a machine whose times are known."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace

import pytest

from tests.deploy.tuning_fakes import BUNDLES, FakeMachine, row_of
from vit_deploy import Bundle
from vit_deploy.bench.launches import launch_reach
from vit_deploy.bundle import defaults as writing
from vit_deploy.bundle import edit_bundle
from vit_deploy.bundle.default import MachineRecord
from vit_deploy.bundle.defaults import require_writable_bundle, write_default
from vit_deploy.deploy.choose import REFERENCE, choose
from vit_deploy.deploy.tune import default_record, tune
from vit_deploy.deploy.tuning import race as racing
from vit_deploy.deploy.tuning.budget import parse_budget, parse_time
from vit_deploy.deploy.tuning.decision import decide
from vit_deploy.deploy.tuning.grid import Candidate, Wish, candidates_of, powers_up_to
from vit_deploy.deploy.tuning.race import Trial
from vit_deploy.deploy.tuning.score import paired, ratio_of
from vit_deploy.errors import BudgetUnmet, HostileInput, OutputFailed, RunFailed, UsageFailed
from vit_deploy.facts import Verdict
from vit_deploy.protocols import ExportedFiles, NoOptions
from vit_deploy.spec import BatchRange

ONE = Wish(threads=(1,))


@pytest.fixture(autouse=True)
def fake_runtime(monkeypatch):
    BUNDLES["know_the_fake"](monkeypatch)
    monkeypatch.setattr("vit_deploy.deploy.tuning.grid.usable_cores", lambda: 4)


@pytest.fixture
def made(tmp_path, small_model):
    """Make a bundle of fakes, or add to it: ``made(quick={}, passed=None)``."""

    def make(**artefacts):
        return BUNDLES["make_bundle"](tmp_path / "ein Bündel", small_model, **artefacts)

    return make


def case(**told):
    """A candidate; all but what is told is the same for each."""
    usual = {
        "bundle": "b",
        "artefact": "a",
        "format": "fake",
        "precision": "fp32",
        "backend": "fake",
        "device": "cpu",
        "batch_size": 1,
        "threads": 1,
        "verified": True,
        "files": {"orders.json": "0" * 64},
    }
    return Candidate(**{**usual, **told})


def tuned(bundle, machine, objective="latency", wish=ONE, **more):
    return tune(bundle, objective, wish=wish, measure=machine, **more)


def statuses(found):
    return {entry.case.artefact: entry.status for entry in found.trials}


# What is tried


@pytest.mark.parametrize(("most", "powers"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_powers_up_to(most, powers):
    assert powers_up_to(most) == powers


def test_latency_is_tried_at_batch_1_in_one_stream(made):
    cases, left_out = candidates_of(made(a={}), "latency")
    assert [(entry.batch_size, entry.threads, entry.streams) for entry in cases] == [
        (1, 4, 1),
        (1, 2, 1),
        (1, 1, 1),
    ]
    assert left_out == []
    assert all(entry.verified and entry.files == cases[0].files for entry in cases)


def test_throughput_is_tried_in_batches_and_streams_that_divide_the_threads(made):
    cases, _ = candidates_of(made(a={}, batch=BatchRange(1, 1, 6)), "throughput")
    found = {(entry.batch_size, entry.threads, entry.streams) for entry in cases}
    shares = [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4)]
    assert found == {(size, *share) for size in (1, 2, 4, 6) for share in shares}
    assert len(cases) == len(found)


def test_all_candidates_of_a_device_are_peers(made):
    cases, _ = candidates_of(made(a={}), "throughput")
    assert len({entry.peers for entry in cases}) == 1
    assert len({entry.key for entry in cases}) == len(cases)
    assert replace(cases[0], role="twin").peers == cases[0].peers


def test_no_batch_beyond_what_was_verified_is_tried(made):
    bundle = made(a={})
    record = bundle.manifest.artefacts["a"]
    parity = record.parity.model_copy(update={"details": {"batch_sizes": [1, 2, 3]}})
    bundle.manifest.artefacts["a"] = record.model_copy(update={"parity": parity})
    cases, _ = candidates_of(bundle, "throughput", ONE)
    assert sorted(entry.batch_size for entry in cases) == [1, 2, 3]


def test_what_is_made_for_another_batch_is_left_out_and_told(made):
    bundle = made(a={}, batch=BatchRange(4, 4, 4))
    cases, left_out = candidates_of(bundle, "latency")
    assert cases == []
    assert (left_out[0].name, left_out[0].mend) == ("a", "--batch-size 4")
    assert {entry.batch_size for entry in candidates_of(bundle, "latency", Wish(batch_sizes=(4,)))[0]} == {4}
    with pytest.raises(UsageFailed, match="nothing to tune"):
        tuned(bundle, FakeMachine())


def test_what_was_never_verified_or_failed_is_left_out_and_told(made):
    made(unproven={}, passed=None)
    made(wrong={}, passed=False)
    cases, left_out = candidates_of(made(proven={}), "latency", ONE)
    assert [entry.artefact for entry in cases] == ["proven"]
    assert {entry.name: entry.reason.split(":")[0] for entry in left_out} == {
        "unproven": "it was never verified",
        "wrong": "it failed its parity check",
    }
    assert all(entry.mend.startswith("vit-deploy verify ") for entry in left_out)


def test_a_backend_that_cannot_run_is_left_out_and_told(made):
    cases, left_out = candidates_of(made(a={}), "latency", Wish(device="cuda"))
    assert cases == []
    assert (left_out[0].name, left_out[0].reason) == ("a on fake", "the fake has no GPU")


def test_a_changed_file_is_refused_before_anything_is_measured(made):
    bundle = made(a={})
    next((bundle.path / "artefacts").rglob("orders.json")).write_text('{"step_us": 0}')
    machine = FakeMachine()
    with pytest.raises(HostileInput, match="changed since"):
        tuned(Bundle.open(bundle.path), machine)
    assert machine.seen == []


@pytest.mark.parametrize(
    "wish", [{"threads": (5,)}, {"streams": (8,)}, {"batch_sizes": (0,)}, {"threads": (0,)}]
)
def test_more_than_the_machine_has_is_refused(wish):
    with pytest.raises(UsageFailed, match=r"is [058]"):
        Wish(**wish)


# Budgets


def test_a_budget_is_read_in_its_units():
    found = {
        limit.metric: limit.value for limit in parse_budget("p50=20ms, p99=1.5s,memory=2GB,images_per_s=100")
    }
    assert found == {"p50": 20.0, "p99": 1500.0, "memory": 2e9, "images_per_s": 100.0}
    assert parse_budget("memory=1GiB,p90=500us")[0].value == 2**30
    assert parse_budget("") == ()


@pytest.mark.parametrize(
    "text",
    ["p99=50", "p99", "p98=5ms", "memory=2", "memory=-2GB", "images_per_s=5ms", "p50=0ms", "p50=1ms,p50=2ms"],
)
def test_a_budget_without_sense_is_refused(text):
    with pytest.raises(UsageFailed):
        parse_budget(text)


def test_the_search_time_is_no_budget():
    with pytest.raises(UsageFailed) as refused:
        parse_budget("time=5m")
    assert refused.value.next_command.startswith("--time 5m")
    assert [parse_time(text) for text in ("90s", "1.5m", "1h", "20")] == [90, 90, 3600, 20]
    for text in ("", "0s", "5d", "-1s", "9999999h"):
        with pytest.raises(UsageFailed):
            parse_time(text)


def test_a_few_samples_decide_of_a_quantile_only_what_they_can():
    (limit,) = parse_budget("p50=10ms")
    near = row_of(case(), [[9_000_000, 11_000_000]] * 6)
    beyond = row_of(case(), [[11_000_000]] * 6)
    assert not limit.clearly_broken(near)
    assert limit.clearly_broken(beyond)
    assert not limit.clearly_broken(row_of(case(), [[11_000_000]] * 5))  # 2^-5 is above 2.5 %
    (tail,) = parse_budget("p99=10ms")
    assert tail.holds(near) == "unknown"
    assert tail.holds(row_of(case(), [[9_000_000] * 400])) == "holds"
    assert tail.clearly_broken(
        row_of(case(), [[9_000_000] * 8 + [11_000_000] * 2])
    )  # 2 of 10, where 1 of 100 may


def test_a_rate_is_held_to_its_floor():
    (limit,) = parse_budget("images_per_s=100")
    row = row_of(case(batch_size=2), [[25_000_000] * 3] * 6)
    assert row.images_per_s == pytest.approx(80)
    assert limit.holds(row) == "breaks"
    assert limit.clearly_broken(row)
    assert limit.holds(row_of(case(batch_size=2, threads=2, streams=2), [[25_000_000] * 4] * 6)) == "holds"


# Ratios and decisions


def test_a_paired_ratio_cancels_what_slows_both():
    drift = [1.0, 5.0, 2.0, 9.0, 1.5, 3.0, 4.0]
    ratio = paired([value * 1.1 for value in drift], drift)
    apart = math.exp(
        launch_reach([0.0], processes=2)
    )  # two processes: no rounds can tell that they do not differ
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((1.1 / apart, 1.1, 1.1 * apart))
    assert ratio.decides
    assert paired([1.0] * 5, [1.0] * 5) is None  # five rounds bound no median


def trials(*told):
    """Trials with a row each: the case's settings, ms by round, peak."""
    found = []
    for number, (settings, rounds, peak) in enumerate(told):
        one = case(**{"artefact": f"a{number}", **settings})
        found.append(Trial(one, row_of(one, [[int(ms * 1e6)] for ms in rounds], peak)))
    return found


FLAT = [1.0] * 12
NOISE = [0.99, 1.01] * 6


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        (({}, NOISE, 120), ({"threads": 2}, FLAT, 100), "less memory"),
        (({"threads": 2}, NOISE, 100), ({}, FLAT, 101), "fewer threads"),
        (({"threads": 2, "streams": 2}, NOISE, 100), ({"threads": 2}, FLAT, 100), "fewer streams"),
        (({"batch_size": 2}, NOISE, 100), ({}, FLAT, 100), "a smaller batch"),
        (({"format": "torchscript"}, NOISE, 100), ({"format": "onnx"}, FLAT, 100), "the earlier format"),
        (({"artefact": "z"}, NOISE, 100), ({"artefact": "b"}, FLAT, 100), "the earlier name"),
    ],
)
@pytest.mark.parametrize("turn", [1, -1])
def test_where_no_difference_can_be_measured_the_tie_order_decides(one, other, word, turn):
    both = trials(one, other)
    found = decide(both[::turn], "latency")
    assert found.winner is both[1]
    assert not found.measurable
    assert found.sentence.startswith("no measurable difference from ")
    assert found.sentence.endswith(f"preferred for {word}")


def test_a_measurable_difference_decides_against_the_tie_order():
    both = trials(({"threads": 4}, [0.9] * 12, 500), ({}, FLAT, 100))
    found = decide(both, "latency")
    assert (found.winner, found.runner_up, found.measurable) == (both[0], both[1], True)
    assert found.ratio.value == pytest.approx(0.9)
    assert decide(both, "memory").winner is both[1]


def test_memory_within_its_resolution_is_no_difference():
    both = trials(({"threads": 2}, FLAT, 1000), ({}, FLAT, 1015))
    assert not ratio_of(both[1].row, both[0].row, "memory").decides
    assert decide(both, "memory").winner is both[1]


# The search


def test_the_faster_wins(made):
    bundle = made(quick={}, slow={}, slower={})
    found = tuned(bundle, FakeMachine({"quick": 1.0, "slow": 2.0, "slower": 4.0}))
    assert found.decision.winner.case.artefact == "quick"
    assert found.decision.runner_up.case.artefact == "slow"
    assert found.decision.ratio.value == pytest.approx(0.5)
    assert statuses(found) == {"quick": "winner", "slow": "worse", "slower": "worse"}
    assert found.trials[0].row.p50_ms == 1.0


def test_an_unverified_faster_one_never_wins_and_is_never_run(made):
    made(unproven={}, passed=None)
    machine = FakeMachine({"unproven": 0.1, "proven": 1.0})
    found = tuned(made(proven={}), machine)
    assert found.decision.winner.case.artefact == "proven"
    assert found.decision.runner_up is None
    assert not any("unproven" in key for keys in machine.seen for key in keys)
    assert [entry.name for entry in found.left_out] == ["unproven"]


def test_each_objective_has_its_own_winner(made):
    bundle = made(quick={}, wide={}, small={})
    times = {"quick": 1.0, "wide": lambda case: 2.0 + 0.1 * case.batch_size, "small": 3.0}
    machine = FakeMachine(
        {
            name: value if callable(value) else (lambda case, ms=value: ms * case.batch_size)
            for name, value in times.items()
        },
        memory={"small": 5 * 10**7},
    )
    winners = {
        objective: tuned(bundle, machine, objective).decision.winner.case
        for objective in ("latency", "throughput", "memory")
    }
    assert {name: entry.artefact for name, entry in winners.items()} == {
        "latency": "quick",
        "throughput": "wide",
        "memory": "small",
    }
    assert {name: entry.batch_size for name, entry in winners.items()} == {
        "latency": 1,
        "throughput": 8,
        "memory": 1,
    }


def test_threads_and_streams_are_found(made):
    def ms(case):
        return {1: 4.0, 2: 2.0, 4: 2.5}[case.threads] * (1.5 if case.streams > 1 else 1.0)

    found = tuned(made(a={}), FakeMachine({"a": ms}), wish=Wish())
    assert found.decision.winner.case.threads == 2
    # 4 threads in 4 streams: 3.75 ms each, four at a time.
    found = tuned(made(a={}), FakeMachine({"a": ms}), "throughput", wish=Wish(batch_sizes=(1,)))
    assert (found.decision.winner.case.threads, found.decision.winner.case.streams) == (4, 4)


@pytest.mark.parametrize(
    ("budget", "winner"),
    [("", "quick"), ("memory=200MB", "small"), ("p99=2ms", "steady"), ("memory=200MB,p99=2ms", "slow")],
)
def test_a_budget_binds(made, budget, winner):
    bundle = made(quick={}, small={}, steady={}, slow={})
    machine = FakeMachine(
        {"quick": 1.0, "small": 1.2, "steady": 1.4, "slow": 1.6},
        memory={"quick": 10**9, "steady": 10**9},
        outlier_ms={"quick": 9.0, "small": 9.0},
        samples=50,
    )
    found = tuned(bundle, machine, budget=parse_budget(budget))
    assert found.decision.winner.case.artefact == winner
    if budget:
        assert statuses(found)["quick"] == "over budget"
    if "memory" in budget:  # what no more samples could mend is not run again
        assert [entry.runs for entry in found.trials if entry.case.artefact in ("quick", "steady")] == [1, 1]


def test_what_was_only_slower_comes_back_where_no_finalist_holds_the_budget(made):
    bundle = made(quick={}, slow={}, slower={}, slowest={})
    machine = FakeMachine({"quick": 1.0, "slow": 2.0, "slower": 3.0, "slowest": 4.0}, samples=40)

    def measure(cases, settings, *, progress=None):
        # The tail shows only in the long runs, after the others were found slower.
        told = dict.fromkeys(("quick", "slow", "slower"), 50.0)
        machine.outlier_ms = told if settings.soundness else {}
        return machine(cases, settings)

    found = tuned(bundle, measure, budget=parse_budget("p99=10ms"))
    assert found.decision.winner.case.artefact == "slowest"
    assert set(statuses(found).values()) == {"winner", "over budget"}


def test_nothing_holds_the_budget_and_the_best_is_named(made):
    found = tuned(
        made(quick={}, slow={}), FakeMachine({"quick": 3.0, "slow": 9.0}), budget=parse_budget("p50=2ms")
    )
    assert found.decision is None
    with pytest.raises(BudgetUnmet, match=r"the best was quick/fake/cpu/b1.* with p50 3 ms") as unmet:
        found.require_winner()
    assert unmet.value.exit_code == 1
    with pytest.raises(BudgetUnmet):
        default_record(found)


def test_a_tail_that_the_samples_cannot_bound_is_not_held(made):
    found = tuned(made(a={}), FakeMachine({"a": 1.0}, samples=1), budget=parse_budget("p99=50ms"))
    with pytest.raises(BudgetUnmet, match="p99 not known from 12 samples"):
        found.require_winner()


def test_noise_alone_drops_nobody(made):
    """Four are behind by their medians, in most rounds and not in all: they go into the next round too."""
    noisy = {name: [1.1, 1.1, 0.9, 1.1, 0.85, 1.1] for name in "abcd"}
    found = tuned(made(steady={}, **{name: {} for name in noisy}), FakeMachine({"steady": 1.0, **noisy}))
    assert all(entry.runs > 2 or entry.status == "no time" for entry in found.trials)
    assert "worse" not in statuses(found).values()


def test_a_tie_is_called_one(made):
    machine = FakeMachine({"one": NOISE, "other": FLAT}, memory={"one": 2 * 10**8})
    found = tuned(made(one={}, other={}), machine)
    assert found.decision.winner.case.artefact == "other"
    assert "no measurable difference from one/fake" in found.decision.sentence
    assert statuses(found)["one"] == "no difference"


def test_every_heat_has_the_best_so_far_and_no_more_than_fit(made):
    names = [f"a{number:02}" for number in range(14)]
    machine = FakeMachine({name: 1.0 + number for number, name in enumerate(names)})
    found = tuned(made(**{name: {} for name in names}), machine)
    assert found.decision.winner.case.artefact == "a00"
    assert all(len(keys) <= 6 for keys in machine.seen)
    assert all(any(key.startswith("a00/") for key in keys) for keys in machine.seen)
    durations = [settings.duration_s for settings in machine.settings]
    assert durations == sorted(durations)
    assert [entry.runs for entry in found.trials[2:]] == [1] * 12
    assert [settings.soundness for settings in machine.settings] == [False] * (len(durations) - 1) + [True]


def test_survivors_run_longer(made):
    names = [f"a{number}" for number in range(5)]
    machine = FakeMachine(dict.fromkeys(names, FLAT))
    tuned(made(**{name: {} for name in names}), machine)
    durations = [settings.duration_s for settings in machine.settings]
    assert durations[:3] == [0.6, 1.2, 2.4]


def test_what_there_is_no_time_for_is_told(made, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(racing.time, "monotonic", lambda: clock[0])
    names = [f"a{number:02}" for number in range(12)]
    machine = FakeMachine({name: 1.0 + number for number, name in enumerate(names)})

    def measure(cases, settings, *, progress=None):
        clock[0] += 5.0 * len(cases)
        return machine(cases, settings)

    found = tuned(made(**{name: {} for name in names}), measure, time_s=60.0)
    words = statuses(found)
    assert words["a00"] == "winner"
    assert list(words.values()).count("no time") == 6
    assert "no time to measure it" in next(entry.why for entry in found.trials if entry.status == "no time")


def test_a_failure_leaves_the_race_and_all_of_them_end_it(made):
    machine = FakeMachine({"good": 1.0}, errors={"bad": "out of tensors"})
    found = tuned(made(bad={}, good={}), machine)
    assert statuses(found) == {"good": "winner", "bad": "failed"}
    machine.errors["good"] = "no luck"
    with pytest.raises(RunFailed, match="everything that was tried failed"):
        tuned(Bundle.open(found.trials[0].case.bundle), machine)


def test_the_front_holds_what_nothing_beats(made):
    machine = FakeMachine({"quick": 1.0, "small": 2.0, "neither": 3.0}, memory={"small": 5 * 10**7})
    found = tuned(made(quick={}, small={}, neither={}), machine)
    assert {key.split("/")[0] for key in found.front} == {"quick", "small"}


def test_a_final_that_cannot_be_believed_is_told(made):
    bundle = made(a={}, b={})
    assert tuned(bundle, FakeMachine()).doubt == ""
    assert tuned(bundle, FakeMachine(unsound="it is at 1.2 of itself")).doubt == "it is at 1.2 of itself"


def test_what_disturbed_the_final_is_told_once(made):
    told = {"a": ("other processes used 1.5 cores", "the clock fell"), "b": ("other processes used 1.4 cores",)}
    found = tuned(made(a={}, b={}), FakeMachine(disturbed=told))
    assert found.disturbed == ("other processes used 1.5 cores", "the clock fell")


def test_a_stop_is_a_stop(made):
    with pytest.raises(KeyboardInterrupt):
        tuned(made(a={}), FakeMachine(interrupt_after=1))


def test_real_workers_agree(made, monkeypatch):
    """The whole of it, with workers: the fake sleeps as long as it is told."""
    monkeypatch.undo()
    BUNDLES["know_the_fake"](monkeypatch)
    made(fastest={"step_us": 100}, passed=None)
    bundle = made(quick={"step_us": 1500}, slow={"step_us": 6000}, broken={"refuse": "not this one"})
    found = tune(bundle, wish=ONE, time_s=4.0)
    assert statuses(found) == {"quick": "winner", "slow": "worse", "broken": "failed"}
    assert found.decision.measurable
    assert found.decision.ratio.high < 0.6
    record = default_record(found)
    assert record.figures.p50_ms == pytest.approx(1.6, abs=0.4)
    assert record.figures.peak_rss_bytes > 10**7
    assert record.measured_with["fake"] == "1.0"


# The manifest


@pytest.fixture
def record(made):
    """A bundle of two fakes and the default that makes `quick` its winner."""
    bundle = made(quick={}, slow={})
    return default_record(
        tuned(bundle, FakeMachine({"quick": 1.0, "slow": 2.0}), budget=parse_budget("p50=5ms"))
    )


def where(tmp_path):
    return tmp_path / "ein Bündel"


def text_of(tmp_path):
    return (where(tmp_path) / "manifest.json").read_text()


def test_a_default_is_written_and_read_back(record, tmp_path):
    before = json.loads(text_of(tmp_path))
    assert "default" not in before
    write_default(where(tmp_path), record)
    after = json.loads(text_of(tmp_path))
    assert {name: value for name, value in after.items() if name != "default"} == before
    told = after["default"]
    assert (told["artefact"], told["backend"], told["threads"], told["budget"]) == (
        "quick",
        "fake",
        1,
        ["p50=5ms"],
    )
    assert told["files"] == {"orders.json": Bundle.open(where(tmp_path)).records["quick"].files[0].sha256}
    assert str(tmp_path) not in json.dumps(told)
    assert Bundle.open(where(tmp_path)).manifest.default == record
    text = text_of(tmp_path)
    write_default(where(tmp_path), record)
    assert text_of(tmp_path) == text
    assert sorted(path.name for path in where(tmp_path).iterdir() if path.name[0] == ".") == [".lock"]


def add(path, model, name, orders="{}", passed=True):
    with edit_bundle(path, model) as editor:
        (editor.stage(name) / "orders.json").write_text(orders)
        exported = ExportedFiles(("orders.json",), model.config.io_spec())
        candidate = editor.candidate(name, "fake", "fp32", exported)
        editor.accept(candidate, exported, NoOptions(), Verdict(passed=passed))
        return editor.dropped_default


def test_another_export_keeps_the_default_and_a_new_one_of_its_artefact_drops_it(record, tmp_path, small_model):
    write_default(where(tmp_path), record)
    assert add(where(tmp_path), small_model, "another") is None
    assert Bundle.open(where(tmp_path)).manifest.default == record
    assert add(where(tmp_path), small_model, "quick") == record
    assert Bundle.open(where(tmp_path)).manifest.default is None


def test_what_was_exported_meanwhile_stays(record, tmp_path, small_model):
    add(where(tmp_path), small_model, "another")
    write_default(where(tmp_path), record)
    assert set(Bundle.open(where(tmp_path)).records) == {"quick", "slow", "another"}


def test_a_winner_that_was_exported_anew_meanwhile_is_not_written(record, tmp_path, small_model):
    add(where(tmp_path), small_model, "quick", '{"step_us": 9}')
    text = text_of(tmp_path)
    with pytest.raises(RunFailed, match="changed while it was tuned"):
        write_default(where(tmp_path), record)
    assert text_of(tmp_path) == text


def test_a_writer_at_work_is_waited_for(record, tmp_path, small_model):
    path = where(tmp_path)
    with edit_bundle(path, small_model):
        thread = threading.Thread(target=write_default, args=(path, record))
        thread.start()
        time.sleep(0.3)
        assert thread.is_alive()
        assert Bundle.open(path).manifest.default is None
    thread.join(20)
    assert Bundle.open(path).manifest.default == record


def test_a_writer_that_does_not_end_is_told_of(record, tmp_path, monkeypatch, small_model):
    monkeypatch.setattr(writing, "LOCK_TIMEOUT_S", 0.2)
    with edit_bundle(where(tmp_path), small_model), pytest.raises(OutputFailed, match="another process"):
        write_default(where(tmp_path), record)


def test_a_bundle_that_cannot_be_written_is_found_out(record, tmp_path, monkeypatch):
    require_writable_bundle(where(tmp_path))

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(writing.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputFailed, match="Read-only file system"):
        require_writable_bundle(where(tmp_path))


def test_a_manifest_that_is_not_replaced_stays_whole(record, tmp_path, monkeypatch):
    text = text_of(tmp_path)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vit_deploy.bundle.durable.sync_file", stop)
    with pytest.raises(KeyboardInterrupt):
        write_default(where(tmp_path), record)
    assert text_of(tmp_path) == text
    assert not (where(tmp_path) / ".staging").exists()


@pytest.mark.parametrize(
    "change",
    [{"threads": 0}, {"artefact": 5}, {"more": 1}, {"files": {}}, {"objective": "fun"}, {"batch_size": 10**9}],
)
def test_a_default_that_tune_never_wrote_is_refused(record, tmp_path, change):
    write_default(where(tmp_path), record)
    data = json.loads(text_of(tmp_path))
    data["default"].update(change)
    (where(tmp_path) / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(HostileInput, match="is no manifest"):
        Bundle.open(where(tmp_path))


# What predict chooses


@pytest.fixture
def chosen(record, tmp_path):
    """Write the default, changed as told, and choose."""

    def choose_with(change=None, **asked):
        write_default(where(tmp_path), record)
        bundle = Bundle.open(where(tmp_path))
        if change:
            default = record.model_copy(update=change)
            bundle.manifest = bundle.manifest.model_copy(update={"default": default})
        return choose(bundle, **asked)

    return choose_with


def test_the_default_is_used_with_its_settings(chosen):
    found = chosen({"batch_size": 4})
    assert (found.name, found.runtime.name, str(found.device)) == ("quick", "fake", "cpu")
    assert (found.threads, found.batch_size, found.verified) == (1, 4, True)
    assert found.notes == ("tuned default: quick on fake (cpu), batch 4, 1 thread, 1 stream",)


def test_the_user_goes_first(chosen):
    assert chosen(artefact="slow").name == "slow"
    found = chosen(artefact="quick")
    assert (found.name, found.threads, found.notes) == ("quick", None, ())
    assert chosen(backend="eager").name == REFERENCE
    assert chosen(device="cpu").threads == 1


def test_several_streams_are_told_of(chosen):
    found = chosen({"threads": 4, "streams": 4})
    assert found.threads == 4
    assert "one stream with all 4 threads" in found.notes[0]


def test_on_another_machine_the_settings_are_left_out(chosen):
    other = MachineRecord(cpu="another", cores=64)
    found = chosen({"environment": other, "threads": 64, "artefact": "quick"})
    assert (found.name, found.threads, found.batch_size) == ("quick", None, None)
    assert "tuned on another machine (another, 64 cores; this one is " in found.notes[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"artefact": "gone"}, "not in the bundle any more"),
        ({"files": {"orders.json": "0" * 64}}, "its files are others"),
        ({"backend": "nothing"}, "no backend 'nothing'"),
        ({"backend": "eager"}, "eager does not open quick"),
        ({"device": "cuda"}, "the fake has no GPU"),
        ({"device": "toaster"}, "unknown device 'toaster'"),
    ],
)
def test_a_default_that_does_not_hold_is_told_of_and_not_used(chosen, change, why):
    found = chosen(change)
    assert (found.name, found.threads) == ("quick", None)
    assert "is not used" in found.notes[0]
    assert why in found.notes[0]
    assert "run: vit-deploy tune" in found.notes[0]


def test_a_default_for_another_device_than_asked_is_not_used(chosen):
    found = chosen({"device": "cuda:1"}, device="cpu")
    assert "it is for cuda:1, not for cpu" in found.notes[0]


def test_a_default_that_lost_its_proof_is_not_used(chosen, record, tmp_path):
    write_default(where(tmp_path), record)
    bundle = Bundle.open(where(tmp_path))
    quick = bundle.records["quick"]
    bundle.manifest.artefacts["quick"] = quick.model_copy(
        update={"parity": quick.parity.model_copy(update={"passed": None})}
    )
    found = choose(bundle)
    assert found.name == "slow"
    assert "is not proven" in found.notes[0]
