from __future__ import annotations

import pytest

from vit_deploy.bundle import Bundle, edit_bundle
from vit_deploy.errors import HostileInput
from vit_deploy.facts import Verdict
from vit_deploy.model.contract import contracted
from vit_deploy.protocols import ExportedFiles, NoOptions
from vit_deploy.spec import CONTRACTS, artefact_name


@pytest.fixture
def filled(bundle_path, small_model):
    """A bundle with an artefact of each contract."""
    model = small_model
    for contract in CONTRACTS:
        with edit_bundle(bundle_path, model) as editor:
            name = artefact_name("onnx", "fp32", contract)
            (editor.stage(name) / "model.onnx").write_bytes(contract.encode())
            spec = contracted(model.config.io_spec(), contract, model.config, model.preprocessing)
            exported = ExportedFiles(("model.onnx",), spec)
            candidate = editor.candidate(name, "onnx", "fp32", exported)
            editor.accept(candidate, exported, NoOptions(), Verdict(passed=True))
    return bundle_path


@pytest.mark.parametrize("contract", CONTRACTS)
def test_artefacts_of_every_contract_lie_side_by_side(filled, small_model, contract):
    bundle = Bundle.open(filled)
    assert len(bundle.records) == len(CONTRACTS)
    artefact = bundle.artefact(artefact_name("onnx", "fp32", contract))
    assert artefact.path.read_bytes() == contract.encode()
    model = small_model
    assert artefact.spec == contracted(model.config.io_spec(), contract, model.config, model.preprocessing)


def test_what_an_artefact_left_behind_is_cleared_by_its_name(filled, small_model):
    stray = filled / "artefacts" / "onnx-fp32-uint8-0123456789ab"
    other = filled / "artefacts" / "onnx-fp32-jpeg-0123456789ab"
    stray.mkdir()
    other.mkdir()
    with edit_bundle(filled, small_model):
        pass
    assert not stray.exists()
    assert other.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [('"contract": "image"', '"contract": "jpeg"'), ('"step": 1', '"step": 7'), ("480,", "4096,")],
)
def test_a_manifest_with_another_contract_or_range_is_refused(filled, old, new):
    manifest = filled / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(HostileInput):
        Bundle.open(filled)
