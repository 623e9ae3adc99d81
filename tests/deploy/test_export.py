"""A failing artefact never enters the bundle; what fails is told and nothing else is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vit_deploy.bundle import Bundle
from vit_deploy.deploy.export import export_model
from vit_deploy.errors import ExportFailed, ParityFailed, UsageFailed
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


def test_each_format_is_made_proven_and_kept(small_model: Model, tmp_path: Path) -> None:
    outcomes = export_model(small_model, tmp_path / "b", ["ts", "onnx"])
    assert [(entry.name, entry.verdict.passed) for entry in outcomes] == [
        ("torchscript-fp32", True),
        ("onnx-fp32", True),
    ]
    bundle = Bundle.open(tmp_path / "b")
    assert set(bundle.records) == {"onnx-fp32", "torchscript-fp32"}
    for record in bundle.records.values():
        assert record.parity.worst_ratio < 10
        assert record.parity.samples >= 9


def test_what_a_format_is_built_from_comes_along(small_model: Model, tmp_path: Path) -> None:
    outcomes = export_model(small_model, tmp_path / "b", ["tensorrt"], verify=False)
    assert [entry.name for entry in outcomes] == ["onnx-fp32", "tensorrt-fp32"]
    again = export_model(small_model, tmp_path / "b", ["tensorrt"], verify=False)
    assert [entry.name for entry in again] == ["tensorrt-fp32"]


def test_a_wrong_artefact_is_kept_out(
    small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph computes GELU's tanh form: small enough for the eye, and not the model."""
    import vit_deploy.graph.pipeline as module

    def spoil(graph: object) -> int:
        import onnx_ir as ir

        for node in graph.graph:
            if node.op_type == "Gelu":
                node.attributes.add(ir.AttrString("approximate", "tanh"))
        return 0

    monkeypatch.setattr(module, "attend_in_three_dimensions", spoil)
    outcomes = export_model(small_model, tmp_path / "b", ["onnx", "torchscript"])
    failed, passed = outcomes
    assert isinstance(failed.error, ParityFailed)
    assert "block 0's MLP, introduced at the pass stage: our graph pass attend_in" in failed.error.found
    assert failed.record is None
    assert failed.verdict.worst_ratio > 10
    assert passed.verdict.passed
    assert list(Bundle.open(tmp_path / "b").records) == ["torchscript-fp32"]


def test_nothing_is_built_from_a_wrong_artefact(
    small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ExportFailed("no")

    monkeypatch.setattr("vit_deploy.graph.lint.lint", fail)
    outcomes = export_model(small_model, tmp_path / "b", ["tensorrt"])
    assert [str(entry.error).splitlines()[0] for entry in outcomes] == [
        "no",
        "tensorrt is built from onnx, which is not in the bundle",
    ]
    assert not (tmp_path / "b").exists()


def test_an_option_nobody_takes_is_refused(small_model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageFailed, match="none of torchscript takes 'opset'"):
        export_model(small_model, tmp_path / "b", ["torchscript"], options={"opset": 20})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["torchscript"])
def test_a_precision_that_a_format_has_not_is_refused(name: str, small_model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageFailed, match=f"{name} artefacts cannot be made in fp16"):
        export_model(small_model, tmp_path / "b", [name], precision="fp16")


def test_a_fixed_batch_is_verified_at_that_batch(small_model: Model, tmp_path: Path) -> None:
    outcomes = export_model(small_model, tmp_path / "b", ["onnx"], batch=BatchRange(3, 3, 3))
    assert outcomes[0].verdict.passed
    assert Bundle.open(tmp_path / "b").records["onnx-fp32"].inputs[0].shape[0] == 3
