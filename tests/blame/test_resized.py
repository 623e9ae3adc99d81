"""An artefact that resizes pictures wrongly: the file's fault, or the backend's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.blame.conftest import BATCH, write_onnx
from vit_deploy import registry
from vit_deploy.blame.culprit import find_culprit
from vit_deploy.facts import Device
from vit_deploy.model.contract import contracted
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.parity import ParityCheck
from vit_deploy.weights.random import random_model

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model

pytest.importorskip("onnxruntime", reason="ONNX Runtime is needed: pip install 'vit-deploy[cpu]'")

CPU = Device()


@pytest.fixture(scope="module")
def model() -> Model:
    from vit_deploy.model.config import ViTConfig

    config = ViTConfig(
        image_size=(32, 32), patch_size=8, embed_dim=48, depth=2, num_heads=4, mlp_dim=64, num_classes=9
    )
    made = random_model(config, "resizing", seed=5)
    return replace(made, preprocessing=replace(Preprocessing.default(config), interpolation="bicubic"))


def picture_artefact(model: Model, folder: Path) -> Artefact:
    spec = contracted(model.config.io_spec((), BATCH), "image", model.config, model.preprocessing)
    return write_onnx(model, folder, spec=spec)


def blamed(model: Model, artefact: Artefact) -> Any:
    check = ParityCheck(model, threads=1)
    runtime = registry.runtime("onnxruntime")
    verdict = check.judge(artefact, runtime=runtime)
    assert verdict.passed is False
    assert verdict.reason.startswith("resizing: ")
    return find_culprit(check, artefact, verdict, runtime, CPU)


def test_another_filter_in_the_file_is_the_file_s_fault(model: Model, tmp_path: Path) -> None:
    recipe = model.known_preprocessing
    other = replace(model, preprocessing=replace(recipe, interpolation="bilinear"))
    found = blamed(model, picture_artefact(other, tmp_path))
    assert (found.stage, found.where) == ("export", "embed")
    assert found.sentence.startswith("the artefact's own resizing of pictures, introduced at the export stage")
    assert [reading.holds for reading in found.stages] == [True]


def test_where_a_fresh_export_resizes_wrongly_too_it_is_not_the_file(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = model.known_preprocessing
    other = replace(model, preprocessing=replace(recipe, interpolation="bilinear"))
    artefact = picture_artefact(other, tmp_path)
    from vit_deploy.exporters.onnx import OnnxExporter

    export = OnnxExporter.export
    monkeypatch.setattr(OnnxExporter, "export", lambda self, _, *rest: export(self, other, *rest))
    found = blamed(model, artefact)
    assert found.stage == "runtime"
    assert "does not resize rightly in onnxruntime either" in found.sentence
    assert [reading.holds for reading in found.stages] == [False]
