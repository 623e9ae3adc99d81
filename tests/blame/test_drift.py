"""The drift picture: an honest artefact stays near eager at every tap; a fault shows from where it came in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.blame.conftest import BATCH, damaged_onnx, dead_head, judged, write_onnx, write_torchscript
from vit_deploy import registry
from vit_deploy.blame.drift import measure_drift
from vit_deploy.facts import Device
from vit_deploy.model.contract import contracted

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.parity import ParityCheck
    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model


def test_an_honest_onnx_artefact_is_as_exact_as_eager_at_every_tap(
    honest_onnx: Artefact, deep_check: ParityCheck
) -> None:
    runtime, verdict = judged(deep_check, honest_onnx)
    drift = measure_drift(deep_check, honest_onnx, runtime, Device(), verdict=verdict)
    assert [reading.tap for reading in drift.readings[:3]] == ["embed", "blocks.0.attn", "blocks.0.mlp"]
    assert [reading.tap for reading in drift.readings[-2:]] == ["tokens", "logits"]
    assert len(drift.readings) == 13
    assert all(reading.holds and reading.ratio < 4 for reading in drift.readings)
    assert all(0 < reading.error < 1e-5 and reading.eager_error > 0 for reading in drift.readings)
    assert "move by" in drift.disturbed  # the fusion of the last addition with the final norm is gone
    assert not drift.missing


def test_an_artefact_that_takes_pictures_has_the_same_taps(
    deep_model: Model, deep_check: ParityCheck, tmp_path: Path
) -> None:
    plain = deep_model.config.io_spec(("logits",), BATCH)
    spec = contracted(plain, "uint8", deep_model.config, deep_model.preprocessing)
    artefact = write_onnx(deep_model, tmp_path, spec=spec)
    drift = measure_drift(deep_check, artefact, registry.runtimes_for("onnx")[0], Device())
    assert len(drift.readings) == 13
    assert all(reading.holds for reading in drift.readings)


def test_honest_torchscript_is_eager_to_the_bit(
    deep_model: Model, deep_check: ParityCheck, tmp_path: Path
) -> None:
    artefact = write_torchscript(deep_model, tmp_path, outputs=("tokens", "logits"))
    drift = measure_drift(deep_check, artefact, registry.runtimes_for("torchscript")[0], Device())
    assert drift.disturbed == ""
    assert len(drift.readings) == 13
    assert all(reading.ratio <= 1.0 for reading in drift.readings)


def test_a_fault_shows_from_where_it_came_in(
    honest_onnx: Artefact, deep_model: Model, deep_check: ParityCheck, tmp_path: Path
) -> None:
    artefact = damaged_onnx(honest_onnx, deep_model, tmp_path, dead_head(3))
    drift = measure_drift(deep_check, artefact, registry.runtimes_for("onnx")[0], Device())
    holds = {reading.tap: reading.holds for reading in drift.readings}
    assert [tap for tap, hold in holds.items() if hold][-1] == "blocks.2.mlp"
    assert not any(hold for tap, hold in holds.items() if tap >= "blocks.3.attn" and tap.startswith("blocks"))
    assert drift.to_dict()["readings"][0]["tap"] == "embed"


def test_what_cannot_be_looked_into_says_why(honest_onnx: Artefact, deep_check: ParityCheck) -> None:
    engine = replace(honest_onnx, format="tensorrt")
    drift = measure_drift(deep_check, engine, registry.runtimes_for("onnx")[0], Device())
    assert drift.readings == ()
    assert "compiled as one piece" in drift.missing
