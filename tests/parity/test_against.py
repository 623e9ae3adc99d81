"""A rebuild beside the bundle that was accepted last: what fails it, and what is only told."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from vit_deploy import registry
from vit_deploy.bundle import Bundle, edit_bundle
from vit_deploy.facts import Verdict
from vit_deploy.model.config import ViTConfig
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.against import compare_bundles
from vit_deploy.protocols import ExportedFiles, NoOptions, Silent
from vit_deploy.spec import BatchRange
from vit_deploy.weights.random import random_model
from vit_deploy.weights.tensors import Weights

CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=8, embed_dim=40, depth=2, num_heads=4, mlp_dim=96, num_classes=5
)
BUILT = {
    "backend": "onnxruntime",
    "device": "cpu",
    "precision": "fp32",
    "dtype": {"linear": {"fp32": 10}, "layernorm": {"fp32": 5}},
    "placement": {"CPUExecutionProvider": 41},
    "shape_nodes": {},
    "fused_attention": {"fused": 2, "of": 2},
    "tf32": None,
    "precision_hint": None,
}


def passed(built=BUILT, **verdict):
    details = {"built": copy.deepcopy(built), "device": "cpu", "version": "1.32.0"} if built else {}
    told = {"passed": True, "backend": "onnxruntime", "worst_ratio": 1.25, "details": details, **verdict}
    return Verdict(**told)


@pytest.fixture(scope="module")
def model():
    model = random_model(CONFIG, "small", seed=2)
    return replace(model, labels=("ant", "bee", "cat", "dog", "elk"))


@pytest.fixture
def build(tmp_path, model):
    """Make a bundle of artefacts that were never made: ``build("new", onnx={"facts": {...}})``."""

    def make(folder, of=model, **artefacts):
        with edit_bundle(tmp_path / folder, of) as editor:
            for format, told in artefacts.items():
                name = f"{format}-{told.get('precision', 'fp32')}"
                (editor.stage(name) / "model").write_bytes(told.get("content", b"content"))
                spec = told.get("spec") or of.config.io_spec(batch=BatchRange(1, 1, 3))
                files = ExportedFiles(
                    ("model",), spec, told.get("facts", {}), told.get("tools", {"torch": "2"})
                )
                candidate = editor.candidate(name, format, told.get("precision", "fp32"), files)
                editor.accept(candidate, files, NoOptions(), told.get("verdict", passed()))
        return Bundle.open(tmp_path / folder)

    return make


def failures(comparison):
    return [(finding.name, finding.artefact) for finding in comparison.failures]


def texts(comparison, name):
    return " / ".join(finding.text for finding in comparison.findings if finding.name == name)


def test_the_same_once_more(build):
    comparison = compare_bundles(build("new", onnx={}), build("old", onnx={}), {"onnx-fp32": passed()})
    assert comparison.passed
    assert texts(comparison, "bytes") == "its bytes are the same"
    told = json.loads(json.dumps(comparison.to_dict()))
    assert told["passed"] is True
    assert {tuple(entry) for entry in told["findings"]} == {("name", "severity", "text", "artefact")}
    assert all(entry["severity"] == "informs" for entry in told["findings"])


def test_a_retrained_model_is_another_model(build, model):
    other = random_model(CONFIG, "small", seed=3)
    new = build("new", of=replace(other, labels=model.labels), onnx={"spec": CONFIG.io_spec(("tokens",))})
    old = build("old", onnx={})
    comparison = compare_bundles(new, old, {})
    assert failures(comparison) == [("model", "")]
    assert len(comparison.findings) == 1
    for bundle in (new, old):
        assert bundle.manifest.model.weights.sha256[:16] in comparison.findings[0].text


def test_fields_that_differ_are_named_with_both_values(build, model):
    recipe = replace(model.preprocessing, mean=(0.1, 0.2, 0.3))
    labels = (*model.labels[:2], "lynx", *model.labels[3:])
    config = replace(CONFIG, norm_eps=1e-5, activation="gelu_tanh")
    new = build("new", of=replace(model, config=config, preprocessing=recipe, labels=labels), onnx={})
    comparison = compare_bundles(new, build("old", onnx={}), {})
    assert failures(comparison) == [("model", "")] * 3
    told = texts(comparison, "model")
    assert "activation is 'gelu_tanh' and was 'gelu'" in told
    assert "norm_eps is 1e-05 and was 1e-06" in told
    assert "the preprocessing differs: mean is [0.1, 0.2, 0.3] and was" in told
    assert "class 2 is 'lynx' and was 'cat'" in told


def test_the_same_weights_of_another_file_are_the_same_model(build, model):
    source = replace(model.source, name="copy")
    comparison = compare_bundles(
        build("new", of=replace(model, source=source), onnx={}), build("old", onnx={}), {}
    )
    assert comparison.passed
    assert "the same weights came from copy" in texts(comparison, "source")


def test_an_artefact_that_is_gone_and_one_that_is_new(build):
    comparison = compare_bundles(
        build("new", torchscript={}), build("old", onnx={}), {"torchscript-fp32": passed()}
    )
    assert failures(comparison) == [("missing", "onnx-fp32")]
    assert texts(comparison, "new")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (CONFIG.io_spec(("embedding",), BatchRange(1, 1, 3)), "its outputs are embedding"),
        (CONFIG.io_spec(("logits", "tokens"), BatchRange(1, 1, 3)), "tokens float32 (batch, "),
        (CONFIG.io_spec(batch=BatchRange(1, 1, 3), dtype="float16"), "pixel_values float16 (batch, 3, 16, 24)"),
        (
            CONFIG.io_spec(batch=BatchRange(1, 1, 2)),
            "its batch sizes (min, opt, max) are 1, 1, 2, and were 1, 1, 3",
        ),
        (CONFIG.io_spec(batch=BatchRange(3, 3, 3)), "its inputs are pixel_values float32 (3, 3, 16, 24)"),
    ],
)
def test_another_interface_fails(spec, told, build):
    comparison = compare_bundles(build("new", onnx={"spec": spec}), build("old", onnx={}), {})
    assert {name for name, _ in failures(comparison)} == {"interface"}
    assert told in texts(comparison, "interface")


@pytest.mark.parametrize(
    ("change", "name", "told"),
    [
        (
            {"fused_attention": {"fused": 1, "of": 2}},
            "fused-attention",
            "1 of 2 attentions run as one kernel, and 2",
        ),
        ({"fused_attention": {"fused": 2, "of": 3}}, "fused-attention", "2 of 3 attentions"),
        ({"precision": "bf16"}, "precision", "it is computed in bf16, and was fp32"),
        ({"precision_hint": "bf16"}, "precision", "the precision hint is bf16, and was None"),
        (
            {"dtype": {"linear": {"fp32": 10}, "layernorm": {"fp16": 5}}},
            "precision",
            "layers of the class layernorm are fp16 (5), and were fp32 (5)",
        ),
        (
            {"placement": {"CPUExecutionProvider": 3, "CUDAExecutionProvider": 38}},
            "placement",
            "its nodes are on CPUExecutionProvider (3), CUDAExecutionProvider (38), and were on",
        ),
    ],
)
def test_a_worse_build_fails(change, name, told, build):
    new, old = build("new", onnx={}), build("old", onnx={})
    comparison = compare_bundles(new, old, {"onnx-fp32": passed({**BUILT, **change})})
    assert failures(comparison) == [(name, "onnx-fp32")]
    assert told in texts(comparison, name)
    # What the new manifest says counts where the artefact was not judged here.
    written = build("written", onnx={"verdict": passed({**BUILT, **change})})
    assert failures(compare_bundles(written, old, {})) == [(name, "onnx-fp32")]


def test_tf32_that_came_on_fails(build):
    then = passed({**BUILT, "device": "cuda:0", "tf32": False})
    now = passed({**BUILT, "device": "cuda:0", "tf32": True})
    new, old = build("new", onnx={}), build("old", onnx={"verdict": then})
    assert failures(compare_bundles(new, old, {"onnx-fp32": now})) == [("precision", "onnx-fp32")]
    assert compare_bundles(new, build("older", onnx={"verdict": now}), {"onnx-fp32": then}).passed


@pytest.mark.parametrize(
    "change",
    [
        {"fused_attention": {"fused": 3, "of": 3}},
        {"dtype": {"linear": {"fp32": 8}, "layernorm": {"fp32": 5}}},
        {"placement": {"CPUExecutionProvider": 30}},
        {"placement": {"CPUExecutionProvider": 30, "Other": 4}, "shape_nodes": {"Other": 4}},
        {"fused_attention": None},
    ],
)
def test_a_build_that_is_no_worse_passes(change, build):
    new, old = build("new", onnx={}), build("old", onnx={})
    assert compare_bundles(new, old, {"onnx-fp32": passed({**BUILT, **change})}).passed


def test_builds_in_two_places_are_not_compared(build):
    then = passed({**BUILT, "device": "cuda:0", "precision": "fp16", "fused_attention": {"fused": 9, "of": 9}})
    comparison = compare_bundles(
        build("new", onnx={}), build("old", onnx={"verdict": then}), {"onnx-fp32": passed()}
    )
    assert comparison.passed
    assert "onnxruntime on cpu tells it now, and onnxruntime on cuda:0 told it then" in texts(
        comparison, "built"
    )


def test_an_engine_that_runs_nowhere_here_is_compared_by_what_its_exporter_counted(build):
    open_ = Verdict(passed=None, reason="there is no NVIDIA GPU")

    def engine(decomposable, dtype):
        facts = {"attention": {"layers": 2, "decomposable": decomposable}, "dtypes": {"linear": {dtype: 9}}}
        return {"facts": facts, "verdict": open_}

    new, old = build("new", tensorrt=engine(1, "fp16")), build("old", tensorrt=engine(0, "fp16"))
    comparison = compare_bundles(new, old, {"tensorrt-fp32": open_})
    assert failures(comparison) == [("fused-attention", "tensorrt-fp32")]
    other = build("other", tensorrt=engine(0, "fp32"))
    assert {name for name, _ in failures(compare_bundles(other, old, {}))} == {"precision"}
    assert compare_bundles(old, old, {}).passed


def test_a_ratio_above_its_limit_fails_and_ratios_are_told(build):
    new = build("new", onnx={"verdict": passed(worst_ratio=1.5)})
    old = build("old", onnx={})
    bad = passed(passed=False, worst_ratio=11.5, reason="logits: 11.5 times eager's own error")
    comparison = compare_bundles(new, old, {"onnx-fp32": bad})
    assert failures(comparison) == [("ratio", "onnx-fp32")]
    told = texts(comparison, "ratio")
    assert "logits: 11.5 times eager's own error" in told
    assert "1.25 in the accepted manifest, 1.5 in this one, 11.5 of this one, here and now" in told
    undecided = compare_bundles(new, old, {"onnx-fp32": Verdict(passed=None, reason="no GPU")})
    assert undecided.passed
    assert "parity was shown then, and is open now: no GPU" in texts(undecided, "ratio")


def test_what_changed_and_harms_no_one_is_told(build):
    new = build(
        "new",
        onnx={
            "content": b"other content",
            "tools": {"torch": "3", "onnx": "1"},
            "facts": {"operators": {"MatMul": 8, "Gelu": 2}},
        },
    )
    old = build("old", onnx={"facts": {"operators": {"MatMul": 9, "Erf": 2}}})
    verdict = passed()
    verdict.details["version"] = "1.33.0"
    comparison = compare_bundles(new, old, {"onnx-fp32": verdict})
    assert comparison.passed
    assert "13 in all, and 7 then (+85.7%)" in texts(comparison, "bytes")
    assert "onnx 1 (was none), torch 3 (was 2)" in texts(comparison, "tools")
    assert "onnxruntime is 1.33.0 where it runs, and was 1.32.0" in texts(comparison, "tools")
    assert "Erf 0 (was 2), Gelu 2 (was 0), MatMul 8 (was 9)" in texts(comparison, "operators")


def sample(index, artefact, near_tie=False):
    return {
        "index": index,
        "name": f"sample-{index}",
        "near_tie": near_tie,
        "top1": {"eager": [0, 0.5], "artefact": [artefact, 0.5]},
    }


class FakeCheck:
    """Gives the accepted artefact a verdict of its own, and counts how often it was asked."""

    def __init__(self, *samples):
        self.evidence = {"samples": samples}
        self.asked = []

    def judge(self, artefact, *, runtime, device, progress):
        self.asked.append((artefact.name, runtime.name, str(device)))
        return passed(evidence=self.evidence)


def test_decisions_that_changed_fail_but_for_near_ties(build):
    new, old = build("new", onnx={"content": b"other"}), build("old", onnx={})
    check = FakeCheck(sample(0, 3), sample(1, 3), sample(2, 4))
    now = passed(evidence={"samples": [sample(0, 3), sample(1, 4), sample(2, 3, near_tie=True), sample(3, 1)]})
    comparison = compare_bundles(new, old, {"onnx-fp32": now}, check)
    assert check.asked == [("onnx-fp32", "onnxruntime", "cpu")]
    assert failures(comparison) == [("decisions", "onnx-fp32")]
    assert "on 1 of 4 samples, near-ties left out: 'sample-1' (3 became 4)" in texts(comparison, "decisions")


def test_the_same_bytes_are_not_judged_twice(build):
    check = FakeCheck()
    new, old = build("new", onnx={}), build("old", onnx={})
    assert compare_bundles(new, old, {"onnx-fp32": passed()}, check).passed
    assert compare_bundles(new, old, {"onnx-fp32": Verdict(passed=None)}, check).passed
    assert check.asked == []


def export(bundle, model, made_from, check):
    exporter = registry.exporter("torchscript")
    options, spec = exporter.Options(), CONFIG.io_spec(batch=BatchRange(1, 1, 3))
    with edit_bundle(bundle, model) as editor:
        exported = exporter.export(made_from, spec, options, editor.stage("torchscript-fp32"), Silent())
        candidate = editor.candidate("torchscript-fp32", "torchscript", "fp32", exported)
        verdict = check.judge(candidate)
        editor.accept(candidate, exported, options, verdict)
    return Bundle.open(bundle), verdict


def test_real_builds(model, tmp_path):
    """The same model twice passes; one whose classes changed places in the graph alone does not."""
    weight = model.weights["head.weight"]
    turned = replace(weight, reader=lambda: torch.roll(weight.read(), 1, 0))
    weights = Weights(turned if name == weight.name else tensor for name, tensor in model.weights.items())
    check = ParityCheck(model, threads=1)
    old, _ = export(tmp_path / "old", model, model, check)
    again, verdict = export(tmp_path / "again", model, model, check)
    comparison = compare_bundles(again, old, {"torchscript-fp32": verdict}, check)
    assert comparison.passed
    assert texts(comparison, "bytes") == "its bytes are the same"
    bad, verdict = export(tmp_path / "bad", model, replace(model, weights=weights), check)
    comparison = compare_bundles(bad, old, {"torchscript-fp32": verdict}, check)
    assert failures(comparison) == [("ratio", "torchscript-fp32"), ("decisions", "torchscript-fp32")]
    assert "of the accepted artefact, here and now" in texts(comparison, "ratio")
