from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.cli.test_predict import make_bundle
from tests.deploy.tuning_fakes import BUNDLES, FakeMachine
from vit_deploy.bundle import Bundle, defaults
from vit_deploy.environment import usable_cores

MANY = usable_cores() + 1


@pytest.fixture
def machine(monkeypatch):
    """The machine that is measured; its times are known."""
    fake = FakeMachine({"quick": 1.0, "slow": 2.0})
    monkeypatch.setattr("vit_deploy.deploy.tune.run_bench", fake)
    return fake


@pytest.fixture
def bundle(tmp_path, small_model, monkeypatch):
    """Make a bundle of orders to the fake runtime; its path has a space and an umlaut."""
    BUNDLES["know_the_fake"](monkeypatch)

    def make(**artefacts):
        return BUNDLES["make_bundle"](tmp_path / "ein Bündel", small_model, **artefacts).path

    return make


def manifest_of(path):
    return (path / "manifest.json").read_bytes()


def test_the_winner_is_shown_and_written(invoke, bundle, machine):
    bundle(unproven={}, passed=None)
    path = bundle(quick={}, slow={})
    result = invoke("tune", path, "--threads", 1)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].strip() == "Tuned for latency"
    assert lines[1].split() == [
        "artefact",
        "backend",
        "batch",
        "threads",
        "streams",
        "p50",
        "ms",
        "img/s",
        "peak",
    ]
    cells = [line.split() for line in lines[3:]]
    assert cells[0][:8] == ["*", "quick", "fake", "1", "1", "1", "1.00", "1000"]
    assert [row[-1] for row in cells] == ["winner", "worse"]
    assert "left out: unproven: it was never verified: there was no GPU" in result.err
    assert "winner: quick on fake (cpu), batch 1, 1 thread, 1 stream" in result.err
    assert "why: 0.50 (0.49 to 0.51) times the time of an inference of slow/fake/cpu/b1" in result.err
    assert f"next: vit-deploy predict '{path}' IMAGE" in result.err
    assert Bundle.open(path).manifest.default.artefact == "quick"


def test_json_has_everything(invoke, bundle, machine):
    machine.errors["broken"] = "out of tensors"
    path = bundle(quick={}, slow={}, broken={})
    document = invoke("tune", path, "--threads", 1, "--budget", "p50=5ms", "--json").json
    assert document["schema"] == "vit-deploy/tune/1"
    assert document["winner"] == json.loads(manifest_of(path))["default"]
    assert (document["objective"], document["budget"], document["written"]) == ("latency", ["p50=5ms"], True)
    decision = document["decision"]
    assert decision["key"].startswith("quick/fake")
    assert decision["ratio"] == pytest.approx(0.5)
    assert decision["measurable"] is True
    rows = {row["artefact"]: row for row in document["candidates"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "quick": "winner",
        "slow": "worse",
        "broken": "failed",
    }
    assert (rows["quick"]["p50_ms"], rows["quick"]["on_front"], rows["slow"]["on_front"]) == (1.0, True, False)
    assert rows["broken"]["p50_ms"] is None
    assert "out of tensors" in rows["broken"]["why"]


def test_a_dry_run_writes_nothing(invoke, bundle, machine, monkeypatch):
    path = bundle(quick={}, slow={})
    before = manifest_of(path)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(defaults.tempfile, "TemporaryFile", refuse)
    result = invoke("tune", path, "--dry-run", "--json")
    assert result.code == 0
    assert result.json["written"] is False
    assert result.json["winner"]["artefact"] == "quick"
    assert manifest_of(path) == before


def test_a_read_only_bundle_is_refused_before_anything_is_measured(invoke, bundle, machine, monkeypatch):
    path = bundle(quick={})

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(defaults.tempfile, "TemporaryFile", refuse)
    result = invoke("tune", path)
    assert result.code == 1
    assert "cannot be written: Read-only file system" in result.err
    assert "--dry-run" in result.err
    assert machine.seen == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: run the tests as another user")
def test_a_folder_without_the_right_to_write_is_refused(invoke, bundle, machine):
    path = bundle(quick={})
    path.chmod(0o500)
    try:
        assert invoke("tune", path).code == 1
        assert machine.seen == []
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_budget_that_nothing_holds_names_the_best(invoke, bundle, machine, as_json):
    path = bundle(quick={}, slow={})
    before = manifest_of(path)
    result = invoke("tune", path, "--threads", 1, "--budget", "p50=0.5ms", *(["--json"] if as_json else []))
    assert result.code == 1
    assert "the best was quick/fake/cpu/b1" in result.err
    assert "with p50 1 ms" in result.err
    assert "expected: p50=0.5ms" in result.err
    assert manifest_of(path) == before
    if as_json:
        assert result.json["winner"] is None
        assert {row["status"] for row in result.json["candidates"]} == {"over budget"}


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--objective", "fun"], "fun"),
        (["--budget", "p99=50"], "p99=50"),
        (["--budget", "time=5m"], "--time 5m"),
        (["--time", "soon"], "soon"),
        (["--threads", str(MANY)], f"--threads is {MANY}"),
        (["--threads", "1,x"], "1,x"),
        (["--streams", "0"], "--streams"),
        (["--batch-size", "-1"], "--batch-size"),
        (["--backend", "fke"], "did you mean 'fake'?"),
        (["--device", "toaster"], "toaster"),
        (["--batch-size", "64"], "a batch of 1 to 8"),
    ],
)
def test_words_without_sense_are_a_usage_error(invoke, bundle, machine, flags, word):
    result = invoke("tune", bundle(quick={}), *flags)
    assert result.code == 2
    assert word in result.err
    assert machine.seen == []


def test_there_is_no_bundle(invoke, tmp_path, machine):
    assert invoke("tune", tmp_path / "none").code == 6


def test_a_bundle_without_a_proven_artefact_cannot_be_tuned(invoke, bundle, machine):
    path = bundle(a={}, passed=None)
    result = invoke("tune", path)
    assert result.code == 2
    assert "it was never verified" in result.err
    assert "next: vit-deploy verify" in result.err


def test_the_page_is_written_and_a_bad_place_is_refused_first(invoke, bundle, machine, tmp_path):
    path = bundle(quick={}, slow={})
    result = invoke("tune", path, "--html", tmp_path / "none" / "page.html")
    assert result.code == 1
    assert machine.seen == []
    page = tmp_path / "page.html"
    assert invoke("tune", path, "--threads", 1, "--html", page).code == 0
    text = page.read_text(encoding="utf-8")
    assert "quick" in text
    assert "slow" in text


def test_ctrl_c_leaves_the_manifest_as_it_was(bundle):
    path = bundle(a={"step_us": 1000}, b={"step_us": 1000})
    before = manifest_of(path)
    command = [sys.executable, "-c", "from vit_deploy.cli import main; main()"]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    told = [*command, "tune", str(path), "--backend", "fake", "--time", "1h", "--threads", "1"]
    with subprocess.Popen(told, **pipes, env=os.environ, preexec_fn=heed) as run:
        deadline = time.monotonic() + 60
        while not (workers := psutil.Process(run.pid).children()) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert b"Traceback" not in err
    assert out == b""
    assert manifest_of(path) == before
    assert workers
    assert not psutil.wait_procs(workers, timeout=10)[1]


# What the other commands make of a default


@pytest.fixture
def tuned(tmp_path, invoke, machine):
    """A bundle with a real TorchScript artefact, tuned on the machine of known times."""
    path = make_bundle(tmp_path / "ein Bündel")
    result = invoke("tune", path, "--objective", "throughput", "--batch-size", 2, "--threads", 1)
    assert result.code == 0, result.err
    return path


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


def test_predict_uses_the_default_and_says_so(invoke, tuned, picture):
    result = invoke("predict", tuned, picture, picture, picture, "--json")
    assert result.code == 0
    assert "tuned default: torchscript-fp32 on torchscript (cpu), batch 2, 1 thread, 1 stream" in result.err
    assert len(result.json["images"]) == 3
    asked = invoke("predict", tuned, picture, "--artefact", "torchscript-fp32")
    assert "tuned default" not in asked.err


def test_predict_opens_with_the_threads_it_was_tuned_with(invoke, tuned, picture, monkeypatch):
    from vit_deploy import registry

    runtime = type(registry.runtime("torchscript"))
    seen = []
    opened = runtime.open
    monkeypatch.setattr(
        runtime, "open", lambda self, *given: seen.append(given[2].threads) or opened(self, *given)
    )
    invoke("predict", tuned, picture)
    invoke("predict", tuned, picture, "--threads", usable_cores())
    invoke("predict", tuned, picture, "--backend", "torchscript")
    assert seen == [1, usable_cores(), None]
    assert invoke("predict", tuned, picture, "--threads", MANY).code == 2


def test_predict_says_when_the_default_is_not_used(invoke, tuned, picture):
    data = json.loads(manifest_of(tuned))
    data["default"]["files"] = dict.fromkeys(data["default"]["files"], "0" * 64)
    (tuned / "manifest.json").write_text(json.dumps(data))
    result = invoke("predict", tuned, picture)
    assert result.code == 0
    assert "the tuned default (torchscript-fp32) is not used" in result.err
    assert "its files are others" in result.err
    shown = invoke("inspect", tuned)
    assert "not used: torchscript-fp32 is not the one that was tuned" in shown.out


def test_inspect_shows_the_default(invoke, tuned):
    result = invoke("inspect", tuned)
    assert "default  torchscript-fp32 on torchscript (cpu), batch 2, 1 thread, 1 stream" in result.out
    assert "tuned for throughput" in result.out
    document = invoke("inspect", tuned, "--json").json
    assert document["default"]["objective"] == "throughput"
    assert document["default"]["objection"] == ""


def test_an_export_of_that_artefact_drops_the_default_and_says_so(invoke, tmp_path, machine):
    digits = Path(__file__).parents[2] / "vit_deploy" / "assets" / "digits"
    path = tmp_path / "b"
    export = ("export", "-m", digits, "--format", "torchscript", "-o", path)
    assert invoke(*export).code == 0
    assert invoke("tune", path, "--threads", 1).code == 0
    again = invoke(*export)
    assert again.code == 0
    assert "the tuned default (torchscript-fp32 on torchscript" in again.err
    assert "is dropped, as torchscript-fp32 was exported anew" in again.err
    assert Bundle.open(path).manifest.default is None
