from __future__ import annotations

import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import psutil
import pytest

from tests.bench import results
from vit_deploy.bench.document import read_result
from vit_deploy.bench.result import BenchResult, Row
from vit_deploy.cli._bench_view import print_result, tell_of

BUNDLES = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "fakes" / "bundles.py"))
JUDGED = ("--rounds", "8")
"""Fewer give no interval, and nothing is decided without one."""

QUICK = ("--duration", "0.1", "--rounds", "2", "--threads", "1", "--no-aa")


@pytest.fixture
def bundle(tmp_path, small_model, monkeypatch):
    """Make a bundle of orders to the fake runtime; its path has a space and an umlaut."""
    BUNDLES["know_the_fake"](monkeypatch)

    def make(**artefacts):
        return BUNDLES["make_bundle"](tmp_path / "ein Bündel", small_model, **artefacts).path

    return make


def row(*names: str, **changes) -> Row:
    return Row(**{**results.row(*names, **changes), "notes": changes.get("notes", ()), "image_size": (32, 32)})


def test_the_table_is_golden(capsys, golden):
    samples = results.drawn(278.0, per_round=4)
    eager = row("pytorch-fp32", "eager", rounds=samples, ratio=1.0)
    key = eager.key
    against = {"baseline": (key, samples)}
    plain = row(rounds=results.drawn(217.4, per_round=5), **against)
    quick = row(rounds=results.drawn(0.0945, per_round=60), batch_size=8, limit={"share": 0.873})
    dead = Row(
        **{**results.failed("torchscript-fp32", "torchscript", "killed"), "notes": (), "image_size": (32, 32)}
    )
    flagged = row(backend="tensorrt", device="cuda:0", notes=("unverified", "warm-up did not settle"))
    streamed = row(rounds=results.drawn(300.0, per_round=4), streams=2, **against)
    soundness = {"sound": False, "ratio": 1.2, "ratio_interval": [1.1, 1.3], "key": key, "reason": "it differs"}
    print_result(BenchResult((eager, plain, quick, dead, flagged, streamed), (), {}, soundness))
    print_result(BenchResult((eager, plain), (), {}))
    tell_of(BenchResult((eager, dead), (), {}, soundness, interrupted=True))
    said = capsys.readouterr()
    golden("bench.txt", "\n".join(line.rstrip() for line in (said.out + said.err).splitlines()) + "\n")


def test_the_document(invoke, bundle):
    result = invoke("bench", bundle(a={}, b={}), "--backend", "fake", "--batch-size", "1,2", *QUICK, "--json")
    assert result.code == 0
    document = result.json
    assert document["schema"] == "vit-deploy/bench/3"
    assert len(document["rows"]) == 4
    assert len(document["order"]) >= 4
    assert document["skipped"] == []
    for entry in document["rows"]:
        assert set(entry) == {field.name for field in fields(Row)}
        assert entry["ok"]
        assert entry["backend"] == "fake"
        assert entry["p50_ms"] > 0
        assert len(entry["samples_ns"]) == sum(entry["round_lengths"])


def test_a_table_a_file_and_the_next_command(invoke, bundle, tmp_path):
    path, output = bundle(a={}), tmp_path / "result.json"
    result = invoke("bench", path, "--backend", "fake", *QUICK, "--output", output)
    assert result.code == 0
    assert "Latency on cpu, 1 thread" in result.out
    assert result.err.splitlines()[-1] == f"next: vit-deploy predict '{path}' IMAGE --backend fake"
    document = json.loads(output.read_text())
    assert document["schema"] == "vit-deploy/bench/3"
    assert "python" in document["environment"]
    assert [entry.name for entry in tmp_path.glob("*result*")] == ["result.json"]


def test_an_output_that_cannot_be_written_is_told_before_measuring(invoke, bundle, tmp_path):
    result = invoke("bench", bundle(a={}), "--backend", "fake", "-o", tmp_path / "no" / "file.json")
    assert result.code == 1
    assert "cannot be written" in result.err


def test_one_failed_row_is_no_failed_run(invoke, bundle):
    result = invoke("bench", bundle(bad={"crash_after": 1}, good={}), "--backend", "fake", *QUICK)
    assert result.code == 0
    assert "failed, see below" in result.out
    assert "bad on fake, batch 1, failed: the worker was killed by SIGKILL" in result.err


def test_no_good_row_is_a_failed_run(invoke, bundle):
    result = invoke("bench", bundle(bad={"refuse": "an unknown operator"}), "--backend", "fake", *QUICK)
    assert result.code == 1
    assert "an unknown operator" in result.err


def test_an_unverified_artefact_is_flagged(invoke, bundle):
    result = invoke("bench", bundle(passed=None, a={}), "--backend", "fake", *QUICK)
    assert result.code == 0
    assert "warning: a is measured unverified" in result.err
    assert "unverified" in result.out


def test_a_tampered_bundle_is_refused_before_anything_runs(invoke, bundle):
    path = bundle(a={})
    next(path.glob("artefacts/*/orders.json")).write_text('{"step_us": 1}')
    result = invoke("bench", path, "--backend", "fake", *QUICK)
    assert result.code == 6
    assert "was changed since it was exported" in result.err


def test_an_unknown_backend_names_the_nearest(invoke):
    result = invoke("bench", "--backend", "onnxruntim")
    assert result.code == 2
    assert "did you mean 'onnxruntime'?" in result.err


def test_a_backend_without_an_artefact_is_told_how_to_get_one(invoke, bundle):
    result = invoke("bench", bundle(a={}), "--backend", "torchscript")
    assert result.code == 2
    assert "--format torchscript -o" in result.err


def test_a_named_backend_that_cannot_run_here(invoke, bundle):
    result = invoke("bench", bundle(a={}), "--backend", "fake", "--device", "cuda")
    assert result.code == 4
    assert "the fake has no GPU" in result.err
    assert "next: buy one" in result.err


def test_nothing_is_exported_for_a_backend_that_cannot_run(invoke, tmp_path, monkeypatch):
    from vit_deploy import registry
    from vit_deploy.facts import Availability

    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    unable = Availability.no("there is no GPU", "run on a machine with an NVIDIA GPU")
    monkeypatch.setattr(type(registry.runtime("trt")), "available", lambda self, device=None: unable)
    result = invoke("bench", "--backend", "trt")
    assert result.code == 4
    assert "there is no GPU" in result.err
    assert not (tmp_path / "cache").exists()


def test_all_lists_what_was_left_out(invoke, bundle, monkeypatch):
    from vit_deploy import registry

    monkeypatch.setattr(registry, "backends", lambda: ["eager", "fake", "torchscript"])
    result = invoke("bench", bundle(a={}), *QUICK, "--json")
    assert [entry["backend"] for entry in result.json["rows"]] == ["eager", "fake"]
    assert [entry["ratio"] is None for entry in result.json["rows"]] == [False, False]
    assert result.json["rows"][1]["baseline"] == "pytorch-fp32 on eager"
    assert [entry["backend"] for entry in result.json["skipped"]] == ["torchscript"]
    assert "left out: torchscript" in result.err


@pytest.mark.parametrize("sizes", ["0", "", "1,x", "-1"])
def test_batch_sizes_are_whole_numbers(invoke, sizes):
    result = invoke("bench", "--batch-size", sizes)
    assert result.code == 2
    assert "whole numbers above 0" in result.err


def test_a_bundle_and_a_model_do_not_go_together(invoke, bundle):
    assert invoke("bench", bundle(a={}), "-m", "vit_tiny_patch16_224").code == 2


def test_there_is_no_such_bundle(invoke, tmp_path):
    result = invoke("bench", tmp_path / "none", "--backend", "eager")
    assert result.code == 6
    assert "there is no bundle" in result.err


def test_ctrl_c_keeps_what_was_measured_and_leaves_no_process(bundle, tmp_path):
    """Two batch sizes are two groups: the second one is stopped, the first one is gone on with."""
    path, output = bundle(a={"step_us": 500}), tmp_path / "result.json"
    words = ["--backend", "fake", "--threads", "1", "--no-aa", "--output", str(output), "--rounds", "20"]
    quick = ["--batch-size", "1,2", "--duration", "1"]
    command = [sys.executable, "-c", "from vit_deploy.cli import main; main()", "bench", str(path), *words]
    # A background job of a shell may have been told to ignore Ctrl-C, and its children inherit that.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, *quick], **pipes, env=os.environ, preexec_fn=heed) as run:
        coordinator = psutil.Process(run.pid)
        wait_for(lambda: len(journal_lines(output)) == 2)
        workers = wait_for(coordinator.children)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"Traceback" not in err
    assert b"the run was stopped" in err
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert len(gone) == len(workers)
    assert not alive
    kept = read_result(output)
    assert kept.interrupted
    assert kept.rows[0].ok
    resumed = subprocess.run([*command, *quick, "--resume"], capture_output=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert b"going on: 1 of 2 cases were measured before" in resumed.stderr
    whole = read_result(output)
    assert not whole.interrupted
    assert whole.rows[0] == kept.rows[0]
    assert whole.rows[1].ok
    assert not list(tmp_path.glob(".*"))


def journal_lines(output):
    journal = output.with_name(f".{output.name}.journal")
    return journal.read_bytes().splitlines() if journal.exists() else []


def wait_for(condition):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it never came to that")


def test_every_document_is_written(invoke, bundle, tmp_path):
    files = {name: tmp_path / f"ein Bericht.{name}" for name in ("html", "markdown", "csv")}
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    result = invoke("bench", bundle(a={}), "--backend", "fake", *QUICK, *words)
    assert result.code == 0
    assert "<html" in files["html"].read_text()
    assert "fake" in files["markdown"].read_text()
    assert files["csv"].read_text().splitlines()[1].count(",") > 10


def test_a_gate_on_the_run_itself(invoke, bundle):
    words = ("bench", bundle(a={"step_us": 2000}), "--backend", "fake", *QUICK, *JUDGED)
    held = invoke(*words, "--fail-if", "p50 > 10s")
    assert held.code == 0
    broken = invoke(*words, "--fail-if", "p50 > 1us")
    assert broken.code == 5
    assert "p50 > 1us" in broken.err
    assert invoke(*words, "--fail-if", "p50 > +3%").code == 2


def test_compare_is_a_command_of_its_own(invoke, bundle, tmp_path):
    path = bundle(a={"step_us": 500})
    for name in ("old", "new"):
        words = ("--backend", "fake", *QUICK, *JUDGED, "-o", tmp_path / f"{name}.json")
        assert invoke("bench", path, *words).code == 0
    words = ("bench", "compare", tmp_path / "old.json", tmp_path / "new.json")
    assert invoke(*words).code == 0
    assert invoke(*words, "--fail-if", "p50 > 1us").code == 5
    assert invoke("bench", "compare", "--help").code == 0


def test_a_suite_says_what_flags_do_not(invoke, bundle, tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text(
        'title = "Mine"\nbackends = ["fake"]\nbatch_sizes = [1, 2]\nthreads = [1]\nsoundness = false\n'
    )
    words = ("bench", bundle(a={}), "--suite", suite, "--duration", "0.1", "--rounds", "2", "--json")
    assert [entry["batch_size"] for entry in invoke(*words).json["rows"]] == [1, 2]
    assert [entry["batch_size"] for entry in invoke(*words, "--batch-size", "4").json["rows"]] == [4]


def test_resume_needs_to_know_what(invoke, bundle):
    assert invoke("bench", bundle(a={}), "--backend", "fake", "--resume").code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--duration", "inf"],
        ["--timeout", "1e10"],
        ["--batch-size", "²"],
        ["--batch-size", "9" * 5000],
        ["--threads", "99999"],
    ],
)
def test_numbers_that_are_none_or_too_many(invoke, bundle, words):
    result = invoke("bench", bundle(a={}), "--backend", "fake", *words)
    assert result.code == 2


def test_a_link_and_a_pipe_stay_what_they_are(invoke, bundle, tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "target.json")
    assert invoke("bench", bundle(a={}), "--backend", "fake", *QUICK, "-o", tmp_path / "link.json").code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())["rows"]
    assert invoke("bench", bundle(b={}), "--backend", "fake", *QUICK, "-o", "/dev/null").code == 0
    assert not Path("/dev/null").is_file()
