"""Files that others exported, taken in and judged by the same rules as ours."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vit_deploy.errors import HostileInput, ImportFailed, UsageFailed
from vit_deploy.parity import ParityCheck
from vit_deploy.parity.candidates import Asked, adopt
from vit_deploy.parity.candidates.matching import Found, match_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model

pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")

NOTHING = Asked({})


def export(module: torch.nn.Module, path: Path, **settings: Any) -> Path:
    """As a person would: PyTorch's exporter, and names of one's own."""
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, 32, 48),),
            path,
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: batch},),
            **settings,
        )
    return path


@pytest.fixture(scope="module")
def plain(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported with bare PyTorch: input ``x``, outputs ``linear`` and such."""
    folder = tmp_path_factory.mktemp("plain")
    return export(model.eager(outputs=("logits", "tokens")), folder / "their model.onnx", input_names=["x"])


def test_a_file_with_names_of_its_own_passes_and_says_what_it_was_taken_for(
    plain: Path, model: Model, check: ParityCheck, tmp_path: Path
) -> None:
    before = plain.read_bytes()
    candidate = adopt(plain, model, NOTHING, tmp_path)
    assert candidate.artefact.spec.output_names == ("logits", "tokens")
    assert candidate.artefact.precision == "fp32"
    assert "its 'x' is taken for pixel_values" in candidate.notes
    verdict = check.judge(candidate.artefact)
    assert verdict.passed is True, verdict.reason
    assert verdict.samples == 16
    assert plain.read_bytes() == before


def test_a_file_of_other_weights_fails(model: Model, check: ParityCheck, tmp_path: Path) -> None:
    damaged = model.eager()
    with torch.no_grad():
        damaged.blocks[1].attn.proj.weight[:, :12] = 0  # type: ignore[union-attr, index]
    file = export(damaged, tmp_path / "damaged.onnx")
    verdict = check.judge(adopt(file, model, NOTHING, tmp_path).artefact)
    assert verdict.passed is False
    assert "times eager's own error" in verdict.reason


def test_names_that_are_ours_leave_the_file_as_it_is(model: Model, tmp_path: Path) -> None:
    file = export(model.eager(), tmp_path / "m.onnx", input_names=["pixel_values"], output_names=["logits"])
    folder = tmp_path / "folder"
    folder.mkdir()
    candidate = adopt(file, model, NOTHING, folder)
    assert candidate.artefact.path == file
    assert candidate.notes == ()
    assert not list(folder.iterdir())


def test_outputs_that_the_model_has_not_are_left_out_and_told(
    model: Model, check: ParityCheck, tmp_path: Path
) -> None:
    class More(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = model.eager()

        def forward(self, x: torch.Tensor) -> Any:
            logits = self.vit(x)
            return logits.softmax(-1)[:, :3], logits

    file = export(More(), tmp_path / "m.onnx", output_names=["three", "scores"])
    candidate = adopt(file, model, NOTHING, tmp_path)
    assert candidate.artefact.spec.output_names == ("logits",)
    assert "not judged: its output three (float32 1x3), which the model has not" in candidate.notes
    assert check.judge(candidate.artefact).passed is True


def test_the_user_may_name_an_output(model: Model, tmp_path: Path) -> None:
    file = export(model.eager(outputs=("embedding",)), tmp_path / "m.onnx", output_names=["pooled"])
    assert adopt(file, model, NOTHING, tmp_path).artefact.spec.output_names == ("embedding",)
    with pytest.raises(UsageFailed, match="unknown output of the candidate 'poled'"):
        adopt(file, model, Asked({"poled": "embedding"}), tmp_path)
    with pytest.raises(UsageFailed, match="unknown output of this model 'embeding'"):
        adopt(file, model, Asked({"pooled": "embeding"}), tmp_path)


def test_a_choice_is_the_users(model: Model) -> None:
    two = [Found("a", "float32", (1, 7)), Found("b", "float32", (1, 7))]
    with pytest.raises(UsageFailed, match=r"the candidate.s output a .* may be logits") as told:
        match_outputs(two, model.config, {})
    assert told.value.next_command == "--candidate-output a=logits"
    matched, others = match_outputs(two, model.config, {"b": "logits"})
    assert matched == {"b": "logits"}
    assert [other.name for other in others] == ["a"]


@pytest.mark.parametrize("wrong", [(1, 8), (7,), (1, 7, 1), (2, 7)])
def test_no_output_of_the_models_shapes_is_bad_input(wrong: tuple[int, ...], model: Model) -> None:
    with pytest.raises(HostileInput, match=r"the candidate gives out .float32") as told:
        match_outputs([Found("out", "float32", wrong)], model.config, {})
    assert "logits (1x7)" in told.value.expected


def test_a_fixed_batch_is_judged_at_that_size(model: Model, check: ParityCheck, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eager(), (torch.zeros(3, 3, 32, 48),), tmp_path / "m.onnx", verbose=False)
    candidate = adopt(tmp_path / "m.onnx", model, NOTHING, tmp_path)
    assert candidate.artefact.spec.batch.is_fixed
    verdict = check.judge(candidate.artefact)
    assert verdict.passed is True, verdict.reason
    assert verdict.details["batch_sizes"] == [3]


def test_pictures_of_another_size_are_refused(model: Model, tmp_path: Path) -> None:
    from dataclasses import replace

    from vit_deploy.weights.random import random_model

    other = random_model(replace(model.config, image_size=(32, 32)), "other", seed=1)  # type: ignore[type-var]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(other.eager(), (torch.zeros(1, 3, 32, 32),), tmp_path / "m.onnx", verbose=False)
    with pytest.raises(UsageFailed, match="of shape 1x3x32x32"):
        adopt(tmp_path / "m.onnx", model, NOTHING, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x0a\x12"])
def test_what_is_no_onnx_file_is_bad_input(content: bytes, model: Model, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises((HostileInput, UsageFailed), match="the candidate"):
        adopt(tmp_path / "m.onnx", model, NOTHING, tmp_path)


def test_a_truncated_file_is_bad_input(plain: Path, model: Model, tmp_path: Path) -> None:
    graph = plain.read_bytes()
    (tmp_path / "m.onnx").write_bytes(graph[: len(graph) // 2])
    with pytest.raises((HostileInput, UsageFailed), match="the candidate"):
        adopt(tmp_path / "m.onnx", model, NOTHING, tmp_path)


def test_no_file_and_no_format(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="there is no file"):
        adopt(tmp_path / "none.onnx", model, NOTHING, tmp_path)
    (tmp_path / "m.plan").write_bytes(b"x")
    with pytest.raises(UsageFailed, match="of no format that can be judged"):
        adopt(tmp_path / "m.plan", model, NOTHING, tmp_path)


def test_an_archive_is_run_only_if_its_maker_is_trusted(
    model: Model, check: ParityCheck, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model.eager(outputs=("logits", "embedding")), torch.zeros(2, 3, 32, 48))
        traced.save(str(tmp_path / "m.pt"))
    with pytest.raises(UsageFailed, match="opening one runs its code"):
        adopt(tmp_path / "m.pt", model, NOTHING, tmp_path)
    candidate = adopt(tmp_path / "m.pt", model, Asked({}, trust_code=True), tmp_path)
    assert candidate.artefact.spec.output_names == ("logits", "embedding")
    verdict = check.judge(candidate.artefact)
    assert verdict.passed is True, verdict.reason


def test_timms_own_export_is_judged(check: ParityCheck, tmp_path: Path) -> None:
    """The model as timm saves and exports it, with the input and output names of its script."""
    timm = pytest.importorskip("timm", reason="timm is needed: pip install 'vit-deploy[timm]'")
    from timm.utils.onnx import onnx_export

    from tests.specimens.timm import SIZES
    from tests.specimens.values import randomise
    from vit_deploy.weights import load_model

    theirs = randomise(timm.create_model("vit_tiny_patch16_224", **SIZES), seed=3).eval()
    timm.models.save_for_hf(theirs, tmp_path / "checkpoint", safe_serialization=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx_export(theirs, str(tmp_path / "timm.onnx"), check=False, input_size=(3, 32, 32), batch_size=2)
    ours = load_model(str(tmp_path / "checkpoint"))
    candidate = adopt(tmp_path / "timm.onnx", ours, NOTHING, tmp_path)
    verdict = ParityCheck(ours, threads=1).judge(candidate.artefact)
    assert verdict.passed is True, verdict.reason
