"""fp16 and bf16 in the graph: the numbers are right, few Casts, weights one at a time, layers kept by name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.graph.half_models import EPSILON, changed, error, evaluate, exact, lowered, pixels, tiny
from vit_deploy.errors import ExportFailed, UsageFailed
from vit_deploy.exporters.onnx import OnnxOptions, build_graph
from vit_deploy.graph import half_lint
from vit_deploy.graph.half import lower
from vit_deploy.graph.half_layers import Layers
from vit_deploy.graph.half_lint import count_operators, lint_half
from vit_deploy.graph.half_rules import Rules, inferred_types
from vit_deploy.graph.layers import count_layers
from vit_deploy.graph.stream import skeleton, write_model
from vit_deploy.model.contract import contracted
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.model.sizes import size_range
from vit_deploy.protocols import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from vit_deploy.graph.half_casts import Recast
    from vit_deploy.spec import IOSpec, Precision
    from vit_deploy.weights.imported import Model

DTYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
TORCH = {"fp16": torch.float16, "bf16": torch.bfloat16}

CASES: dict[str, tuple[dict[str, Any], int, int]] = {
    "plain": ({}, 23, 2),
    "every part that there is": (
        {"layer_scale": True, "qk_norm": True, "attn_norm": True, "mlp_norm": True, "pre_norm": True}
        | {"gated_mlp": True, "activation": "silu", "rotary": RotaryConfig(), "positions": "none"},
        23,
        2,
    ),
    "mean over tokens": ({"pool": "avg", "final_norm": False, "fc_norm": True}, 23, 4),
    # The pool's query is made of weights alone, in fp32, and cast once.
    "attention pooling": ({"pool": "map", "class_token": False}, 23, 3),
    "attention spelled out": ({}, 22, 8),
    "GELU spelled out": ({"activation": "gelu_tanh"}, 17, 8),
}
"""What is changed of the config, the opset, and how many Casts there must be in fp16."""


def products(graph: ir.Model) -> Counter[ir.DataType | None]:
    return Counter(
        node.outputs[0].dtype for node in graph.graph if node.op_type in {"MatMul", "Gemm", "Conv", "Attention"}
    )


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_the_model(case: str, tmp_path: Path) -> None:
    changes, opset, casts = CASES[case]
    model, inputs = tiny(**changes), pixels()
    graph, made = lowered(model, "fp16", opset)
    plain = build_graph(model, model.config.io_spec(), opset)
    assert count_operators(graph) - Counter(Cast=casts) == count_operators(plain)
    assert made.facts["half"]["casts"] == casts
    of_weights = {ir.DataType.FLOAT: 1} if case == "attention pooling" else {}
    assert products(graph) - Counter(of_weights) == {
        ir.DataType.FLOAT16: sum(made.facts["half"]["products"].values())
    }
    assert error(evaluate(graph, tmp_path, inputs)["logits"], exact(model, inputs)) < 3 * EPSILON["fp16"]


@pytest.mark.parametrize("opset", [23, 17])
def test_bf16(opset: int, tmp_path: Path) -> None:
    model, inputs = tiny(), pixels()
    graph, made = lowered(model, "bf16", opset)
    assert error(evaluate(graph, tmp_path, inputs)["logits"], exact(model, inputs)) < 3 * EPSILON["bf16"]
    # ONNX's Conv takes bfloat16 from opset 22 on, so that there is one product in fp32 below it.
    left = {ir.DataType.FLOAT: 1} if opset == 17 else {}
    assert products(graph) == {**left, ir.DataType.BFLOAT16: sum(products(graph).values()) - len(left)}
    assert ("Conv" in made.facts["half"]["in_fp32"]) == (opset == 17)


def test_norms_and_softmax_are_in_fp32_inside() -> None:
    graph, _ = lowered(tiny(), "fp16", 22)
    norms = [node for node in graph.graph if node.op_type == "LayerNormalization"]
    assert len(norms) == 7
    assert all(node.attributes.get_int("stash_type") == ir.DataType.FLOAT for node in norms)
    softmaxes = [node.outputs[0].dtype for node in graph.graph if node.op_type == "Softmax"]
    assert softmaxes == 3 * [ir.DataType.FLOAT]
    census = count_layers(skeleton(lowered(tiny(), "bf16")[0], weights_as_inputs=True))
    assert census.attentions == 3
    assert census.dtypes["attention"] == {"bf16": 3}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_are_those_of_eager_in_that_precision(precision: Precision) -> None:
    model = tiny()
    graph, _ = lowered(model, precision)
    eager = model.eager(dtype=TORCH[precision]).state_dict()
    for name, value in graph.graph.initializers.items():
        bare = name.removesuffix(".transposed")
        if bare not in eager:
            continue
        assert value.const_value is not None
        found = value.const_value.numpy().astype(np.float64)
        right = eager[bare].double().numpy()
        assert np.array_equal(found, right.T if bare != name else right), name
    assert {name.removesuffix(".transposed") for name in graph.graph.initializers} >= set(eager)


def test_no_weight_is_read_before_it_is_written_and_none_twice(tmp_path: Path) -> None:
    model = tiny()
    read: Counter[str] = Counter()

    def counting(name: str) -> Any:
        def count(tensor: torch.Tensor) -> torch.Tensor:
            read[name] += 1
            return tensor

        return count

    counted = changed(model, {name: counting(name) for name in model.weights})
    graph, _ = lowered(counted, "fp16", keep_fp32="blocks.1.mlp")
    assert not read
    write_model(graph, tmp_path / "model.onnx")
    assert read == Counter(dict.fromkeys(model.weights, 1))


@pytest.mark.parametrize(
    ("kept", "in_fp32", "casts"),
    [
        ("blocks.1.mlp", {"blocks.1.mlp.fc1", "blocks.1.mlp.fc2"}, 4),
        ("blocks.0.attn", {"blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.attn"}, 4),
        ("head", {"head"}, 2),
        ("blocks.2, blocks.2.mlp.fc1,", {f"blocks.2.{n}" for n in
            ("attn", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}, 4),
        ("patch_embed", {"patch_embed.proj"}, 2),
    ],
)  # fmt: skip
def test_layers_are_kept_by_name(kept: str, in_fp32: set[str], casts: int, tmp_path: Path) -> None:
    model, inputs = tiny(), pixels()
    owners = Layers.of(build_graph(model, model.config.io_spec(), 23), model.config).owners
    names = {node.name: owner for node, owner in owners.items()}
    graph, made = lowered(model, "fp16", keep_fp32=kept)
    left = {
        names[node.name]
        for node in graph.graph
        if node.op_type in {"MatMul", "Gemm", "Conv", "Attention"}
        and node.outputs[0].dtype == ir.DataType.FLOAT
    }
    assert left == in_fp32
    assert made.facts["half"]["casts"] == casts
    assert made.facts["half"]["products"]["fp32"] == len(in_fp32)
    weights = {
        name for name, value in graph.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT and value.const_value is not None and value.const_value.size > 1
    }  # fmt: skip
    assert {name.split(".weight")[0].split(".bias")[0] for name in weights} >= in_fp32 - {"blocks.0.attn"} - {
        "blocks.2.attn"
    }
    assert error(evaluate(graph, tmp_path, inputs)["logits"], exact(model, inputs)) < 3 * EPSILON["fp16"]


def test_the_residual_stream_alone_can_be_kept() -> None:
    graph, made = lowered(tiny(), "fp16", keep_fp32="blocks.1.residual")
    norms = [node.inputs[0].dtype for node in graph.graph if node.op_type == "LayerNormalization"]
    half, full = ir.DataType.FLOAT16, ir.DataType.FLOAT
    # What is added in block 1 is normalised there, and at the beginning of block 2.
    assert norms == [half, half, half, full, full, half, half]
    assert set(products(graph)) == {half}
    # At the ends 2; into the stream 1 and from it 1, from each branch 1, behind each of the two norms 1.
    assert made.facts["half"]["casts"] == 8


def test_unknown_layers_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageFailed, match=r"unknown layer 'blocks.1.mpl' \(did you mean 'blocks.1.mlp'"):
        lowered(tiny(), "fp16", keep_fp32="blocks.0,blocks.1.mpl")


def test_most_of_a_model_is_not_kept_under_another_name() -> None:
    with pytest.raises(UsageFailed, match=r"--keep-fp32 blocks.0,blocks.1 keeps \d\d% of the weights"):
        lowered(tiny(), "bf16", keep_fp32="blocks.0,blocks.1")


def test_io_in_float16(tmp_path: Path) -> None:
    model, inputs = tiny(), pixels()
    graph, made = lowered(model, "fp16", io_dtype="float16")
    assert [entry.dtype for entry in (*made.spec.inputs, *made.spec.outputs)] == ["float16", "float16"]
    assert made.facts["half"]["casts"] == 0
    found = evaluate(graph, tmp_path, inputs.astype(np.float16))["logits"]
    assert found.dtype == np.float16
    assert error(found, exact(model, inputs)) < 3 * EPSILON["fp16"]
    graph, made = lowered(model, "bf16", io_dtype="float16")
    assert made.facts["half"]["casts"] == 2
    assert evaluate(graph, tmp_path, inputs.astype(np.float16))["logits"].dtype == np.float16


def test_pictures_of_8_bits(tmp_path: Path) -> None:
    model = tiny()
    plain = model.config.io_spec()
    spec = contracted(plain, "uint8", model.config, model.preprocessing)
    graph, _ = lowered(model, "fp16", spec=spec)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    assert model.preprocessing is not None
    values = np.stack([model.preprocessing.normalise(picture) for picture in pictures])
    assert error(evaluate(graph, tmp_path, pictures)["logits"], exact(model, values)) < 3 * EPSILON["fp16"]
    weight = graph.graph.initializers["patch_embed.proj.weight"].const_value
    assert weight is not None
    folded = np.abs(weight.numpy().astype(np.float64))
    assert (folded < 2.0**-14).mean() < 0.05  # as good as none where fp16 has fewer bits


def sizes_spec(model: Model) -> IOSpec:
    return model.config.io_spec(sizes=size_range(model.config, (8, 8), (16, 24), (32, 32)))


def test_positions_that_are_computed_in_the_graph_stay_fp32(tmp_path: Path) -> None:
    """Learned ones, which are resampled, and rotary ones."""
    model, inputs = tiny(rotary=RotaryConfig()), pixels(1, (24, 8))
    graph, _ = lowered(model, "fp16", spec=sizes_spec(model))
    types = inferred_types(graph)
    angles = [node.outputs[0].name or "" for node in graph.graph if node.op_type in {"Sin", "Cos"}]
    assert {types[name] for name in angles} == {ir.DataType.FLOAT}
    assert products(graph)[ir.DataType.FLOAT] > 0  # the resampling, which is a product
    assert error(evaluate(graph, tmp_path, inputs)["logits"], exact(model, inputs)) < 3 * EPSILON["fp16"]


def test_weights_beyond_fp16_are_refused_when_they_are_written(tmp_path: Path) -> None:
    model = changed(tiny(), {"blocks.1.mlp.fc1.bias": lambda bias: bias + 7e4})
    graph, _ = lowered(model, "fp16")
    with pytest.raises(
        ExportFailed, match=r"40 numbers of the weight 'blocks.1.mlp.fc1.bias' are beyond"
    ) as told:
        write_model(graph, tmp_path / "model.onnx")
    assert "--keep-fp32 blocks.1.mlp.fc1" in told.value.next_command
    write_model(lowered(model, "fp16", keep_fp32="blocks.1.mlp.fc1")[0], tmp_path / "kept.onnx")
    write_model(lowered(model, "bf16")[0], tmp_path / "bf16.onnx")


def test_control_flow_is_refused() -> None:
    model = tiny()
    graph = build_graph(model, model.config.io_spec(), 23)
    last = list(graph.graph)[-1]
    body = ir.Graph([], [], nodes=[], name="body")
    attributes = [ir.AttrGraph("then_branch", body), ir.AttrGraph("else_branch", body)]
    graph.graph.append(ir.Node("", "If", [last.outputs[0]], attributes))
    with pytest.raises(ExportFailed, match=r"control flow \(If\)"):
        Rules(graph, ir.DataType.FLOAT16, set(), {})


def spoil_stash(graph: ir.Model) -> None:
    node = next(node for node in graph.graph if node.op_type == "LayerNormalization")
    node.attributes.add(ir.AttrInt64("stash_type", ir.DataType.FLOAT16.value))


def spoil_softmax(graph: ir.Model) -> None:
    node = next(node for node in graph.graph if node.op_type == "Attention")
    node.attributes.add(ir.AttrInt64("softmax_precision", 1))


def spoil_twice(graph: ir.Model) -> None:
    """One more Cast there and back."""
    node = next(node for node in graph.graph if node.op_type == "Gelu")
    there = ir.node("Cast", [node.inputs[0]], attributes={"to": 1}, name="there")
    back = ir.node("Cast", [there.outputs[0]], attributes={"to": 10}, name="back")
    for made, name, dtype in ((there, "there", ir.DataType.FLOAT), (back, "back", ir.DataType.FLOAT16)):
        made.outputs[0].name, made.outputs[0].type = name, ir.TensorType(dtype)
        graph.graph.insert_before(node, made)
    node.replace_input_with(0, back.outputs[0])


def spoil_product(graph: ir.Model) -> None:
    """A product in fp32 between two Casts."""
    node = next(node for node in graph.graph if node.op_type == "Gemm")
    for place, value in enumerate(node.inputs):
        made = ir.node("Cast", [value], attributes={"to": 1}, name=f"up_{place}")
        made.outputs[0].name, made.outputs[0].type = f"up_{place}", ir.TensorType(ir.DataType.FLOAT)
        graph.graph.insert_before(node, made)
        node.replace_input_with(place, made.outputs[0])
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_stash, "computes its mean in half precision"),
        (spoil_softmax, "softmax_precision, which TensorRT refuses"),
        (spoil_twice, "4 Cast for 2; the Cast 'back' is one of a Cast"),
        (spoil_product, "Gemm 'Gemm_.*' is left in"),
    ],
)
def test_a_graph_that_breaks_a_rule_is_refused(spoil: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vit_deploy.graph import half

    def spoiled(graph: ir.Model, before: Any, rules: Rules, done: Recast, spec: IOSpec) -> None:
        spoil(graph)
        lint_half(graph, before, rules, done, spec)

    monkeypatch.setattr(half, "lint_half", spoiled)
    with pytest.raises(ExportFailed, match=told):
        lowered(tiny(depth=1), "fp16")


def test_more_casts_than_needed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_lint, "most_casts", lambda *_: 1)
    with pytest.raises(ExportFailed, match="2 Casts were added, where 1 would do"):
        lowered(tiny(depth=1), "fp16")


def test_the_lowered_graph_takes_no_module_by_surprise() -> None:
    """A module of a user's own has no residual stream that we know of; layers go by weights."""
    model = tiny(depth=1)
    graph = build_graph(model, model.config.io_spec(), 23)
    layers = Layers.of(graph, object())  # type: ignore[arg-type]
    assert not any(name.endswith("residual") for name in layers.names)
    assert {"blocks.0.mlp", "head", "patch_embed"} <= set(layers.names)
    options = OnnxOptions(keep_fp32="blocks.0.mlp.fc1")
    assert lower(graph, model, model.config.io_spec(), "fp16", options, Silent()).facts["half"]["casts"] == 4
