"""The model, the capture and each of our passes, really broken, are named; an honest artefact holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.blame.conftest import write_onnx, write_torchscript
from tests.blame.stages.conftest import named
from vit_deploy.model.contract import contracted

if TYPE_CHECKING:
    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_an_honest_artefact_holds_at_every_stage(
    format: str, model: Model, onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    artefact = onnx_file if format == "onnx" else write_torchscript(model, tmp_path / "ts")
    fall, walk = climb(artefact)
    assert fall is None
    kinds = [reading.kind for reading in walk.readings]
    assert kinds == sorted(kinds, key=["model", "export", "pass", "runtime", "precision"].index)
    assert {"model", "export", "runtime"} <= set(kinds)
    assert all(reading.holds and reading.worst_ratio < 4 for reading in walk.readings)
    assert walk.readings[-1].name.endswith("optimisations on")


def test_the_ladder_works_with_preprocessing_in_the_graph(model: Model, climb: Any, tmp_path: Path) -> None:
    spec = contracted(model.config.io_spec(), "image", model.config, model.preprocessing)
    honest = write_onnx(model, tmp_path / "input", spec=spec)
    fall, walk = climb(honest)
    assert fall is None, fall
    assert all(reading.holds for reading in walk.readings)


def test_swapped_channels_of_the_input_are_the_file_s_fault(model: Model, climb: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    spec = contracted(model.config.io_spec(), "uint8", model.config, model.preprocessing)
    honest = write_onnx(model, tmp_path / "input", spec=spec)
    proto = onnx.load(honest.path)
    (kernel,) = (entry for entry in proto.graph.initializer if entry.name == "patch_embed.proj.weight")
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel)[:, ::-1].copy(), kernel.name))
    onnx.save(proto, honest.path)
    fall, _ = climb(honest)
    assert fall is not None
    assert fall.reading.kind == "export"
    assert fall.where == "embed"
    assert "patch_embed.proj.weight" in fall.because


def test_a_wrong_layout_for_export_is_the_model_s_fault(
    model: Model, climb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vit_deploy.model import layout

    merge = layout.RESHAPE.merge_heads

    class Louder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = merge()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * 1.01  # type: ignore[no-any-return]

    monkeypatch.setattr(type(layout.RESHAPE), "merge_heads", lambda *_: Louder(), raising=True)
    fall, walk = climb(write_onnx(model, tmp_path / "wrong"))
    assert fall is not None
    assert fall.reading.kind == "model"
    assert named(walk) == [("model", "eager PyTorch, layout for export", False)]


def test_a_wrong_capture_is_the_export_s_fault(
    onnx_file: Artefact, climb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir as ir

    from vit_deploy.graph import pipeline

    capture = pipeline.capture

    def careless(*args: Any) -> Any:
        graph = capture(*args)
        for node in graph.graph:
            if node.op_type == "Gelu":
                node.attributes.add(ir.AttrString("approximate", "tanh"))
        return graph

    monkeypatch.setattr(pipeline, "capture", careless)
    fall, walk = climb(onnx_file)
    assert fall is not None
    assert (fall.reading.kind, fall.reading.name) == ("export", "the graph as captured")
    assert "captures" in fall.because
    assert [kind for kind, *_ in named(walk)] == ["model", "export"]


def passes() -> list[str]:
    from vit_deploy.graph.pipeline import PASSES

    return [name for name, _ in PASSES]


@pytest.mark.parametrize("broken", passes())
def test_each_of_our_passes_is_named_when_it_is_broken(
    broken: str, onnx_file: Artefact, climb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir as ir

    from vit_deploy.graph import pipeline

    def scaling(apply: Any) -> Any:
        def run(graph: ir.Model, recipe: Any) -> None:
            apply(graph, recipe)
            value = next(entry for name, entry in graph.graph.initializers.items() if name == "norm.bias")
            before = value.const_value
            assert before is not None
            value.const_value = ir.tensor(before.numpy() * np.float32(1.01) + np.float32(0.01), name=value.name)

        return run

    table = tuple((name, scaling(apply) if name == broken else apply) for name, apply in pipeline.PASSES)
    monkeypatch.setattr(pipeline, "PASSES", table)
    fall, walk = climb(onnx_file)
    assert fall is not None
    assert (fall.reading.kind, fall.reading.name) == ("pass", broken)
    assert broken in fall.because
    tried = [reading.name for reading in walk.readings if reading.kind == "pass"]
    assert len(tried) <= 4, "it is found by bisection"
    assert tried == sorted(tried, key=passes().index)


def test_a_pass_that_raises_is_named(onnx_file: Artefact, climb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vit_deploy.graph import pipeline

    def stumble(*_: Any) -> None:
        raise KeyError("perm")

    table = tuple((name, stumble if name == "lower_opset" else apply) for name, apply in pipeline.PASSES)
    monkeypatch.setattr(pipeline, "PASSES", table)
    fall, walk = climb(onnx_file)
    assert fall is not None
    assert (fall.reading.kind, fall.reading.name) == ("pass", "lower_opset")
    assert fall.broke
    assert ("export", "the graph as captured", True) in named(walk)
