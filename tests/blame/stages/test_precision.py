"""What is lost in rounding is a matter of precision, and not of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.blame.conftest import damaged_onnx, write_torchscript

if TYPE_CHECKING:
    from vit_deploy.protocols import Artefact
    from vit_deploy.weights.imported import Model


def in_half(artefact: Artefact, folder: Path, *, grown: float = 1.0) -> Artefact:
    """The file's arithmetic in fp16 behind casts at its edges; the result may be blown up and back."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load(artefact.path)
    graph = proto.graph
    for entry in graph.initializer:
        if entry.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(entry).astype(np.float16)
            entry.CopyFrom(numpy_helper.from_array(values, entry.name))
    del graph.value_info[:]
    source, result = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = [f"{source}.half" if name == source else name for name in node.input]
        node.output[:] = [f"{result}.half" if name == result else name for name in node.output]
    scale = [
        numpy_helper.from_array(np.array(factor, np.float16), name)
        for name, factor in (("up", grown), ("down", 1 / grown))
    ]
    graph.initializer.extend(scale)
    graph.node.insert(0, helper.make_node("Cast", [source], [f"{source}.half"], to=TensorProto.FLOAT16))
    graph.node.extend(
        [
            helper.make_node("Mul", [f"{result}.half", "up"], [f"{result}.up"]),
            helper.make_node("Mul", [f"{result}.up", "up"], [f"{result}.top"]),
            helper.make_node("Mul", [f"{result}.top", "down"], [f"{result}.less"]),
            helper.make_node("Mul", [f"{result}.less", "down"], [f"{result}.down"]),
            helper.make_node("Cast", [f"{result}.down"], [result], to=TensorProto.FLOAT),
        ]
    )
    path = folder / "half.onnx"
    onnx.save(proto, path)
    return replace(artefact, name="onnx-fp16", precision="fp16", path=path)


def test_an_honest_half_precision_file_holds(onnx_file: Artefact, climb: Any, tmp_path: Path) -> None:
    fall, walk = climb(in_half(onnx_file, tmp_path))
    assert fall is None, fall
    assert any(reading.kind == "precision" and reading.holds for reading in walk.readings)


def test_a_half_precision_file_that_overflows_is_a_matter_of_precision(
    onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    fall, walk = climb(in_half(onnx_file, tmp_path, grown=2.0**14))
    assert fall is not None
    assert fall.reading.kind == "precision"
    assert "without its roundings the file holds" in fall.because
    assert all(reading.holds for reading in walk.readings[:-1])


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
@pytest.mark.parametrize(("dtype", "word"), [(torch.bfloat16, "bf16"), (torch.float16, "fp16")])
def test_weights_that_were_rounded_and_declared_fp32_are_a_matter_of_precision(
    format: str, dtype: torch.dtype, word: str, model: Model, onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    def round_weights(vit: torch.nn.Module) -> None:
        for parameter in vit.parameters():
            parameter.data = parameter.data.to(dtype).float()

    if format == "onnx":
        artefact = damaged_onnx(onnx_file, model, tmp_path, round_weights)
    else:
        artefact = write_torchscript(model, tmp_path, round_weights)
    fall, _ = climb(artefact)
    assert fall is not None
    assert fall.reading.kind == "precision"
    assert f"weights are {word} numbers" in fall.because


def test_a_part_that_computes_in_bf16_behind_casts_is_a_matter_of_precision(
    onnx_file: Artefact, climb: Any, tmp_path: Path
) -> None:
    import onnx
    from onnx import TensorProto, helper

    proto = onnx.load(onnx_file.path)
    place, node = next((i, node) for i, node in enumerate(proto.graph.node) if node.op_type == "Gelu")
    source = node.input[0]
    casts = [
        helper.make_node("Cast", [source], ["low"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["low"], ["high"], to=TensorProto.FLOAT),
    ]
    node.input[0] = "high"
    for cast in reversed(casts):
        proto.graph.node.insert(place, cast)
    onnx.save(proto, tmp_path / "bf16.onnx")
    fall, _ = climb(replace(onnx_file, path=tmp_path / "bf16.onnx"))
    assert fall is not None
    assert fall.reading.kind == "precision"
    assert "less than the fp32" in fall.because
