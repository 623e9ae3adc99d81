from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vit_deploy.bundle import edit_bundle
from vit_deploy.facts import Verdict
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.counts import count_macs, count_parameters
from vit_deploy.protocols import ExportedFiles, NoOptions
from vit_deploy.weights.random import random_model

CONFIG = ViTConfig(
    image_size=(32, 32), patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_dim=64, num_classes=3
)


def make_bundle(path, verdict: Verdict | None = None):
    """A bundle with one artefact of two files; nothing here ever opens them."""
    model = replace(random_model(CONFIG, "tiny"), labels=("cat", "dog", "bird"))
    with edit_bundle(path, model) as editor:
        staging = editor.stage("onnx-fp32")
        (staging / "model.onnx").write_bytes(b"graph")
        (staging / "model.onnx.data").write_bytes(b"weights" * 100)
        exported = ExportedFiles(
            ("model.onnx", "model.onnx.data"), CONFIG.io_spec(), {"opset": 23, "nodes": 31}, {"onnx": "1.23.2"}
        )
        candidate = editor.candidate("onnx-fp32", "onnx", "fp32", exported)
        judged = verdict or Verdict(passed=True, backend="onnxruntime", worst_ratio=1.2345, p95_ratio=1.1)
        editor.accept(candidate, exported, NoOptions(), judged)
    return path


def test_the_layer_table_of_a_named_architecture_is_golden(invoke, golden):
    result = invoke("inspect", "vit_tiny_patch16_224")
    assert result.code == 0
    golden("inspect-model.txt", result.out)
    assert "next: vit-deploy export -m vit_tiny_patch16_224 --format onnx" in result.err


def test_the_figures_are_the_models(invoke):
    document = invoke("inspect", "deit_tiny_distilled_patch16_224", "--batch-size", 3, "--json").json
    config = ViTConfig.from_dict(document["config"])
    assert config.distillation_head
    assert document["parameters"] == count_parameters(config)
    assert document["gmacs"] == pytest.approx(3 * count_macs(config) / 1e9)
    whole = document["layers"][0]
    assert whole["output_shape"] == [3, 1000]
    blocks = [row for row in document["layers"] if row["name"].startswith("blocks.11.")]
    assert blocks, "the document has every block"


def test_depth_says_how_far_down_it_goes(invoke):
    rows = invoke("inspect", "vit_tiny_patch16_224", "--depth", 1, "--json").json["layers"]
    assert {row["level"] for row in rows} == {0, 1}
    assert len(invoke("inspect", "vit_tiny_patch16_224", "--depth", 0, "--json").json["layers"]) == 1


def test_the_largest_model_costs_no_memory(invoke):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert invoke("inspect", "vit_giant_patch14_224", "--json").json["parameters"] == 1_012_611_432
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 400_000  # kB; its weights alone are 4 GB


def test_what_a_bundle_holds(invoke, tmp_path):
    path = make_bundle(tmp_path / "ein Bündel")
    document = invoke("inspect", path, "--json").json
    (artefact,) = document["artefacts"]
    assert (artefact["name"], artefact["format"], artefact["dtype"]) == ("onnx-fp32", "onnx", "fp32")
    assert artefact["bytes"] == 705
    assert artefact["intact"]
    assert artefact["passed"] is True
    assert artefact["worst_ratio"] == 1.234
    assert artefact["facts"] == {"opset": 23, "nodes": 31}
    assert document["weights"]["intact"]
    assert document["labels"] == ["cat", "dog", "bird"]


def test_the_table_of_a_bundle_is_golden(invoke, golden, tmp_path):
    path = make_bundle(tmp_path / "b")
    result = invoke("inspect", path)
    assert result.code == 0
    golden("inspect-bundle.txt", result.out)
    assert "onnx-fp32: nodes 31, opset 23" in result.err


def test_an_unverified_artefact_says_why(invoke, tmp_path):
    path = make_bundle(tmp_path / "b", Verdict(passed=None, reason="no GPU here"))
    result = invoke("inspect", path)
    assert result.code == 0
    assert "unverified" in result.out
    assert "onnx-fp32: unverified: no GPU here" in result.err


@pytest.mark.parametrize("pattern", ["artefacts/*/model.onnx.data", "weights-*.safetensors"])
def test_a_changed_file_is_shown_and_is_exit_code_6(invoke, tmp_path, pattern: str):
    path = make_bundle(tmp_path / "b")
    (file,) = path.glob(pattern)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    result = invoke("inspect", path)
    assert result.code == 6
    assert "changed" in result.out
    assert "SHA-256" in result.err
    told = invoke("inspect", path, "--json")
    assert told.code == 6
    document = json.loads(told.out)
    assert not (document["artefacts"][0]["intact"] and document["weights"]["intact"])


def test_a_broken_manifest_is_bad_input(invoke, tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    assert invoke("inspect", tmp_path).code == 6


def test_an_unknown_model_is_refused(invoke):
    result = invoke("inspect", "vit_bse_patch16_224")
    assert result.code == 2
    assert "vit_base_patch16_224" in result.err
