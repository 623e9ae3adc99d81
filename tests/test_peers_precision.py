"""What low precision gains: who takes part, our rows, ratios, goals, the table. Nothing is measured."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from benchmarks.peers import lowered, precision, recipe
from benchmarks.peers.lowered import ROWS, OurLowered, prepare_lowered
from benchmarks.peers.measure import peer_entries
from benchmarks.peers.models import PeerModel
from benchmarks.peers.ours import OurModel
from benchmarks.peers.ov import INT8, PLAIN
from benchmarks.peers.precision_table import render_precision
from benchmarks.peers.preparation import Prepared
from benchmarks.peers.ratios import CLAIMS, EAGER, Goal, best, claims_of, verdict
from benchmarks.peers.recipe import Job
from benchmarks.peers.tools.ort_quantizer.recipe import Pictures
from vit_deploy.bench.cases import Case
from vit_deploy.errors import ExportFailed

TINY = PeerModel("tiny", "Tiny", "none")


@pytest.fixture
def base(tmp_path):
    return OurModel(TINY, tmp_path, "0" * 64, {}, {})


# Who takes part


def test_each_comparison_has_its_own_rows():
    def rows(comparison):
        names = recipe.names(comparison)
        return {row.name for name in names for row in recipe.load(name).PEER.rows(comparison)}

    formats, low = rows("formats"), rows("precision")
    assert "nncf" not in formats
    assert "torch-compile-bf16" not in formats
    assert formats & low == {"timm-onnx", "openvino-ovc"}
    assert set(recipe.names("formats")) < set(recipe.names())
    every = {row.name for name in recipe.names() for row in recipe.load(name).PEER.variants}
    assert formats | low == every


def test_claims_are_of_rows_that_there_are():
    known = {row.tool for row in ROWS}
    known |= {
        row.name for name in recipe.names("precision") for row in recipe.load(name).PEER.rows("precision")
    }
    for claim in CLAIMS:
        assert set(claim.ours) | set(claim.theirs) <= known
        assert not set(claim.ours) & set(claim.theirs)


def test_every_arithmetic_has_a_tolerance():
    assert {*PLAIN.values(), *INT8.values(), *(row.precision for row in ROWS)} <= set(recipe.TOLERANCES)


def test_a_peer_has_only_the_rows_of_the_comparison(base, tmp_path):
    job = Job("openvino_ovc", TINY, tmp_path, tmp_path / "reference.npy", tmp_path, 8)
    trial = {"arithmetic": "bf16", "max_abs_diff": 0.5, "relative_error": 0.01}
    prepared = Prepared(job, None, "f" * 64, trials={"openvino-ovc": {"1": trial}})
    (entry,) = peer_entries(base, [prepared], 8, 2, "precision")
    assert (entry.tool, entry.arithmetic, entry.case.batch_size) == ("openvino-ovc", "bf16", 8)


def test_pictures_are_given_one_by_one_and_end():
    pictures = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    reader = Pictures(pictures, "x")
    first, second = reader.get_next(), reader.get_next()
    np.testing.assert_array_equal(np.concatenate([first["x"], second["x"]]), pictures)
    assert first["x"].shape == (1, 3, 1, 1)
    assert reader.get_next() is None


# Ours


def case(artefact, backend):
    return Case("bundle", artefact, "onnx", "fp32", backend, "cpu", 1, 2, True, {"model.onnx": "0"})


def test_what_failed_is_a_row_that_says_why(base, monkeypatch):
    failed = {"onnx-int8": "no scales", "onnx-bf16:openvino": "no bf16 here"}
    apart = {"onnx-fp32:onnxruntime": {"max_abs_diff": 1e-6, "relative_error": 1e-7}}
    ours = OurLowered(base, base.folder, {}, failed, apart, True)
    cases = [case("pytorch-fp32", "eager"), case("onnx-fp32", "onnxruntime"), case("onnx-bf16", "openvino")]
    monkeypatch.setattr(OurLowered, "_cases", lambda self, size, threads: cases)
    entries = {entry.tool: entry for entry in ours.entries(1, 2)}
    assert next(iter(entries)) == EAGER, "the baseline comes first"
    assert len(entries) == len(ROWS)
    for tool in ("onnx-int8:onnxruntime", "onnx-int8:openvino"):
        assert (entries[tool].case, entries[tool].failed) == (None, "no scales")
    assert entries["onnx-bf16:openvino"].failed == "no bf16 here"
    assert "not for pt2" in entries["pt2-bf16:pt2"].failed
    assert entries["onnx-fp32:onnxruntime"].case is cases[1]
    assert entries["onnx-fp32:onnxruntime"].apart == apart["onnx-fp32:onnxruntime"]
    assert entries["onnx-int8:openvino"].arithmetic == "int8"


@pytest.fixture
def exports(monkeypatch):
    made = []

    def export(base, bundle, precision, format, largest_batch):
        made.append((precision, format))
        if (precision, format) == ("bf16", "pt2"):
            raise ExportFailed("no compiler")

    monkeypatch.setattr(lowered, "_export", export)
    monkeypatch.setattr(lowered, "_differences", lambda *given: ({}, {"onnx-int8:openvino": "far off"}))
    return made


def test_ours_are_made_once_and_anew_when_asked(base, exports, monkeypatch):
    first = prepare_lowered(base, 8, 2)
    assert exports == list(lowered.EXPORTS)
    assert "no compiler" in first.failed["pt2-bf16"]
    assert first.failed["onnx-int8:openvino"] == "far off"
    assert "pt2-bf16" not in first.seconds
    assert first.current
    assert prepare_lowered(base, 8, 2) == first
    assert len(exports) == len(lowered.EXPORTS)
    monkeypatch.setattr(lowered, "source_digest", lambda: "other")
    later = prepare_lowered(base, 8, 2)
    assert not later.current
    assert lowered.stale([first, later]) == ["Tiny"]
    assert prepare_lowered(base, 8, 2, remake=True).current
    assert len(exports) == 2 * len(lowered.EXPORTS)
    assert prepare_lowered(base, 16, 2).current
    assert len(exports) == 3 * len(lowered.EXPORTS)


def test_without_fp32_there_is_nothing_to_compare(base, monkeypatch):
    def export(*given):
        raise ExportFailed("the disk is full")

    monkeypatch.setattr(lowered, "_export", export)
    with pytest.raises(ExportFailed, match="the disk is full"):
        prepare_lowered(base, 8, 2)


# The ratios


def row(tool, milliseconds, launches=2, **more):
    """Rounds of three samples about a median, two launches."""
    rounds = 8
    samples = [int(1e6 * milliseconds * (1 + 0.001 * wobble)) for _ in range(rounds) for wobble in (-1, 0, 1)]
    told = {
        "tool": tool,
        "key": tool,
        "title": tool.upper(),
        "ours": ":" in tool,
        "ok": True,
        "error": None,
        "arithmetic": "fp32",
        "p50_ms": milliseconds,
        "p50_interval_ms": None,
        "ratio": None,
        "ratio_interval": None,
        "p90_ms": None,
        "images_per_s": None,
        "cold_start_ms": None,
        "peak_rss_bytes": None,
        "notes": [],
        "samples_ns": samples,
        "round_lengths": [3] * rounds,
        "launch_lengths": [rounds // launches] * launches,
    }
    return {**told, **more}


@pytest.fixture
def group():
    rows = [
        row(EAGER, 300.0),
        row("onnx-int8:onnxruntime", 75.0),
        row("onnx-int8:openvino", 66.0),
        row("openvino-int8:openvino", 0.0, ok=False, error="gone"),
        row("ort-quantizer", 92.0),
        row("ort-quantizer-wide", 100.0),
        row("nncf", 66.0),
        row("onnx-bf16:openvino", 120.0),
        row("openvino-ovc", 150.0),
        row("torch-compile-bf16", 114.0),
    ]
    run = {"tools": [entry["tool"] for entry in rows], "soundness": None}
    return {
        "model": "vit-b",
        "title": "ViT-B/16",
        "note": "",
        "batch_size": 1,
        "runs": [run],
        "rows": rows,
    }


def by_name(group):
    return {entry["claim"]: entry for entry in claims_of(group)}


def test_a_ratio_is_how_many_times_faster_the_best_of_ours_is_than_the_best_of_theirs(group):
    found = by_name(group)
    assert found["int8-eager"]["ratio"] == pytest.approx(300 / 66, rel=1e-3)
    assert found["int8-eager"]["ours"] == "onnx-int8:openvino"
    low, high = found["int8-eager"]["ratio_interval"]
    assert low < 300 / 66 < high
    assert found["int8-eager"]["verdict"] == "held"
    assert found["int8-onnxruntime"]["theirs"] == "ort-quantizer"
    assert found["int8-onnxruntime"]["ratio"] == pytest.approx(92 / 75, rel=1e-3)
    assert found["int8-nncf"]["ratio"] == pytest.approx(1.0, rel=1e-3)
    assert found["int8-nncf"]["verdict"].endswith("not proven")
    assert found["bf16-peers"]["theirs"] == "torch-compile-bf16"
    assert found["bf16-peers"]["verdict"] == "missed"


def test_what_was_not_measured_has_no_ratio(group):
    told = by_name(group)["fp32-timm"]
    assert (told["ratio"], told["must"]) == (None, 1.02)
    assert "timm-onnx" in told["why_not"] or "onnx-fp32" in told["why_not"]


def test_rows_of_different_runs_are_not_compared(group):
    group["runs"] = [{"tools": [EAGER, "onnx-int8:openvino"]}, {"tools": [EAGER, "nncf"]}]
    found = by_name(group)
    assert found["int8-nncf"]["why_not"] == "they were measured in different runs"
    assert found["int8-eager"]["ratio"] is not None


def test_a_model_without_goals_is_shown_all_the_same(group):
    told = by_name({**group, "model": "vit-ti"})
    assert (told["int8-eager"]["must"], told["int8-eager"]["verdict"]) == (None, "")
    assert told["fp32-timm"]["must"] == 1.08


@pytest.mark.parametrize(
    ("ratio", "bounds", "expected"),
    [
        (5.5, (5.2, 5.8), "aim"),
        (4.5, (4.2, 4.8), "held"),
        (4.1, (3.9, 4.3), "held, not proven"),
        (3.9, (3.7, 4.1), "missed, not proven"),
        (3.0, (2.8, 3.2), "missed"),
        (4.5, None, "held"),
    ],
)
def test_a_goal_inside_the_interval_is_neither_reached_nor_missed(ratio, bounds, expected):
    assert verdict(ratio, bounds, Goal(4.0, 5.0)) == expected


def test_the_best_is_the_fastest_that_was_measured(group):
    rows = {entry["tool"]: entry for entry in group["rows"]}
    assert best(rows, ("openvino-int8:openvino", "onnx-int8:onnxruntime"))["tool"] == "onnx-int8:onnxruntime"
    assert best(rows, ("openvino-int8:openvino", "nobody")) is None


# The table


@pytest.fixture
def document(group):
    return {
        "environment": {"cpu": "Some CPU"},
        "threads": 2,
        "batch_sizes": [1],
        "stale": [],
        "peers": {"nncf": {"title": "NNCF", "command": "nncf.quantize(…)", "shown": {"nncf": "3.4.0"}}},
        "skipped": [{"peer": "TensorRT", "reason": "no NVIDIA GPU"}],
        "groups": [group],
    }


def test_the_table_has_every_claim_and_every_row(document):
    text = render_precision(document)
    lines = text.splitlines()
    (claim,) = [line for line in lines if line.startswith("| best int8, over eager fp32")]
    assert claim.startswith("| best int8, over eager fp32 | ViT-B/16 | 1 | 4.5")
    assert "| 4.00 | 5.00 | held | ONNX-INT8:OPENVINO: 66.0 | PYTORCH-FP32:EAGER: 300 |" in claim
    assert "| OPENVINO-INT8:OPENVINO | fp32 | failed: gone |" in text
    assert "was measured" in next(line for line in lines if line.startswith("| ONNX fp32 in ONNX Runtime"))
    assert "earlier source" not in text
    assert "nncf 3.4.0" in text
    widths = {line.count("|") for line in lines if line.startswith("|") and "over" in line}
    assert widths == {10}


def test_the_table_says_that_artefacts_are_old(document):
    document["stale"] = ["ViT-B/16"]
    assert "**Our artefacts of ViT-B/16 were made by earlier source.**" in render_precision(document)


def test_the_command_renders_what_was_measured(document, tmp_path, monkeypatch, capsys):
    path = tmp_path / "precision.json"
    given = copy.deepcopy(document)
    for entry in given["groups"][0]["rows"]:
        entry["baseline_key"] = EAGER
    precision.write(path, given)
    told = replace_namespace(output=path, render_only=True)
    monkeypatch.setattr(precision, "arguments", lambda: told)
    assert precision.main() == 0
    assert "best int8, over eager fp32" in capsys.readouterr().out
    assert path.with_suffix(".md").read_text(encoding="utf-8").startswith("# What low precision gains")
    assert '"claims"' in path.read_text(encoding="utf-8")


def replace_namespace(**values):
    told = precision.arguments([])
    for name, value in values.items():
        setattr(told, name, value)
    return told


def test_the_flags_have_this_comparisons_peers():
    told = precision.arguments(["--duration", "0.5", "--remake-ours"])
    assert told.peers.split(",") == recipe.names("precision")
    assert told.models == "vit-b,vit-ti"
    assert (told.duration, told.remake_ours, told.launches) == (0.5, True, 2)
