"""The standard's own definition of a graph, where ONNX's evaluator alone would not get through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vit_deploy.blame.standard import evaluate, load_graph

if TYPE_CHECKING:
    from pathlib import Path


def rounding_graph(path: Path, opset: int, *, beside: bool) -> None:
    """``x`` to int8 and back by a scale, then times a matrix."""
    scale = numpy_helper.from_array(np.float32(0.5), "scale")
    zero = numpy_helper.from_array(np.int8(0), "zero")
    matrix = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "matrix")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "matrix"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "rounding", [x], [y], [scale, zero, matrix])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    onnx.save(model, path, save_as_external_data=beside, size_threshold=0, location="weights.bin")


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("beside", [False, True], ids=["weights inside", "weights beside"])
def test_quantised_graphs_are_computed_at_any_opset(opset: int, beside: bool, tmp_path: Path) -> None:
    rounding_graph(tmp_path / "m.onnx", opset, beside=beside)
    x = np.array([[0.2, 0.3, 1000.0], [-0.8, 0.0, 3.1]], dtype=np.float32)
    (found,) = evaluate(load_graph(tmp_path / "m.onnx"), {"x": x})
    rounded = np.array([[0.0, 0.5, 63.5], [-1.0, 0.0, 3.0]], dtype=np.float32)
    np.testing.assert_array_equal(found, rounded @ np.arange(6, dtype=np.float32).reshape(3, 2))
