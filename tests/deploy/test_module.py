"""A user's own module all the way: exported, proven, run again from its bundle with its code named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import user_modules
from vit_deploy import registry
from vit_deploy.bundle import Bundle
from vit_deploy.deploy.export import export_model
from vit_deploy.deploy.job import Outcome
from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.facts import Device
from vit_deploy.parity import ParityCheck
from vit_deploy.protocols import SessionOptions
from vit_deploy.spec import BatchRange
from vit_deploy.weights import load_model
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")


def export(name: str, path: Path, formats: str = "onnx", shape: str = "", **given: Any) -> list[Outcome]:
    model = load_model(f"py:tests.user_modules:{name}", input_shape=shape)
    return export_model(model, path, formats.split(","), **given)


@pytest.mark.parametrize(
    ("name", "formats", "shape"),
    [
        ("cnn_transformer", "onnx,torchscript", ""),
        ("resnet", "onnx,torchscript", "3x32x32"),
        ("swin", "onnx", ""),
        ("convnext", "onnx", ""),
        ("TwoInputs", "onnx,torchscript", ""),
        ("InPlace", "onnx", ""),
        ("Turned", "onnx", ""),
        ("Half", "onnx", ""),
        ("OneAtATime", "onnx", ""),
    ],
)
def test_modules_of_all_kinds_are_exported_and_equal_to_themselves(
    name: str, formats: str, shape: str, tmp_path: Path
):
    outcomes = export(name, tmp_path / "bundle", formats, shape)
    assert [outcome.format for outcome in outcomes] == formats.split(",")
    for outcome in outcomes:
        assert outcome.error is None
        assert outcome.verdict is not None
        assert outcome.verdict.passed
        assert outcome.verdict.worst_ratio is not None
        assert 0 < outcome.verdict.worst_ratio < 10
    facts = outcomes[0].record.facts  # type: ignore[union-attr]
    assert facts["nodes"] == sum(facts["operators"].values())


@pytest.mark.parametrize(
    ("name", "found", "next_command"),
    [
        ("Baked", "has the batch baked in", "--minShapes 1x6 --optShapes 1x6 --maxShapes 1x6"),
        ("Branching", "could not capture the module: GuardOnDataDependentSymNode", "torch.where"),
        ("Floating32", "does not run in float64", "--no-verify"),
    ],
)
def test_what_cannot_be_captured_or_judged_says_why(
    name: str, found: str, next_command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (outcome,) = export(name, tmp_path / "bundle")
    assert outcome.error is not None
    assert found in outcome.error.found
    assert next_command in outcome.error.next_command
    assert not (tmp_path / "bundle").exists()
    assert capfd.readouterr() == ("", "")


def test_a_baked_batch_is_exported_fixed(tmp_path: Path):
    (outcome,) = export("Baked", tmp_path / "bundle", batch=BatchRange(3, 3, 3))
    assert outcome.verdict is not None
    assert outcome.verdict.passed
    assert outcome.verdict.details["batch_sizes"] == [3]


def test_a_random_module_is_exported_only_unverified(tmp_path: Path):
    with pytest.raises(ImportFailed, match="each time"):
        export("Dropping", tmp_path / "bundle")
    (outcome,) = export("Dropping", tmp_path / "bundle", verify=False)
    assert outcome.record is not None


def test_only_the_outputs_asked_for_are_made(tmp_path: Path):
    (outcome,) = export("InPlace", tmp_path / "bundle", outputs=("output_0",))
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.artefact("onnx-fp32").spec.output_names == ("output_0",)
    assert outcome.record is not None
    assert "Relu" not in outcome.record.facts["operators"], "what was not asked for is no part of it"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("module") / "bundle"
    export("Linear", path)
    return Bundle.open(path)


CODE = "tests.user_modules:Linear"


def test_eager_runs_the_code_that_was_named_and_no_other(bundle: Bundle):
    eager = registry.runtime("eager")
    spec = bundle.config.io_spec()
    with pytest.raises(UsageFailed, match="imports nothing") as refused:
        eager.open(bundle.reference(spec), Device("cpu"), SessionOptions())
    assert refused.value.next_command == f"the same command with -m py:{CODE}, or with --trust-code"
    values = np.linspace(-2, 2, 12, dtype=np.float32).reshape(2, 6)
    with eager.open(bundle.reference(spec, code=CODE), Device("cpu"), SessionOptions()) as session:
        found = session.run({"x": values})["output"]
    weights = bundle.model().weights
    expected = values @ weights["layer.weight"].read().numpy().T + weights["layer.bias"].read().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(UsageFailed, match=f"was made from py:{CODE}, not from"):
        bundle.model("tests.user_modules:Half")


def test_an_artefact_of_other_weights_fails(bundle: Bundle):
    model = bundle.model(CODE)
    state = {name: tensor.read().clone() for name, tensor in model.weights.items()}
    state["layer.bias"][2] += 1e-3
    other = replace(
        model,
        weights=Weights(
            WeightTensor(name, tuple(value.shape), "float32", lambda value=value: value)
            for name, value in state.items()
        ),
    )
    verdict = ParityCheck(other).judge(bundle.artefact("onnx-fp32"))
    assert verdict.passed is False
    assert "times eager's own error" in verdict.reason


def test_opening_a_bundle_imports_none_of_the_code_it_names(bundle: Bundle):
    script = (
        "import sys; from vit_deploy.bundle import Bundle; "
        "from vit_deploy.deploy.choose import choose; from vit_deploy.protocols import SessionOptions; "
        "bundle = Bundle.open(sys.argv[1]); bundle.model(); choice = choose(bundle); "
        "choice.runtime.open(bundle.artefact(choice.name), choice.device, SessionOptions()); "
        "sys.exit('tests.user_modules' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(bundle.path)], check=False).returncode == 0


def test_code_that_gives_other_weights_now_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    class Retrained(user_modules.Linear):
        def __init__(self) -> None:
            super().__init__()
            self.layer.weight.data[0, 0] += 1

    monkeypatch.setattr(user_modules, "Linear", Retrained)
    with pytest.raises(ImportFailed, match="are not the bundle's"):
        bundle.model(CODE)

    class Renamed(user_modules.Lazy):
        def __init__(self) -> None:
            super().__init__()
            self.other = self.layer

    monkeypatch.setattr(user_modules, "Linear", Renamed)
    with pytest.raises(ImportFailed, match=r"2 missing|2 unexpected"):
        bundle.model(CODE)


def test_weights_from_a_file_are_the_bundles_own_from_then_on(tmp_path: Path):
    state = {"layer.weight": torch.full((4, 6), 0.25), "layer.bias": torch.arange(4.0)}
    save_file(state, tmp_path / "a.safetensors")
    model = load_model(f"py:{CODE}", weights=tmp_path / "a.safetensors")
    export_model(model, tmp_path / "bundle", ["onnx"])
    opened = Bundle.open(tmp_path / "bundle")
    assert ParityCheck(opened.model(CODE)).judge(opened.artefact("onnx-fp32")).passed
    with pytest.raises(ImportFailed, match="whose code it does not hold") as refused:
        load_model(str(tmp_path / "bundle"))
    weights = tmp_path / "bundle" / opened.manifest.model.weights.name
    assert refused.value.next_command == (
        f"vit-deploy export -m py:{CODE} --weights {str(weights)!r} -o {tmp_path / 'bundle'}"
    )
    again = load_model(f"py:{CODE}", weights=weights)
    (outcome,) = export_model(again, tmp_path / "bundle", ["torchscript"])
    assert outcome.error is None
