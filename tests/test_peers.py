"""Ours beside others' tools: the plan, a peer's worker, the table; and the readers of others' harnesses.

No environment is made and no tool is run here: ``make peers`` does that.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import recipe
from benchmarks.peers.environments import PeerEnvironment, folder_for, pins
from benchmarks.peers.measure import Entry, measure, most_at_once, plan, resumable, together
from benchmarks.peers.models import MODELS, PeerModel
from benchmarks.peers.ours import OurModel
from benchmarks.peers.places import README, RESULTS
from benchmarks.peers.preparation import Prepared, case_of, job_file
from benchmarks.peers.recipe import Job, PreparationFailed
from benchmarks.peers.running import able, model_named
from benchmarks.peers.table import END, START, insert, inserted, interval, leaders, render_long, render_short
from benchmarks.peers.tools.optimum_onnx.translate import DIALECTS, config, translate
from benchmarks.peers.worker import make_pixels
from vit_deploy.bench.coordinator import Settings
from vit_deploy.bench.process import CaseFailed

REPOSITORY = Path(__file__).parents[1]
TIMEOUT_S = 60
TINY = PeerModel("tiny", "Tiny", "none")


def _agreement():
    spec = importlib.util.spec_from_file_location("agreement", REPOSITORY / "benchmarks" / "agreement.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


agreement = _agreement()


# A peer's worker, in this environment


@pytest.fixture
def ours(tmp_path):
    return OurModel(TINY, tmp_path, "0" * 64, {}, {})


@pytest.fixture
def prepared(tmp_path):
    """timm's peer, whose export is the mean of each channel."""
    from onnx import TensorProto, helper, save

    folder = tmp_path / "peer"
    (folder / "export").mkdir(parents=True)
    shapes = {"pixels": ["b", 3, 224, 224], "means": ["b", 3]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
    ]
    graph = helper.make_graph(nodes, "means", [values["pixels"]], [values["means"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save(model, folder / "export" / "model.onnx")
    np.save(tmp_path / "reference.npy", make_pixels(4).mean(axis=(2, 3)))
    job = Job("timm_onnx", TINY, tmp_path, tmp_path / "reference.npy", folder, 4)
    job.write(job_file(job))
    return Prepared(job, PeerEnvironment(Path(sys.prefix), {}, 1.0), "f" * 64)


def opened(prepared, ours, batch_size, arithmetic="fp32"):
    case = case_of(prepared, "timm-onnx", arithmetic, ours, batch_size, 1)
    worker = prepared.worker(case)
    try:
        answer = worker.ask("open", TIMEOUT_S, case=case.to_dict(), spawned_ns=worker.spawned_ns)
    except BaseException:
        worker.close(at_once=True)
        raise
    return worker, answer


def test_a_peers_worker_answers_as_ours_does(prepared, ours):
    worker, answer = opened(prepared, ours, 2)
    with worker:
        assert list(answer["cold_start_ns"]) == ["import", "check", "open", "first"]
        facts = answer["facts"]
        assert facts["threads"] == 1
        assert facts["details"]["arithmetic"] == "fp32"
        assert 0 <= facts["details"]["max_abs_diff"] < 1e-5
        assert worker.ask("warm", TIMEOUT_S, limit_ns=10**8, tolerance=10.0)["steps"] >= 2
        taken = worker.ask("measure", TIMEOUT_S, budget_ns=0, minimum=5, maximum=5)
        assert len(taken["samples_ns"]) == 5
        assert taken["elapsed_ns"] >= sum(taken["samples_ns"])
        assert worker.ask("finish", TIMEOUT_S)["peak_rss_bytes"] > 10**7


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda wanted: wanted + 0.001, "away from eager's"),
        (lambda wanted: wanted * np.nan, "away from eager's"),
        (lambda wanted: wanted[:, :2], "of shape"),
    ],
)
def test_no_time_counts_for_a_wrong_result(prepared, ours, spoil, message):
    path = prepared.job.reference
    np.save(path, spoil(np.load(path)))
    with pytest.raises(CaseFailed, match=message):
        opened(prepared, ours, 1)


def test_no_time_counts_in_another_precision_than_is_said(prepared, ours):
    with pytest.raises(CaseFailed, match="precision"):
        opened(prepared, ours, 1, arithmetic="bf16")


def test_peers_and_failed_ones_become_rows_of_one_run(prepared, ours):
    def entry(tool, fingerprint, **words):
        held = replace(prepared, fingerprint=fingerprint)
        case = replace(case_of(held, "timm-onnx", "fp32", ours, 1, 1), artefact=tool)
        return replace(Entry(tool, tool, "fp32", case, held, "", {"max_abs_diff": 0.0}), **words)

    entries = [
        entry("one", "a" * 64),
        entry("broken", "b" * 64, case=None, failed="no such operator"),
        entry("two", "c" * 64),
    ]
    group = measure(entries, Settings(duration_s=0.3, rounds=3, soundness=False))
    assert [row["tool"] for row in group["rows"]] == ["one", "broken", "two"]
    one, broken, two = group["rows"]
    assert broken == {
        "tool": "broken",
        "title": "broken",
        "ours": False,
        "ok": False,
        "error": "no such operator",
    }
    for row in (one, two):
        assert row["ok"], row["error"]
        assert row["p50_ms"] > 0
        assert row["samples_ns"]
        assert row["max_abs_diff"] == 0.0
    (run,) = group["runs"]
    assert run["tools"] == ["one", "two"]
    assert {len(entry) for entry in run["order"]} == {2}


def test_rows_that_do_not_fit_into_memory_take_several_runs_with_the_baseline_in_each(prepared, ours):
    case = case_of(prepared, "timm-onnx", "fp32", ours, 1, 1)
    mine = [Entry(name, name, "fp32", case, None, "", {}) for name in ("eager", "ort")]
    others = [Entry(name, name, "fp32", case, prepared, "", {}) for name in "abcd"]
    failed = Entry("lost", "lost", "", None, prepared, "why", {})
    entries = [*mine, failed, *others]

    def names(most):
        return [[entry.tool for entry in run] for run in together(entries, most)]

    assert names(6) == [["eager", "ort", "a", "b", "c", "d"]]
    assert names(4) == [["eager", "ort", "a", "b"], ["eager", "c", "d"]]
    assert names(2) == [["eager", "ort"], *(["eager", name] for name in "abcd")]
    assert together([failed], 4) == [[]]


def test_how_many_fit():
    gigabyte = 10**9
    assert most_at_once(gigabyte, 24 * gigabyte) == 7
    assert most_at_once(gigabyte // 50, 24 * gigabyte) > 50
    assert most_at_once(100 * gigabyte, gigabyte) == 2


def test_a_worker_needs_nothing_but_the_standard_library():
    names = "".join(f"recipe.load({name!r}).PEER; " for name in recipe.names())
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import benchmarks.peers.worker; "
    code += f"from benchmarks.peers import recipe; {names}"
    # -S: no site-packages at all
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# What there is


def test_every_peer_is_pinned_and_told_apart():
    tools = [variant.name for name in recipe.names() for variant in recipe.load(name).PEER.variants]
    assert len(set(tools)) == len(tools) >= 7
    for name in recipe.names():
        peer, pinned = recipe.load(name).PEER, pins(recipe.requirements(name))
        assert "torch==2.13.0" in pinned, "an unpinned torch brings gigabytes of CUDA"
        packages = {line.partition("==")[0] for line in pinned}
        assert set(peer.shows) <= packages
        for variant in peer.variants:
            assert variant.arithmetic is None or variant.arithmetic in recipe.TOLERANCES


def test_the_same_pins_share_an_environment_and_no_pin_may_drift(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("torch==2.13.0\nnumpy==2.4.6\n")
    second.write_text("# the same\nnumpy==2.4.6\ntorch==2.13.0\n")
    assert folder_for(first) == folder_for(second)
    second.write_text("numpy==2.4.5\ntorch==2.13.0\n")
    assert folder_for(first) != folder_for(second)
    second.write_text("numpy>=2\ntorch==2.13.0\n")
    with pytest.raises(PreparationFailed, match="numpy>=2"):
        pins(second)


def test_a_job_is_read_as_it_was_written(prepared):
    assert Job.read(job_file(prepared.job)) == prepared.job


# The plan


@pytest.fixture
def planned(ours, prepared, monkeypatch):
    monkeypatch.setattr(OurModel, "cases", lambda self, sizes, threads: [])
    ovc = replace(prepared.job, peer="openvino_ovc")
    trial = {"arithmetic": "bf16", "max_abs_diff": 0.5, "relative_error": 0.01}
    trials = {"openvino-ovc": {"1": trial}, "openvino-ovc-f32": {"1": {"failed": "killed by SIGSEGV"}}}
    lost = replace(prepared, environment=None, failed="pip: no such version", trials={})
    return plan(ours, [replace(prepared, job=ovc, trials=trials), lost], 1, 2)


def test_a_peer_is_labelled_with_what_was_read_back_and_a_failure_stays_a_row(planned):
    default, f32, lost = planned
    assert default.arithmetic == default.case.precision == "bf16"
    assert default.apart == {"max_abs_diff": 0.5, "relative_error": 0.01}
    assert default.case.image_size == (224, 224)
    assert (f32.case, f32.failed) == (None, "killed by SIGSEGV")
    assert (lost.case, lost.failed) == (None, "pip: no such version")


def test_an_earlier_group_counts_for_the_same_plan_only(tmp_path):
    path = tmp_path / "group.json"
    assert resumable(path, {"cases": [1]}) is None
    path.write_text(json.dumps({"plan": {"cases": [1]}, "group": {"rows": []}}))
    assert resumable(path, {"cases": [1]}) == {"rows": []}
    assert resumable(path, {"cases": [2]}) is None


def test_unknown_names_are_refused():
    with pytest.raises(SystemExit, match="no model 'vit-x'"):
        model_named(MODELS, "vit-x")
    assert able([])[1][0]["reason"].startswith("they need an NVIDIA GPU")
    with pytest.raises(SystemExit, match="no peer nobody"):
        able(["nobody"])


# The same weights for transformers


@pytest.mark.parametrize("kind", sorted(DIALECTS))
def test_weights_are_renamed_without_loss(kind):
    d, dialect = 64, DIALECTS[kind]
    inside = [name for name in dialect.inside if name not in ("ls1.gamma", "ls2.gamma")]
    weights = {"cls_token": np.ones((1, 1, d)), "pos_embed": np.ones((1, 5, d))}
    for layer in [*(name for name in dialect.names if name not in weights), *(f"blocks.0.{x}" for x in inside)]:
        weights[f"{layer}.weight"] = np.ones((4 * d, d))
    weights["patch_embed.proj.weight"] = np.ones((d, 3, 16, 16))
    stacked = Stacked(np.arange(3 * d * d, dtype=float).reshape(3 * d, d))
    renamed = dict(translate({**weights, "blocks.0.attn.qkv.weight": stacked}, dialect))
    assert len(renamed) == len(weights) + 3
    prefix = dialect.block.format(0) + dialect.qkv
    parts = [renamed[f"{prefix.format(part)}.weight"] for part in dialect.parts]
    np.testing.assert_array_equal(np.concatenate(parts), stacked)
    told = config(weights, kind)
    assert (told["hidden_size"], told["num_hidden_layers"], told["intermediate_size"]) == (d, 1, 4 * d)
    assert told["patch_size"] == 16
    with pytest.raises(KeyError):
        dict(translate({"blocks.0.attn.q_norm.weight": stacked}, dialect))


class Stacked(np.ndarray):
    """An array that is cut as a tensor is."""

    def __new__(cls, array):
        return array.view(cls)

    def chunk(self, count):
        return np.split(np.asarray(self), count)


# The tables


def row(tool, p50, arithmetic="fp32", **more):
    told = {
        "tool": tool,
        "title": tool.upper(),
        "ours": tool == "mine",
        "ok": True,
        "arithmetic": arithmetic,
        "p50_ms": p50,
        "p50_interval_ms": [p50 * 0.98, p50 * 1.02],
        "ratio": 0.5,
        "ratio_interval": [0.48, 0.52],
        "p90_ms": None,
        "images_per_s": 1e3 / p50,
        "cold_start_ms": {"import": 1000.0, "check": 0.0, "open": 500.0, "first": 20.0},
        "peak_rss_bytes": 123_000_000,
        "max_abs_diff": 1.2e-6,
        "error": None,
        "notes": [],
        "disturbed": [],
    }
    return {**told, **more}


@pytest.fixture
def document():
    failed = {"tool": "lost", "title": "LOST", "ours": False, "ok": False, "error": "pip | failed\nbadly"}
    group = {
        "model": "a",
        "title": "ViT-A",
        "note": "at 224",
        "batch_size": 1,
        "runs": [
            {"soundness": {"key": "mine/x", "sound": True, "ratio": 1.001, "ratio_interval": [0.99, 1.01]}}
        ],
        "rows": [
            row("mine", 10.0, notes=["noisy"]),
            row("close", 10.3),
            row("slow", 20.0),
            row("half", 5.0, "bf16"),
            failed,
        ],
    }
    other = {**copy.deepcopy(group), "title": "ViT-B", "note": "", "runs": [{"soundness": None}] * 2}
    other["rows"][0] = row("mine", 234.4)
    return {
        "environment": {"cpu": "Some CPU"},
        "threads": 2,
        "batch_sizes": [1],
        "peers": {"close": {"title": "Close", "command": "close --it", "shown": {"closer": "1.0"}}},
        "skipped": [{"peer": "TensorRT", "reason": "no NVIDIA GPU"}],
        "groups": [group, other],
    }


def test_the_short_table_has_a_line_for_each_tool_and_a_column_for_each_model(document):
    lines = render_short(document).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| batch 1 | computes in | ViT-A | ViT-B |"
    assert table[2] == "| MINE | fp32 | **10.0 (9.80–10.2)** | 234 (230–239) |"
    assert table[3] == "| CLOSE | fp32 | **10.3 (10.1–10.5)** | **10.3 (10.1–10.5)** |"
    assert table[5] == "| HALF | bf16 | 5.00 (4.90–5.10) | 5.00 (4.90–5.10) |"
    assert table[6] == "| LOST | – | failed | failed |"
    assert lines[0].startswith("Median milliseconds")
    assert "in one run (of ViT-B in more, for lack of memory, each with eager)" in lines[0]
    assert "ViT-A: at 224" in lines[-3]
    assert "TensorRT (no NVIDIA GPU)" in lines[-3]
    assert "Close: closer 1.0" in lines[-1]


def test_bold_means_that_no_fp32_row_is_proven_faster(document):
    assert leaders(document["groups"][0]["rows"]) == {"mine", "close"}
    assert leaders([row("half", 5.0, "bf16")]) == set()


def test_the_long_table_says_why_a_row_failed(document):
    text = render_long(document)
    assert "| LOST | – | failed: pip / failed badly | | | | | | | |" in text
    assert (
        "| MINE | fp32 | 10.0 (9.80–10.2) | 0.50 (0.48–0.52) | – | 100 | 1.52 | 123 | 1.2e-06 | noisy |" in text
    )
    assert "`mine` against itself: 1.001 (0.990–1.010), sound." in text
    assert "`close --it`" in text


def test_a_figure_without_an_interval_stands_alone():
    assert interval(row("mine", 10.0, p50_interval_ms=None), "p50_ms", "p50_interval_ms") == "10.0"
    assert interval({}, "p50_ms", "p50_interval_ms") == "–"


def test_the_table_is_put_between_two_comments_and_nowhere_else(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    insert(page, "| new |")
    assert page.read_text() == f"before\n{START}\n| new |\n{END}\nafter\n"
    assert inserted(page) == "| new |"
    page.write_text("nothing here\n")
    assert inserted(page) is None
    with pytest.raises(PreparationFailed, match="lacks the lines"):
        insert(page, "| new |")


def test_the_readmes_table_is_that_of_the_recorded_figures():
    path = RESULTS / command.DEVICE / "peers.json"
    if not path.is_file() or inserted(README) is None:
        pytest.skip("nothing is recorded: run `make peers` on a quiet machine")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert inserted(README) == render_short(document), "python -m benchmarks.peers --render-only --readme"
    assert path.with_suffix(".md").read_text(encoding="utf-8") == render_long(document)


# Agreement with others' harnesses

BENCHMARK_REPORT = """Command line parameters
-m;model.onnx
-api;sync

Execution results
first inference time (ms);30.37
total number of iterations;20
latency (ms);55.23
avg latency;53.08
throughput;18.78

"""


def test_the_median_of_benchmark_apps_report():
    assert agreement.median_of_report(BENCHMARK_REPORT) == 55.23


@pytest.mark.parametrize("text", ["", BENCHMARK_REPORT.replace("latency (ms)", "p90"), BENCHMARK_REPORT * 2])
def test_a_report_without_one_median_is_refused(text):
    with pytest.raises(ValueError, match="not one"):
        agreement.median_of_report(text)


def test_agreement_is_judged_by_pairs():
    theirs = [50.0, 60.0, 70.0, 80.0]
    entry = agreement.judged("mine", "theirs", [1.01 * t for t in theirs], theirs)
    assert entry["ratio"] == pytest.approx(1.01)
    assert entry["ratio_interval"] == pytest.approx([1.01, 1.01])
    assert entry["within_limit"]
    assert entry["proven"]
    assert agreement.sentence(entry).endswith("within 2 %")
    assert not agreement.judged("mine", "theirs", [1.03 * t for t in theirs], theirs)["within_limit"]
    noisy = agreement.judged("mine", "theirs", [45.0, 66.0, 63.0, 88.0], theirs)
    assert noisy["within_limit"]
    assert not noisy["proven"]
    assert "more repetitions" in agreement.sentence(noisy)
    with pytest.raises(ValueError, match="two repetitions"):
        agreement.paired([1.0], [1.0])
