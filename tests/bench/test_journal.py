"""The journal: what was measured outlives a crash, a full disk and Ctrl-C; it goes on only where it belongs."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from dataclasses import asdict, replace

import pytest

from tests.bench import results
from vit_deploy.bench import Settings, run_bench
from vit_deploy.bench.cases import Case
from vit_deploy.bench.journal import Journal, journal_path
from vit_deploy.bench.result import Measured
from vit_deploy.errors import HostileInput, OutputFailed, UsageFailed

SETTINGS = {"duration_s": 1.0, "rounds": 2, "seed": 0}


def case(name="a", batch_size=1, **changes):
    told = {
        "bundle": "/somewhere/a bundle é", "artefact": name, "format": "onnx", "precision": "fp32",
        "backend": "fake", "device": "cpu", "batch_size": batch_size, "threads": 1, "verified": True,
        "files": {"model.onnx": "a" * 64}, "image_size": (32, 48),
    }  # fmt: skip
    return Case(**{**told, **changes})


CASES = [case("a"), case("b"), case("a", 8), case("b", 8)]


def measured(one, **changes):
    told = {"rounds": [[5, 7], [6]], "elapsed_ns": [12, 6], "cold_start_ns": {"import": 1, "first": 2}}
    return Measured(one, **{**told, **changes})


@pytest.fixture
def path(tmp_path):
    return journal_path(tmp_path / "a result é.json")


def journal(path, cases=CASES, settings=SETTINGS, environment=results.ENVIRONMENT, resume=True):
    return Journal(path, cases, settings, environment, resume=resume)


def with_a_group(path):
    with journal(path, resume=False) as kept:
        kept.group_done([measured(CASES[0]), measured(CASES[1], error="it broke", exit_code=4, rounds=[[3]])])
    return path


def test_it_lies_beside_the_result(tmp_path):
    found = journal_path(tmp_path / "result.json")
    assert found.parent == tmp_path
    assert "result.json" in found.name


def test_what_was_kept_is_there_again(path):
    with journal(with_a_group(path)) as kept:
        done = kept.finished()
    assert set(done) == {CASES[0].key, CASES[1].key}
    assert done[CASES[0].key] == measured(CASES[0])
    assert (done[CASES[1].key].error, done[CASES[1].key].exit_code) == ("it broke", 4)


def test_a_resumed_journal_goes_on_where_it_was(path):
    with journal(with_a_group(path)) as kept:
        kept.group_done([measured(CASES[2]), measured(CASES[3])])
    with journal(path) as kept:
        assert set(kept.finished()) == {one.key for one in CASES}


def test_without_resume_it_begins_anew(path):
    with journal(with_a_group(path), resume=False) as kept:
        assert kept.finished() == {}
    with journal(path) as kept:
        assert kept.finished() == {}


def test_with_nothing_to_resume_it_begins(path):
    with journal(path) as kept:
        assert kept.finished() == {}
    assert path.exists()
    path.write_bytes(b"")
    with journal(path) as kept:
        kept.group_done([measured(CASES[0])])
    with journal(path) as kept:
        assert set(kept.finished()) == {CASES[0].key}


def test_it_goes_when_the_result_is_written(path):
    with journal(path) as kept:
        kept.remove()
        kept.remove()
    assert not path.exists()


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_torn_last_line_is_dropped(path, cut):
    with journal(with_a_group(path)) as kept:
        kept.group_done([measured(CASES[2]), measured(CASES[3])])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with journal(path) as kept:
        assert set(kept.finished()) == {CASES[0].key, CASES[1].key}
        kept.group_done([measured(CASES[2]), measured(CASES[3])])
    assert path.read_bytes() == whole


def test_every_cut_is_survived(path):
    whole = with_a_group(path).read_bytes()
    header = whole.index(b"\n") + 1
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with journal(path) as kept:
            assert kept.finished() == {}
        assert path.read_bytes() == whole[:header]


def test_a_tail_of_zeros_is_dropped(path):
    with with_a_group(path).open("ab") as file:
        file.write(b"\0" * 500)
    with journal(path) as kept:
        assert len(kept.finished()) == 2


def test_a_moved_bundle_is_the_same_bundle(path):
    with_a_group(path)
    moved = [replace(one, bundle="/elsewhere") for one in CASES]
    with journal(path, moved) as kept:
        assert {entry.case.bundle for entry in kept.finished().values()} == {"/elsewhere"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cases": CASES[:3]}, "b/fake/cpu/b8.*it was there"),
        ({"cases": [*CASES, case("c")]}, "c/fake.*it was not there"),
        ({"cases": [replace(one, files={"model.onnx": "b" * 64}) for one in CASES]}, "other files"),
        ({"settings": {**SETTINGS, "seed": 1}}, "setting seed: 0 → 1"),
        ({"environment": {**results.ENVIRONMENT, "cpu": "another"}}, "cpu"),
        ({"environment": {**results.ENVIRONMENT, "packages": {}}}, "packages"),
    ],
    ids=str,
)
def test_another_plan_is_refused_with_what_differs(path, changes, told):
    before = with_a_group(path).read_bytes()
    with pytest.raises(UsageFailed, match=told) as refusal:
        journal(path, **changes)
    assert "--resume" in refusal.value.next_command
    assert path.read_bytes() == before


def test_another_amount_of_memory_is_no_other_plan(path):
    with journal(with_a_group(path), environment={**results.ENVIRONMENT, "memory_bytes": 1}) as kept:
        assert len(kept.finished()) == 2


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{}",
        b"nonsense",
        b'{"group": 5}',
        b'{"group": [{}]}',
        b'{"group": [{"case": 5}]}',
        b'{"group": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xff\xfe",
        "tampered",
        "negative",
        "texts",
        "infinite",
    ],
    ids=lambda line: str(line)[:20],
)
def test_a_damaged_line_is_refused(path, line):
    if isinstance(line, str):
        told = measured(CASES[0]).to_dict()
        bad = {"tampered": "5", "negative": [[-5], [6]], "texts": [["5"], ["6"]], "infinite": [[math.inf], [1]]}
        line = json.dumps({"group": [{**told, "rounds": bad[line]}]}).encode()
    with with_a_group(path).open("ab") as file:
        file.write(line + b"\n" + b'{"group": []}\n')
    with pytest.raises(HostileInput) as refusal:
        journal(path)
    assert "--resume" in refusal.value.next_command


@pytest.mark.parametrize("raw", [b'{"schema": "another/1"}\n', b"{}\n{}\n", b"[]\n{}\n"], ids=str)
def test_what_is_no_journal_is_refused(path, raw):
    path.write_bytes(raw)
    with pytest.raises(HostileInput, match="header"):
        journal(path)
    assert path.read_bytes() == raw


def test_two_runs_do_not_share_a_journal(path):
    with journal(path), pytest.raises(UsageFailed, match="another run"):
        journal(path)
    with journal(path) as again:
        assert again.finished() == {}


def test_a_full_disk_is_told_at_once_and_costs_nothing_kept(path, monkeypatch):
    before = with_a_group(path).read_bytes()
    write = os.write
    with journal(path) as kept:

        def half(descriptor, data):
            if len(data) > 40:
                return write(descriptor, bytes(data[:40]))
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OutputFailed, match="No space left") as failure:
            kept.group_done([measured(CASES[2])])
        assert "--resume" in failure.value.next_command
        monkeypatch.undo()
    assert path.read_bytes() == before


def test_what_cannot_be_written_is_told(tmp_path):
    for target in (tmp_path / "no folder" / "x", tmp_path, "/dev/full"):
        with pytest.raises(OutputFailed, match="cannot be written"):
            journal(target)


def test_a_link_is_not_followed(path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(OutputFailed):
        journal(path, resume=False)
    assert victim.read_text() == "precious"


def test_no_figure_of_a_backend_costs_a_journal(path):
    with journal(path) as kept:
        kept.group_done([measured(CASES[0], facts={"odd": math.nan, "text": "\ud800"})])
    with journal(path) as kept:
        assert kept.finished()[CASES[0].key].facts == {"odd": None, "text": "?"}
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR


QUICK = {"duration_s": 0.05, "rounds": 2, "timeout_s": 60.0, "soundness": False}


def test_a_run_that_was_stopped_goes_on(fake_cases, path):
    """The second group is stopped; resumed, the first is not measured again, and the result is whole."""
    cases, settings = fake_cases((1, 2), a={"step_us": 200}, b={"step_us": 300}), Settings(**QUICK)
    started = []

    def start(one):
        from vit_deploy.bench.process import start_worker

        started.append(one.key)
        return start_worker(one)

    class Stopped(Journal):
        def group_done(self, measured):
            super().group_done(measured)
            raise OutputFailed("as if the disk were full from here on")

    with Stopped(path, cases, asdict(settings), results.ENVIRONMENT) as kept, pytest.raises(OutputFailed):
        run_bench(cases, settings, listener=kept)
    with Journal(path, cases, asdict(settings), results.ENVIRONMENT, resume=True) as kept:
        done = kept.finished()
        assert set(done) >= {one.key for one in cases[:2]}
        result = run_bench(cases, settings, listener=kept, done=done, start_worker=start)
        kept.remove()
    assert {key for key in started if "#" not in key} == {one.key for one in cases[2:]}
    assert [row.ok for row in result.rows] == [True] * 4
    assert result.rows[0].samples_ns == tuple(done[cases[0].key].samples)
    assert not path.exists()
