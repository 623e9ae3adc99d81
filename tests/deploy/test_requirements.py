"""``--require`` on export: what was not built as asked does not enter the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vit_deploy.bundle import Bundle
from vit_deploy.deploy.export import export_model
from vit_deploy.errors import ParityFailed
from vit_deploy.parity.requirements import parse_requirements

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


def test_what_was_built_as_asked_is_kept_with_what_was_read_back(small_model: Model, tmp_path: Path) -> None:
    asked = parse_requirements("fused-attention=all,dtype=fp32,dtype.layernorm=fp32,provider=cpu,tf32=off")
    (outcome,) = export_model(small_model, tmp_path / "b", ["onnx"], requirements=asked)
    assert outcome.error is None
    built = Bundle.open(tmp_path / "b").records["onnx-fp32"].parity.details["built"]
    assert built["fused_attention"] == {"fused": 3, "of": 3}
    assert built["dtype"]["linear"] == {"fp32": 14}
    assert built["backend"] == "onnxruntime"


def test_what_was_built_otherwise_is_kept_out(small_model: Model, tmp_path: Path) -> None:
    asked = parse_requirements("fused-attention=all,dtype=fp32")
    script, onnx = export_model(
        small_model, tmp_path / "b", ["torchscript", "onnx"], requirements=asked, options={"opset": 18}
    )
    assert script.error is None
    assert isinstance(onnx.error, ParityFailed)
    assert onnx.record is None
    assert "fused-attention=all was asked for: 0 of 3 attentions" in onnx.error.found
    assert "dtype=fp32" not in onnx.error.found
    assert list(Bundle.open(tmp_path / "b").records) == ["torchscript-fp32"]


def test_without_a_run_the_exporters_word_counts_and_what_it_does_not_say_is_unmet(
    small_model: Model, tmp_path: Path
) -> None:
    known = parse_requirements("dtype=fp32,dtype.linear=fp32")
    (outcome,) = export_model(small_model, tmp_path / "a", ["onnx"], verify=False, requirements=known)
    assert outcome.error is None
    unknown = parse_requirements("provider=cpu")
    (outcome,) = export_model(small_model, tmp_path / "b", ["onnx"], verify=False, requirements=unknown)
    assert isinstance(outcome.error, ParityFailed)
    assert "its exporter does not tell where its nodes were put" in outcome.error.found
    assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("rtx")
def test_it_is_asked_of_the_formats_named_alone(small_model: Model, tmp_path: Path) -> None:
    asked = parse_requirements("fused-attention=none")
    onnx, engine = export_model(
        small_model, tmp_path / "b", ["tensorrt"], verify=False, requirements=asked, precision="fp32"
    )
    assert onnx.error is None  # brought along: nothing is known of how it will be run
    assert engine.error is None  # fp32 has no fused attention
