"""Each pass leaves the outputs as they are, and the graph as it should be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest

from vit_deploy.errors import ExportFailed
from vit_deploy.exporters.onnx import build_graph
from vit_deploy.graph import capture as capture_module
from vit_deploy.graph.attention import attend_in_three_dimensions
from vit_deploy.graph.batch import shorten_batch_arithmetic
from vit_deploy.graph.capture import bind_weights
from vit_deploy.graph.fold import fold_constants
from vit_deploy.graph.lint import GraphFacts, lint
from vit_deploy.graph.lower_opset import lower_opset
from vit_deploy.graph.metadata import strip_metadata
from vit_deploy.graph.stream import write_model
from vit_deploy.graph.transpose_weights import transpose_weights
from vit_deploy.model.layout import RESHAPE
from vit_deploy.model.vit import ViT
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from vit_deploy.weights.imported import Model

PASSES = {
    "fold": fold_constants,
    "transpose": transpose_weights,
    "batch": shorten_batch_arithmetic,
    "attention": attend_in_three_dimensions,
    "strip": strip_metadata,
}


def captured(model: Model) -> ir.Model:
    names = ("logits", "tokens")
    graph = capture_module.capture(
        lambda: ViT(model.config, layout=RESHAPE, outputs=names).eval(), model.config.io_spec(names)
    )
    bind_weights(graph, model.weights)
    return graph


def run(graph: ir.Model, folder: Path, pixels: np.ndarray) -> list[np.ndarray]:
    write_model(graph, folder / "graph.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(folder / "graph.onnx"), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixel_values": pixels})


def operators(graph: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph)


@pytest.fixture
def pixels(small_model: Model) -> np.ndarray:
    shape = (3, 3, *small_model.config.image_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("depth", range(1, len(PASSES) + 1))
def test_a_pass_changes_no_output(depth: int, small_model: Model, pixels: np.ndarray, tmp_path: Path) -> None:
    graph = captured(small_model)
    fold_constants(graph)  # ONNX Runtime has no kernel for what stands before it
    before = run(graph, tmp_path, pixels)
    for step in list(PASSES.values())[:depth]:
        step(graph)
    for old, new in zip(before, run(graph, tmp_path, pixels), strict=True):
        assert np.linalg.norm(old - new) <= 1e-6 * np.linalg.norm(old)


def test_folding_reads_no_weight(small_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = captured(small_model)

    def refuse(self: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr("vit_deploy.weights.tensors.WeightTensor.read", refuse)
    for step in PASSES.values():
        step(graph)
    assert operators(graph)["SplitToSequence"] == 0


def test_weights_are_stored_the_way_they_are_used(small_model: Model) -> None:
    graph = captured(small_model)
    fold_constants(graph)
    before = operators(graph)["Transpose"]
    changed = transpose_weights(graph)
    assert changed == 4 * small_model.config.depth
    assert operators(graph)["Transpose"] == before - changed
    stored = graph.graph.initializers["blocks.0.mlp.fc1.weight.transposed"].const_value
    expected = small_model.weights["blocks.0.mlp.fc1.weight"].read().numpy().T
    assert np.array_equal(stored.numpy(), expected)


def test_attention_takes_three_dimensions(small_model: Model) -> None:
    graph = captured(small_model)
    fold_constants(graph)
    shorten_batch_arithmetic(graph)
    assert attend_in_three_dimensions(graph) == small_model.config.depth
    for node in graph.graph:
        if node.op_type == "Attention":
            assert node.attributes.get_int("q_num_heads") == small_model.config.num_heads
            assert [len(value.shape) for value in node.inputs] == [3, 3, 3]


def test_attention_whose_heads_are_used_apart_is_left_alone(small_model: Model) -> None:
    graph = captured(small_model)
    fold_constants(graph)
    shorten_batch_arithmetic(graph)
    apart = next(node for node in graph.graph if node.op_type == "Attention").outputs[0]
    graph.graph.outputs.append(apart)
    assert attend_in_three_dimensions(graph) == small_model.config.depth - 1


def test_only_the_class_token_needs_shape_arithmetic(small_model: Model) -> None:
    spec = small_model.config.io_spec()
    free = operators(build_graph(small_model, spec, 23))
    assert (free["Shape"], free["Concat"], free["Expand"]) == (1, 2, 1)
    fixed_spec = small_model.config.io_spec(batch=BatchRange(2, 2, 2))
    fixed = operators(build_graph(small_model, fixed_spec, 23))
    assert fixed["Shape"] == 0


@pytest.mark.parametrize("opset", [17, 18, 19, 20, 21, 22])
def test_lowered_graphs_are_equal_and_legal(
    opset: int, small_model: Model, pixels: np.ndarray, tmp_path: Path
) -> None:
    spec = small_model.config.io_spec()
    reference = run(build_graph(small_model, spec, 23), tmp_path, pixels)[0]
    graph = build_graph(small_model, spec, opset)
    facts = lint(graph, small_model.config, spec)
    assert facts.opset == opset
    assert facts.operators.get("Attention", 0) == 0
    assert facts.operators.get("Gelu", 0) == (small_model.config.depth if opset >= 20 else 0)
    lowered = run(graph, tmp_path, pixels)[0]
    assert np.linalg.norm(lowered - reference) <= 2e-6 * np.linalg.norm(reference)


def test_attention_is_lowered_with_its_heads_apart_too(
    small_model: Model, pixels: np.ndarray, tmp_path: Path
) -> None:
    graph = captured(small_model)
    fold_constants(graph)
    before = run(graph, tmp_path, pixels)
    lower_opset(graph, 20)
    assert operators(graph)["Attention"] == 0
    for old, new in zip(before, run(graph, tmp_path, pixels), strict=True):
        assert np.linalg.norm(old - new) <= 1e-6 * np.linalg.norm(old)


def test_lowering_refuses_an_attention_it_does_not_know(small_model: Model) -> None:
    import onnx_ir as ir

    graph = build_graph(small_model, small_model.config.io_spec(), 23)
    node = next(node for node in graph.graph if node.op_type == "Attention")
    node.attributes.add(ir.AttrInt64("is_causal", 1))
    with pytest.raises(ExportFailed, match="not that of a ViT"):
        lower_opset(graph, 20)


def test_the_linter_names_each_broken_rule(small_model: Model) -> None:
    spec = small_model.config.io_spec()
    with pytest.raises(ExportFailed, match="3 Attention for 4"):
        lint(build_graph(small_model, spec, 23), replace(small_model.config, depth=4), spec)
    other = small_model.config.io_spec(("embedding",))
    with pytest.raises(ExportFailed, match="outputs are"):
        lint(build_graph(small_model, spec, 23), small_model.config, other)
    with pytest.raises(ExportFailed, match="64 Constant"):
        lint(captured(small_model), small_model.config, spec)


def test_the_linter_finds_a_decomposed_layer_norm(small_model: Model) -> None:
    import onnx_ir as ir

    spec = small_model.config.io_spec()
    graph = build_graph(small_model, spec, 23)
    norm = next(node for node in graph.graph if node.op_type == "LayerNormalization")
    square = ir.node("Sqrt", [norm.outputs[0]])
    square.outputs[0].name = "root"
    graph.graph.insert_after(norm, square)
    with pytest.raises(ExportFailed, match="1 Sqrt"):
        lint(graph, small_model.config, spec)


def test_nothing_of_the_machine_is_in_a_graph(small_model: Model, tmp_path: Path) -> None:
    graph = build_graph(small_model, small_model.config.io_spec(), 23)
    write_model(graph, tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    for trace in (b"/vit_deploy", b"stack_trace", b"nn.Module", b".py", b"pkg.torch"):
        assert trace not in data


def test_node_count_of_vit_b16() -> None:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.random import random_model

    model = random_model(ViTConfig(), "vit_base_patch16_224")
    facts = GraphFacts.of(build_graph(model, model.config.io_spec(), 23))
    assert facts.nodes <= 230
    assert (facts.operators["Attention"], facts.operators["Gelu"]) == (12, 12)
    assert facts.operators["LayerNormalization"] == 25
