"""``vit-deploy verify``, on bundles with real ONNX and TorchScript artefacts of a small ViT."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from vit_deploy import registry
from vit_deploy.bundle import edit_bundle
from vit_deploy.facts import Availability, Verdict
from vit_deploy.model.config import ViTConfig
from vit_deploy.protocols import ExportedFiles, NoOptions, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.hashes import sha256_of
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import Weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model

    Invoke = Callable[..., Any]

pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")

UNKNOWN = Verdict(passed=None, reason="not judged yet")
SPEC_BATCH = BatchRange(1, 1, 3)


def _export(bundle: Path, model: Model, format: str, made_from: Model) -> None:
    """Put an artefact into a bundle that was never judged, and that may be another model's."""
    exporter = registry.exporter(format)
    options, spec = exporter.Options(), model.config.io_spec(batch=SPEC_BATCH)
    with edit_bundle(bundle, model) as editor:
        staging = editor.stage(f"{format}-fp32")
        exported = exporter.export(made_from, spec, options, staging, Silent())
        candidate = editor.candidate(f"{format}-fp32", format, "fp32", exported)
        editor.accept(candidate, exported, options, UNKNOWN)


def _add_engine(bundle: Path, model: Model) -> None:
    with edit_bundle(bundle, model) as editor:
        (editor.stage("tensorrt-fp32") / "model.plan").write_bytes(b"plan")
        exported = ExportedFiles(("model.plan",), model.config.io_spec(batch=SPEC_BATCH))
        candidate = editor.candidate("tensorrt-fp32", "tensorrt", "fp32", exported)
        editor.accept(candidate, exported, NoOptions(), UNKNOWN)


@pytest.fixture(scope="module")
def model() -> Model:
    config = ViTConfig(
        image_size=(16, 24), patch_size=8, embed_dim=40, depth=2, num_heads=4, mlp_dim=96, num_classes=5
    )
    return random_model(config, "small", seed=2)


@pytest.fixture(scope="module")
def made(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest ONNX, a faulty TorchScript (one bias is off) and an engine that cannot run here."""
    bundle = tmp_path_factory.mktemp("made") / "bundle"
    bias = model.weights["blocks.1.mlp.fc2.bias"]
    spoiled = replace(bias, reader=lambda: bias.read() * 1.001)
    weights = Weights(spoiled if name == bias.name else tensor for name, tensor in model.weights.items())
    _export(bundle, model, "onnx", model)
    _export(bundle, model, "torchscript", replace(model, weights=weights))
    _add_engine(bundle, model)
    return bundle


@pytest.fixture
def bundle(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, under a name that a shell has to quote, on a machine without a GPU."""
    tensorrt = type(registry.runtime("tensorrt"))
    no = Availability.no("there is no NVIDIA GPU", "run it on a machine with one")
    monkeypatch.setattr(tensorrt, "available", lambda self, device=None: no)
    return shutil.copytree(made, tmp_path / "ein Bündel")


def _content(bundle: Path) -> dict[str, str]:
    return {str(path): sha256_of(path) for path in sorted(bundle.rglob("*")) if path.is_file()}


def test_an_honest_artefact_passes(bundle: Path, invoke: Invoke) -> None:
    before = _content(bundle)
    result = invoke("verify", bundle, "--format", "onnx")
    assert result.code == 0
    assert "onnx-fp32" in result.out
    assert "passed" in result.out
    assert "(≤ 10)" in result.out
    assert "(≤ 4)" in result.out
    assert result.err == f"next: vit-deploy bench '{bundle}' --backend eager,ort\n"
    assert _content(bundle) == before


def test_a_faulty_artefact_ends_with_exit_code_3(bundle: Path, invoke: Invoke) -> None:
    result = invoke("verify", bundle)
    assert result.code == 3
    rows = {line.split()[0]: line for line in result.out.splitlines() if "-fp32" in line}
    assert "passed" in rows["onnx-fp32"]
    assert "failed" in rows["torchscript-fp32"]
    assert "torchscript-fp32: logits: " in result.out
    assert "times eager's own error at the worst (limit 10)" in result.out
    assert "torchscript-fp32: culprit: block 1's MLP, introduced at the export stage" in result.out
    assert "unverified" in rows["tensorrt-fp32"]
    assert "tensorrt: there is no NVIDIA GPU; run it on a machine with one" in rows["tensorrt-fp32:"]
    assert "1 of 3 artefacts not equal to eager PyTorch: torchscript-fp32" in result.err


def test_what_a_machine_reads(bundle: Path, invoke: Invoke) -> None:
    result = invoke("verify", bundle, "--json")
    assert result.code == 3
    document = result.json
    assert document["schema"] == "vit-deploy/verify/1"
    entries = {entry["name"]: entry for entry in document["artefacts"]}
    onnx, torchscript, engine = (entries[f"{name}-fp32"] for name in ("onnx", "torchscript", "tensorrt"))
    assert onnx["format"] == "onnx"
    assert (onnx["dtype"], onnx["backend"], onnx["passed"]) == ("fp32", "onnxruntime", True)
    assert onnx["bytes"] > 10_000
    assert 0 < onnx["p95_ratio"] <= onnx["worst_ratio"] < 10
    assert onnx["samples"] == 16
    assert onnx["details"]["batch_sizes"] == [1, 2, 3]
    assert torchscript["passed"] is False
    assert torchscript["worst_ratio"] > 10
    assert torchscript["reason"]
    assert (engine["passed"], engine["backend"], engine["worst_ratio"]) == (None, None, None)


def test_an_engine_that_cannot_run_here_fails_nothing_else(bundle: Path, invoke: Invoke) -> None:
    result = invoke("verify", bundle, "--format", "onnx,trt")
    assert result.code == 0
    assert "unverified" in result.out


@pytest.mark.parametrize("words", [("--format", "tensorrt"), ("--format", "trt"), ("--backend", "trt")])
def test_asking_for_what_cannot_run_here_is_exit_code_4(
    words: tuple[str, ...], bundle: Path, invoke: Invoke
) -> None:
    result = invoke("verify", bundle, *words)
    assert result.code == 4
    assert "tensorrt: there is no NVIDIA GPU" in result.err
    assert "next: run it on a machine with one" in result.err


def test_a_backend_by_its_alias_judges_what_it_opens(bundle: Path, invoke: Invoke) -> None:
    result = invoke("verify", bundle, "--backend", "ort", "--threads", "1", "--seed", "3", "--json")
    assert result.code == 0
    (entry,) = result.json["artefacts"]
    assert entry["name"] == "onnx-fp32"


def test_the_users_images_are_judged_too(bundle: Path, invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "bilder über"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (50, 40), (40 * index, 200, 90)).save(folder / f"写真 {index}.png")
    command = ("verify", bundle, "--format", "onnx", "--images", folder, "--json")
    result = invoke(*command)
    assert result.json["artefacts"][0]["samples"] == 21
    assert "image" in result.json["artefacts"][0]["details"]["families"]
    limited = invoke(*command, "--max-images", "2")
    assert limited.json["artefacts"][0]["samples"] == 18
    assert "using 2 of the 5 pictures" in limited.err


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "broken"])
def test_images_that_are_none_are_exit_code_6(kind: str, bundle: Path, invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / kind
    if kind == "file":
        folder.write_text("")
    elif kind != "missing":
        folder.mkdir()
    if kind == "broken":
        (folder / "broken.jpg").write_bytes(b"no picture at all")
    result = invoke("verify", bundle, "--format", "onnx", "--images", folder)
    assert result.code == 6
    assert kind in result.err
    assert result.out == ""


def test_a_changed_file_is_exit_code_6_before_anything_is_opened(
    bundle: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(type(registry.runtime("onnxruntime")), "open", never)
    (changed,) = bundle.glob("artefacts/torchscript-*/*")
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    result = invoke("verify", bundle)
    assert result.code == 6
    assert "was changed since it was exported" in result.err


def test_changed_reference_weights_are_exit_code_6(bundle: Path, invoke: Invoke) -> None:
    (weights,) = bundle.glob("weights-*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert invoke("verify", bundle, "--format", "onnx").code == 6


def test_no_bundle_is_exit_code_6(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("verify", tmp_path / "nothing")
    assert result.code == 6
    assert "there is no bundle" in result.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--format", "onxx"), "did you mean 'onnx'?"),
        (("--format", ","), "names no format"),
        (("--backend", "ortt"), "did you mean 'ort'?"),
        (("--backend", "eager"), "eager opens pytorch"),
        (("--backend", "ort", "--format", "torchscript"), "onnxruntime opens onnx"),
        (("--device", "gpu"), "unknown device 'gpu'"),
        (("--threads", "0"), "--threads"),
    ],
)
def test_words_that_fit_nothing_are_exit_code_2(
    words: tuple[str, ...], told: str, bundle: Path, invoke: Invoke
) -> None:
    result = invoke("verify", bundle, *words)
    assert result.code == 2
    assert told in result.err
    assert result.out == ""


def test_a_format_that_the_bundle_does_not_hold(model: Model, invoke: Invoke, tmp_path: Path) -> None:
    _add_engine(tmp_path / "b", model)
    result = invoke("verify", tmp_path / "b", "--format", "onnx")
    assert result.code == 2
    assert "holds no onnx artefact" in result.err
    assert "--format tensorrt" in result.err


def test_a_bundle_without_artefacts(bundle: Path, invoke: Invoke) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text("utf-8")), "artefacts": {}}), "utf-8")
    result = invoke("verify", bundle)
    assert result.code == 2
    assert "holds no artefacts" in result.err
