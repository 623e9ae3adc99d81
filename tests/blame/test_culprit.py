"""The stage and the place of an error in one sentence, and what is said where there is none."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.blame.conftest import damaged_onnx, dead_head, judged
from vit_deploy import registry
from vit_deploy.blame.culprit import find_culprit
from vit_deploy.errors import RunFailed
from vit_deploy.facts import Device, Verdict
from vit_deploy.protocols import SessionOptions

if TYPE_CHECKING:
    from vit_deploy.parity import ParityCheck
    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model

CPU = Device()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


def test_a_dead_head_is_the_block_s_attention_at_the_export_stage(
    deep_model: Model, deep_check: ParityCheck, honest_onnx: Artefact, tmp_path: Path
) -> None:
    artefact = damaged_onnx(honest_onnx, deep_model, tmp_path / "dead", dead_head(3))
    runtime, verdict = judged(deep_check, artefact)
    found = find_culprit(deep_check, artefact, verdict, runtime, CPU)
    assert (found.stage, found.where) == ("export", "blocks.3.attn")
    assert found.sentence.startswith(
        "block 3's attention, introduced at the export stage: "
        "the file is not what this version exports from these weights"
    )
    assert any("blocks.3.attn.proj.weight differs in columns 16–31" in note for note in found.notes)
    assert found.bisection
    assert found.runs >= 2
    json.dumps(found.to_dict(), allow_nan=False)


def test_of_an_honest_artefact_nothing_is_found(deep_check: ParityCheck, honest_onnx: Artefact) -> None:
    runtime, verdict = judged(deep_check, honest_onnx)
    assert verdict.passed
    found = find_culprit(deep_check, honest_onnx, verdict, runtime, CPU)
    assert found.stage is None
    assert found.where == ""
    assert found.sentence == "nothing was found: every stage that could be tried holds on these inputs"
    assert all(reading.holds for reading in found.stages)
    assert found.runs == 0


def test_a_failure_that_does_not_come_again_is_said_to_be_one(
    deep_check: ParityCheck, honest_onnx: Artefact
) -> None:
    failed = Verdict(passed=False, backend="onnxruntime", worst_ratio=1e6, p95_ratio=1e6)
    found = find_culprit(deep_check, honest_onnx, failed, registry.runtime("onnxruntime"), CPU)
    assert found.stage == "runtime"
    assert "onnxruntime does not give the same each time" in found.sentence


def test_a_declaration_that_is_wrong_needs_no_run(deep_check: ParityCheck, honest_onnx: Artefact) -> None:
    (logits,) = honest_onnx.spec.outputs
    wrong = replace(logits, name="probabilities")
    artefact = replace(honest_onnx, spec=replace(honest_onnx.spec, outputs=(wrong,)))
    runtime, verdict = judged(deep_check, artefact)
    found = find_culprit(deep_check, artefact, verdict, runtime, CPU)
    assert found.stage == "export"
    assert "'probabilities'" in found.sentence
    assert not found.stages


def test_a_backend_that_dies_is_not_searched_again(deep_check: ParityCheck, honest_onnx: Artefact) -> None:
    opened: list[bool] = []

    def dying(runtime: Any, artefact: Artefact, device: Device, options: SessionOptions) -> Any:
        opened.append(options.optimise)
        raise RunFailed("the worker of onnxruntime was killed after 60 s")

    failed = Verdict(passed=False, backend="onnxruntime", reason="it hangs")
    runtime = registry.runtime("onnxruntime")
    found = find_culprit(deep_check, honest_onnx, failed, runtime, CPU, open_session=dying)
    assert found.stage == "runtime"
    assert opened == [False]
    assert found.where == ""
    assert found.sentence.startswith("introduced at the runtime stage: onnxruntime does not run")
    assert "killed" in found.stages[-1].note
    json.dumps(found.to_dict(), allow_nan=False)


def test_where_the_search_cannot_look_the_weights_still_tell(
    deep_model: Model,
    deep_check: ParityCheck,
    honest_onnx: Artefact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vit_deploy.blame import search

    def blind(*_: Any, **__: Any) -> Any:
        raise RunFailed("the graph shows no taps")

    monkeypatch.setattr(search, "find", blind)
    artefact = damaged_onnx(honest_onnx, deep_model, tmp_path / "dead", dead_head(2))
    runtime, verdict = judged(deep_check, artefact)
    found = find_culprit(deep_check, artefact, verdict, runtime, CPU)
    assert found.where == "blocks.2.attn"
    assert "the block was not looked for: the graph shows no taps" in found.notes


def test_nan_is_no_number_of_a_report(
    deep_model: Model, deep_check: ParityCheck, honest_onnx: Artefact, tmp_path: Path
) -> None:
    def break_it(vit: Any) -> None:
        vit.blocks[1].attn.qkv.weight.data[3, 5] = float("nan")

    artefact = damaged_onnx(honest_onnx, deep_model, tmp_path / "nan", break_it)
    runtime, verdict = judged(deep_check, artefact)
    found = find_culprit(deep_check, artefact, verdict, runtime, CPU)
    assert (found.stage, found.where) == ("export", "blocks.1.attn")
    assert found.stages[-1].worst_ratio is None
    assert "NaN" in found.stages[-1].note


def test_weights_are_told_apart_by_rows_columns_and_entries() -> None:
    from vit_deploy.blame.tensors import differences, in_short, listed, tap_of
    from vit_deploy.model.config import ViTConfig

    config = ViTConfig(image_size=(32, 32), patch_size=8, embed_dim=64, depth=2, num_heads=4)
    right = {
        "blocks.0.attn.qkv.weight.transposed": np.ones((64, 192), np.float32),
        "blocks.1.norm2.bias": np.ones(64, np.float32),
        "norm.weight": np.ones(64, np.float32),
        "head.bias": np.ones(9, np.float32),
    }
    wrong = {name: values.copy() for name, values in right.items() if name != "head.bias"}
    wrong["blocks.0.attn.qkv.weight.transposed"][:, 5:8] = 0
    wrong["blocks.1.norm2.bias"][[3, 9]] = np.nan

    def readers(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: lambda values=values: values for name, values in tensors.items()}

    found = differences(readers(wrong), readers(right), config, "fp32")
    told = {entry.name: entry.how for entry in found}
    assert told["head.bias"] == "is missing"
    assert told["blocks.0.attn.qkv.weight"].startswith("differs in rows 5–7 (by 0.12")
    assert told["blocks.1.norm2.bias"] == "differs in 2 entries from 3 to 9 (it is not finite)"
    assert "norm.weight" not in told
    assert in_short(found).endswith("as do 2 more tensors")
    assert "head.bias is missing" in listed(found)
    assert not differences(readers({"other": right["norm.weight"]}), readers(right), config, "fp32")
    assert tap_of("blocks.1.norm2.bias") == "blocks.1.mlp"
    assert tap_of("pos_embed") == "embed"
    assert tap_of("something.else") == ""
