"""ONNX graphs for the tests of the TensorRT exporter, and engines built from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vit_deploy.exporters import onnx as onnx_exporter
from vit_deploy.exporters.tensorrt import EXPORTER, TensorRTOptions
from vit_deploy.protocols import Artefact, ExportedFiles, Progress, Silent
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vit_deploy.weights.imported import Model

RTX = TensorRTOptions(flavour="rtx")
BATCH = BatchRange(1, 2, 4)


@pytest.fixture(scope="session")
def onnx_artefact(wide_model: Model) -> Callable[..., Artefact]:
    """Export the model to ONNX, for a batch of 1 to 4 where nothing else is said."""

    def make(
        folder: Path,
        opset: int = 23,
        *,
        external: bool = False,
        batch: BatchRange = BATCH,
        outputs: tuple[str, ...] = ("logits",),
    ) -> Artefact:
        folder.mkdir(parents=True, exist_ok=True)
        config = wide_model.config
        spec = config.io_spec(outputs, batch)
        options = onnx_exporter.OnnxOptions(opset=opset, external_data=external)
        exported = onnx_exporter.EXPORTER.export(wide_model, spec, options, folder, Silent())
        return Artefact("onnx-fp32", "onnx", "fp32", folder / exported.files[0], spec, config, exported.facts)

    return make


@pytest.fixture(scope="session")
def source(onnx_artefact: Callable[..., Artefact], tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The ONNX artefact that most engines are built from."""
    return onnx_artefact(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def export(wide_model: Model) -> Callable[..., ExportedFiles]:
    """Build an engine from an ONNX artefact, by TensorRT-RTX where nothing else is said."""

    def run(
        source: Artefact | None,
        folder: Path,
        options: TensorRTOptions = RTX,
        progress: Progress | None = None,
        batch: BatchRange = BATCH,
    ) -> ExportedFiles:
        folder.mkdir(exist_ok=True)
        spec = wide_model.config.io_spec(source.spec.output_names if source else (), batch)
        return EXPORTER.export(wide_model, spec, options, folder, progress or Silent(), source)

    return run
