"""The ONNX exporter's own promises; what all exporters promise stands in tests/contract."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import pytest

from vit_deploy.errors import ExportFailed
from vit_deploy.exporters.onnx import EXPORTER, OnnxOptions
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


def export(model: Model, folder: Path, **options: object) -> onnx.ModelProto:
    exported = EXPORTER.export(model, model.config.io_spec(), OnnxOptions(**options), folder, Silent())
    return onnx.load(folder / exported.files[0])


def test_metadata_says_what_a_consumer_needs(small_model: Model, tmp_path: Path) -> None:
    labels = tuple(f"label {index}" for index in range(small_model.config.num_classes))
    proto = export(replace(small_model, labels=labels), tmp_path)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["task"] == "image-classification"
    assert json.loads(metadata["id2label"])["3"] == "label 3"
    assert json.loads(metadata["config"])["depth"] == small_model.config.depth
    assert json.loads(metadata["preprocessor_config"]) == json.loads(
        json.dumps(small_model.preprocessing.to_dict())
    )


def test_opset_out_of_range_is_refused(small_model: Model, tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="opset 16"):
        export(small_model, tmp_path, opset=16)


def test_a_graph_that_does_not_fit_its_weights_is_refused(small_model: Model, tmp_path: Path) -> None:
    from vit_deploy.weights.tensors import Weights

    wrong = [
        replace(tensor, shape=(150, 60)) if name == "blocks.1.mlp.fc2.weight" else tensor
        for name, tensor in small_model.weights.items()
    ]
    with pytest.raises(ExportFailed, match=r"blocks\.1\.mlp\.fc2\.weight"):
        export(replace(small_model, weights=Weights(wrong)), tmp_path)


def test_the_batch_has_its_name(small_model: Model, tmp_path: Path) -> None:
    proto = export(small_model, tmp_path)
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
