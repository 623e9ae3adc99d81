"""The dtype of each layer of a graph, without its weights: known layers, known forms, and others' files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vit_deploy.errors import HostileInput
from vit_deploy.exporters.onnx import EXPORTER, OnnxOptions
from vit_deploy.graph.layers import count_layers
from vit_deploy.graph.scan import skeleton_of
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.weights.imported import Model


@pytest.mark.parametrize(
    ("opset", "external"), [(17, False), (23, False), (23, True)], ids=["spelled out", "one operator", "beside"]
)
def test_a_vit_has_the_layers_that_its_config_says(
    opset: int, external: bool, small_model: Model, tmp_path: Path
) -> None:
    config = small_model.config
    options = OnnxOptions(opset=opset, external_data=external)
    made = EXPORTER.export(small_model, config.io_spec(), options, tmp_path, Silent())
    found = count_layers(skeleton_of(tmp_path / made.files[0]))
    spelled_out = opset < 23
    assert (found.attentions, found.spelled_out) == ((0, config.depth) if spelled_out else (config.depth, 0))
    assert found.dtypes == {
        "linear": {"fp32": 4 * config.depth + 2},  # and the patches, and the head
        "attention": {"fp32": config.depth * (2 if spelled_out else 1)},
        "softmax": {"fp32": config.depth},
        "layernorm": {"fp32": 2 * config.depth + 1},
        "activation": {"fp32": config.depth},
        "io": {"fp32": 2},
    }
    # What the exporter records is what a reader of the file finds.
    assert made.facts["dtypes"] == found.dtypes


def test_no_weight_is_read(small_model: Model, tmp_path: Path) -> None:
    made = EXPORTER.export(small_model, small_model.config.io_spec(), OnnxOptions(), tmp_path, Silent())
    whole = onnx.load(tmp_path / made.files[0])
    skeleton = skeleton_of(tmp_path / made.files[0])
    assert not skeleton.graph.initializer
    assert len(skeleton.graph.node) == len(whole.graph.node)
    assert len(skeleton.graph.input) == len(whole.graph.input) + len(whole.graph.initializer)
    assert skeleton.ByteSize() < 60_000 < whole.ByteSize()


def graph(nodes: list[onnx.NodeProto], dtype: int, weights: dict[str, np.ndarray], path: Path) -> Path:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, [1, 4, 8])],
        [helper.make_tensor_value_info("y", dtype, [1, 4, 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets), path)
    return path


def test_mixed_precision_is_told_apart(tmp_path: Path) -> None:
    """LayerNorm and softmax in fp32 between products in fp16, as careful converters leave it."""
    half = np.ones((8, 8), np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("LayerNormalization", ["wide", "g", "b"], ["normed"]),
        helper.make_node("Cast", ["normed"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["q"]),
        helper.make_node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Cast", ["scores"], ["wide_scores"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["wide_scores"], ["shares"]),
        helper.make_node("Cast", ["shares"], ["half_shares"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half_shares", "q"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["y"]),
    ]
    ones = np.ones(8, np.float32)
    path = graph(nodes, TensorProto.FLOAT16, {"w": half, "g": ones, "b": ones}, tmp_path / "m.onnx")
    found = count_layers(skeleton_of(path))
    assert found.dtypes == {
        "linear": {"fp16": 1},
        "attention": {"fp16": 2},
        "softmax": {"fp32": 1},
        "layernorm": {"fp32": 1},
        "activation": {"fp16": 1},
        "io": {"fp16": 2},
    }
    assert (found.attentions, found.spelled_out) == (0, 1)


def test_quantised_products_and_the_runtimes_own_operators(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["dw"]),
        helper.make_node("Transpose", ["dw"], ["dwt"], perm=[1, 0]),
        helper.make_node("MatMul", ["d", "dwt"], ["p"]),
        helper.make_node("BiasGelu", ["p", "bias"], ["a"], domain="com.microsoft"),
        helper.make_node("MatMul", ["a", "dwt"], ["y"]),
    ]
    weights = {
        "s": np.float32(0.1).reshape(()),
        "z": np.int8(0).reshape(()),
        "w": np.ones((8, 8), np.int8),
        "bias": np.ones(8, np.float32),
    }
    found = count_layers(skeleton_of(graph(nodes, TensorProto.FLOAT, weights, tmp_path / "q.onnx")))
    # The second product has weights of 8 bits only: it is computed in fp32.
    assert found.dtypes["linear"] == {"fp32": 1, "int8": 1}
    assert found.dtypes["activation"] == {"fp32": 1}


def test_a_layernorm_that_is_spelled_out_is_found(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"]),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Pow", ["centred", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "axes"], ["variance"]),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["y"]),
    ]
    weights = {"axes": np.array([-1], np.int64), "two": np.float16(2).reshape(())}
    found = count_layers(skeleton_of(graph(nodes, TensorProto.FLOAT16, weights, tmp_path / "n.onnx")))
    assert found.dtypes == {"layernorm": {"fp16": 1}, "io": {"fp16": 2}}


@pytest.mark.parametrize("cut", [0.5, 0.98])
def test_half_a_file_is_refused(cut: float, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = graph(nodes, TensorProto.FLOAT, {"w": np.ones((8, 8), np.float32)}, tmp_path / "h.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(HostileInput, match="no whole ONNX file"):
        skeleton_of(path)
