from __future__ import annotations

import functools
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vit_deploy.bench.result import PHASES, BenchResult, Row
from vit_deploy.cli.bench import print_result

BUNDLES = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "fakes" / "bundles.py"))
QUICK = ("--duration", "0.1", "--rounds", "2", "--threads", "1")

ROW_KEYS = {
    *("artefact", "format", "precision", "backend", "device", "batch_size", "threads", "ok", "error"),
    *("exit_code", "worker_exit", "verified", "p50_ms", "p90_ms", "p99_ms", "half_width", "images_per_s"),
    *("ratio", "baseline", "cold_start_ms", "peak_rss_bytes", "peak_device_bytes", "warm_up", "notes", "facts"),
    *("sha256", "files", "round_lengths", "samples_ns", "cuda_graph"),
}


@pytest.fixture
def bundle(tmp_path, small_model, monkeypatch):
    """Make a bundle of orders to the fake runtime; its path has a space and an umlaut."""
    BUNDLES["know_the_fake"](monkeypatch)

    def make(**artefacts):
        return BUNDLES["make_bundle"](tmp_path / "ein Bündel", small_model, **artefacts).path

    return make


def row(**given) -> Row:
    figures = {
        "artefact": "onnx-fp32",
        "format": "onnx",
        "precision": "fp32",
        "backend": "onnxruntime",
        "device": "cpu",
        "batch_size": 1,
        "threads": 2,
        "cuda_graph": False,
        "ok": True,
        "error": None,
        "exit_code": 0,
        "worker_exit": None,
        "verified": True,
        "p50_ms": 217.4,
        "p90_ms": 231.04,
        "p99_ms": None,
        "half_width": 0.008,
        "images_per_s": 4.6,
        "ratio": 0.7821,
        "baseline": "pytorch-fp32 on eager",
        "cold_start_ms": dict(zip(PHASES, (400.0, 150.0, 320.0, 260.0), strict=True)),
        "peak_rss_bytes": 812_000_000,
        "peak_device_bytes": None,
        "warm_up": {"steps": 4, "elapsed_ns": 1, "settled": True},
        "notes": (),
        "facts": {},
        "sha256": "0" * 64,
        "files": {},
        "round_lengths": (1,),
        "samples_ns": (217_400_000,),
    }
    return Row(**{**figures, **given})


FAILED = dict.fromkeys(
    ("p50_ms", "p90_ms", "p99_ms", "half_width", "images_per_s", "ratio", "cold_start_ms", "peak_rss_bytes")
)


def test_the_table_is_golden(capsys, golden):
    eager = row(
        artefact="pytorch-fp32", backend="eager", p50_ms=278.0, p90_ms=None, images_per_s=3.6, ratio=1.0
    )
    quick = row(batch_size=8, p50_ms=0.0945, p90_ms=1.5, p99_ms=20.25, images_per_s=10577.0, ratio=None)
    dead = row(**FAILED, artefact="torchscript-fp32", backend="torchscript", ok=False, error="killed")
    flagged = row(backend="tensorrt", device="cuda:0", notes=("unverified", "warm-up did not settle"))
    print_result(BenchResult((eager, row(), quick, dead, flagged), (), {}))
    print_result(BenchResult((eager, row()), (), {}))
    golden("bench.txt", "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n")


def test_the_document(invoke, bundle):
    result = invoke("bench", bundle(a={}, b={}), "--backend", "fake", "--batch-size", "1,2", *QUICK, "--json")
    assert result.code == 0
    document = result.json
    assert document["schema"] == "vit-deploy/bench/1"
    assert len(document["rows"]) == 4
    assert len(document["order"]) == 4
    assert document["skipped"] == []
    for entry in document["rows"]:
        assert set(entry) == ROW_KEYS
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
    assert document["schema"] == "vit-deploy/bench/1"
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


def test_ctrl_c_leaves_no_process(bundle):
    path = bundle(a={}, b={})
    command = [sys.executable, "-c", "from vit_deploy.cli import main; main()"]
    told = [*command, "bench", str(path), "--backend", "fake", "--duration", "600", "--threads", "1"]
    # A background job of a shell may have been told to ignore Ctrl-C, and its children inherit that.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(told, **pipes, env=os.environ, preexec_fn=heed) as run:
        workers = wait_for_workers(psutil.Process(run.pid), 2)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"Traceback" not in err
    assert b"stopped" in err
    assert out == b""
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert len(gone) == 2
    assert not alive


def wait_for_workers(process, count):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        workers = process.children()
        if len(workers) == count:
            return workers
        time.sleep(0.05)
    raise AssertionError("the workers never started")


class TestCache:
    """With no bundle, what is needed is exported into the cache, once."""

    @pytest.fixture
    def exports(self, tmp_path, small_model, monkeypatch):
        """Stand in for the export: makes the fake's artefact, and remembers what it was asked."""
        from vit_deploy import registry
        from vit_deploy.facts import Availability

        BUNDLES["know_the_fake"](monkeypatch)
        monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "cache"))
        asked = []

        def export_model(model, output, formats, *, batch, progress):
            asked.append(list(formats))
            BUNDLES["make_bundle"](output, model, batch=batch, **{"fake-fp32": {}})
            return []

        class Exporter:
            def available(self):
                return Availability.yes()

        monkeypatch.setattr("vit_deploy.deploy.export.export_model", export_model)
        monkeypatch.setattr("vit_deploy.weights.load_model", lambda reference, **_: small_model)
        monkeypatch.setattr(registry, "exporter", lambda name: Exporter())
        return asked

    def test_it_is_made_once(self, invoke, exports):
        first = invoke("bench", "--backend", "fake", *QUICK)
        assert first.code == 0
        assert "random weights" in first.err
        assert "exporting small to fake" in first.err
        again = invoke("bench", "--backend", "fake", *QUICK)
        assert again.code == 0
        assert exports == [["fake"]]

    def test_a_larger_batch_is_exported_anew(self, invoke, exports, tmp_path):
        from vit_deploy.bundle import Bundle

        invoke("bench", "--backend", "fake", *QUICK)
        assert invoke("bench", "--backend", "fake", "--batch-size", "16", *QUICK).code == 0
        assert exports == [["fake"], ["fake"]]
        (path,) = (tmp_path / "cache" / "bench").iterdir()
        assert Bundle.open(path).records["fake-fp32"].batch.maximum == 16

    def test_a_broken_one_is_made_again(self, invoke, exports, tmp_path):
        invoke("bench", "--backend", "fake", *QUICK)
        next((tmp_path / "cache").rglob("orders.json")).write_text("broken")
        result = invoke("bench", "--backend", "fake", *QUICK)
        assert result.code == 0
        assert "is made again" in result.err
        assert exports == [["fake"], ["fake"]]

    def test_what_keeps_an_artefact_out_is_told(self, invoke, exports, tmp_path, monkeypatch):
        from vit_deploy.deploy.job import Outcome
        from vit_deploy.errors import ParityFailed

        failed = Outcome("fake-fp32", "fake", "fp32", error=ParityFailed("it is not equal"))
        monkeypatch.setattr("vit_deploy.deploy.export.export_model", lambda *_, **__: [failed])
        result = invoke("bench", "--backend", "fake", *QUICK)
        assert result.code == 3
        assert "it is not equal" in result.err
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)


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
