"""What ``verify`` does beside judging: reports, requirements, limits, comparison, candidates, blame."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vit_deploy.deploy.export import export_model
from vit_deploy.model.config import ViTConfig
from vit_deploy.weights.hashes import sha256_of
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model

    Invoke = Callable[..., Any]

pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")

HEADS, DEPTH = 4, 9


@pytest.fixture(scope="module")
def model() -> Model:
    config = ViTConfig(
        image_size=(16, 24), patch_size=8, embed_dim=40, depth=DEPTH, num_heads=HEADS, mlp_dim=96, num_classes=5
    )
    return random_model(config, "small", seed=2)


@pytest.fixture(scope="module")
def made(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("made") / "bundle"
    export_model(model, bundle, ["onnx"], verify=False)
    return bundle


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy, under a name that a shell has to quote."""
    return shutil.copytree(made, tmp_path / "ein Bündel")


def kill_a_head(bundle: Path, block: int, head: int) -> None:
    """Somebody edits the file, and the manifest with it: one head of one block adds nothing any more."""
    manifest = bundle / "manifest.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    record = document["artefacts"]["onnx-fp32"]
    file = bundle / record["directory"] / record["files"][0]["name"]
    graph = onnx.load(file)
    (weight,) = [entry for entry in graph.graph.initializer if f"blocks.{block}.attn.proj.weight" in entry.name]
    values = numpy_helper.to_array(weight).copy()
    width = values.shape[0] // HEADS
    values[head * width : (head + 1) * width] = 0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(graph, file)
    record["files"][0] |= {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    manifest.write_text(json.dumps(document), encoding="utf-8")


def test_a_dead_head_in_block_7_is_named_with_its_stage(bundle: Path, invoke: Invoke, tmp_path: Path) -> None:
    kill_a_head(bundle, block=7, head=1)
    junit, page, text = (tmp_path / f"parity.{suffix}" for suffix in ("xml", "html", "md"))
    result = invoke("verify", bundle, "--junit", junit, "--html", page, "--markdown", text)
    assert result.code == 3
    assert "culprit: block 7's attention, introduced at the export stage" in result.out
    assert "blocks.7.attn.proj.weight differs in columns 10–19 (head 1)" in result.out
    for report in (page, text):
        assert "Block 7's attention" in report.read_text(encoding="utf-8").replace("&#39;", "'")
    suites = ET.parse(junit).getroot()
    assert int(suites.attrib["failures"]) > 0
    assert "block 7's attention" in ET.tostring(suites, encoding="unicode")


def test_without_blame_nothing_is_looked_for(bundle: Path, invoke: Invoke) -> None:
    kill_a_head(bundle, block=7, head=1)
    result = invoke("verify", bundle, "--no-blame", "--json")
    assert result.code == 3
    assert result.json["artefacts"][0]["culprit"] is None


def test_the_reports_of_a_pass(bundle: Path, invoke: Invoke, tmp_path: Path) -> None:
    junit, page, text = (tmp_path / f"parity.{suffix}" for suffix in ("xml", "html", "md"))
    result = invoke("verify", bundle, "--json", "--junit", junit, "--html", page, "--markdown", text)
    assert result.code == 0
    (artefact,) = result.json["artefacts"]
    assert artefact["outcome"] == "passed"
    taps = [reading["tap"] for reading in artefact["drift"]["readings"]]
    assert taps[:3] == ["embed", "blocks.0.attn", "blocks.0.mlp"]
    assert f"blocks.{DEPTH - 1}.mlp" in taps
    assert ET.parse(junit).getroot().attrib["failures"] == "0"
    assert page.stat().st_size < 1_000_000
    assert [f"written: {path}" for path in (junit, text, page)] == result.err.splitlines()[:3]


def test_a_report_that_cannot_be_written_is_told_before_the_work(
    bundle: Path, invoke: Invoke, tmp_path: Path
) -> None:
    result = invoke("verify", bundle, "--junit", tmp_path / "none" / "parity.xml")
    assert result.code == 1
    assert "there is no folder" in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    ("asked", "code"), [("fused-attention=all,dtype=fp32", 0), ("dtype=fp16", 3), ("provider=cuda", 3)]
)
def test_what_is_required_must_be_so(asked: str, code: int, bundle: Path, invoke: Invoke) -> None:
    result = invoke("verify", bundle, "--require", asked, "--json")
    assert result.code == code
    (artefact,) = result.json["artefacts"]
    assert bool(artefact["unmet"]) is bool(code)
    assert artefact["passed"] is True


@pytest.mark.parametrize(
    "words",
    [
        ("--require", "fused-atention=all"),
        ("--limit", "wurst=3"),
        ("--limit", "worst"),
        ("--limit", "worst=many"),
        ("--limit", "worst=1", "--limit", "worst=2"),
        ("--dtype", "fp16"),
        ("--candidate-output", "x=logits"),
        ("--arch", "vit_tiny_patch16_224"),
    ],
)
def test_words_that_say_nothing_are_exit_code_2(words: tuple[str, ...], bundle: Path, invoke: Invoke) -> None:
    result = invoke("verify", bundle, *words)
    assert result.code == 2
    assert "expected: " in result.err


def test_a_limit_may_be_set_and_is_recorded(bundle: Path, invoke: Invoke) -> None:
    strict = invoke("verify", bundle, "--limit", "worst=0.001", "--no-blame", "--json")
    assert strict.code == 3
    assert strict.json["artefacts"][0]["limits"]["worst"] == 0.001
    assert "(limit 0.001)" in strict.json["artefacts"][0]["reason"]


def test_a_rebuild_is_compared_with_the_last_one(
    bundle: Path, model: Model, invoke: Invoke, tmp_path: Path
) -> None:
    rebuilt = tmp_path / "rebuilt"
    export_model(model, rebuilt, ["onnx"], verify=False)
    same = invoke("verify", rebuilt, "--against", bundle)
    assert same.code == 0
    assert "against: " in same.out
    lowered = tmp_path / "lowered"
    export_model(model, lowered, ["onnx"], options={"opset": 18}, verify=False)
    worse = invoke("verify", lowered, "--against", bundle)
    assert worse.code == 3
    assert "attention" in worse.out


def test_a_bundle_of_another_model_is_no_rebuild(
    bundle: Path, invoke: Invoke, tmp_path: Path, model: Model
) -> None:
    other = random_model(model.config, "small", seed=3)  # type: ignore[arg-type]
    export_model(other, tmp_path / "other", ["onnx"], verify=False)
    result = invoke("verify", tmp_path / "other", "--against", bundle, "--json")
    assert result.code == 3
    assert result.json["against"]["passed"] is False


def _bare(bundle: Path, folder: Path) -> Path:
    """The artefact's file alone, as if somebody else had made it."""
    record = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["artefacts"]["onnx-fp32"]
    file = bundle / record["directory"] / record["files"][0]["name"]
    graph = onnx.load(file)
    for value, name in ((graph.graph.input[0], "x"), (graph.graph.output[0], "y")):
        for node in graph.graph.node:
            node.input[:] = [name if word == value.name else word for word in node.input]
            node.output[:] = [name if word == value.name else word for word in node.output]
        value.name = name
    onnx.save(graph, folder / "their export.onnx")
    return folder / "their export.onnx"


def test_somebody_elses_file_is_judged(bundle: Path, invoke: Invoke, tmp_path: Path) -> None:
    file = _bare(bundle, tmp_path)
    result = invoke("verify", bundle, "--candidate", file)
    assert result.code == 0
    assert "passed" in result.out
    assert "its 'y' is taken for logits" in result.err
    named = invoke("verify", bundle, "--candidate", file, "--candidate-output", "y=logits", "--json")
    assert named.code == 0
    assert named.json["artefacts"][0]["name"] == "their export.onnx"


def test_somebody_elses_faulty_file_is_looked_into(bundle: Path, invoke: Invoke, tmp_path: Path) -> None:
    kill_a_head(bundle, block=7, head=2)
    result = invoke("verify", bundle, "--candidate", _bare(bundle, tmp_path), "--json")
    assert result.code == 3
    culprit = result.json["artefacts"][0]["culprit"]
    assert (culprit["where"], culprit["stage"]) == ("blocks.7.attn", "export")


@pytest.mark.parametrize("words", [("--format", "onnx"), ("-m", "py:a:b"), ("--against", "x")])
def test_what_goes_with_a_bundle_does_not_go_with_a_candidate(
    words: tuple[str, ...], bundle: Path, invoke: Invoke, tmp_path: Path
) -> None:
    result = invoke("verify", bundle, "--candidate", tmp_path / "x.onnx", *words)
    assert result.code == 2
    assert words[0] in result.err


def test_random_weights_have_no_export(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(np.zeros(4).tobytes())
    result = invoke("verify", "vit_tiny_patch16_224", "--candidate", tmp_path / "x.onnx")
    assert result.code == 2
    assert "random weights" in result.err


def test_a_cache_that_cannot_be_written_costs_only_the_cache(
    bundle: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "file"))
    result = invoke("verify", bundle)
    assert result.code == 0
    assert "VIT_DEPLOY_CACHE" in result.err
    assert "VIT_DEPLOY_CACHE" not in invoke("verify", bundle, "--no-cache").err
