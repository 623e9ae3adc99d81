"""Faults of the graph: what exporters, optimisers and hand-made edits of ONNX files get wrong.

A right ONNX file is edited, or made by a pipeline with one wrong pass, and runs in the real runtime.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from benchmarks.parity import edits
from benchmarks.parity.case import Case, Fault
from benchmarks.parity.half import half_torchscript, layer_norm_in_half
from vit_deploy.spec import BatchRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.parity.workbench import Workbench
    from vit_deploy.blame.record import StageKind

    Edit = Callable[[ir.Model], None]


def _fault(
    name: str,
    family: str,
    where: str,
    edit: Edit,
    *outputs: str,
    opset: int = 23,
    stage: StageKind = "export",
    missed: str = "",
) -> Fault:
    def make(bench: Workbench) -> Case:
        return bench.edited(bench.honest(family, *outputs, opset=opset), edit)

    return Fault(name, "graph", family, stage, where, make, missed)


def _other_scale(graph: ir.Model) -> None:
    edits.set_attribute(edits.nodes(graph, "Attention")[8], "scale", 1 / 192**0.5)


def _causal(graph: ir.Model) -> None:
    for node in edits.nodes(graph, "Attention"):
        edits.set_attribute(node, "is_causal", 1)


def _other_heads(graph: ir.Model) -> None:
    for name in ("q_num_heads", "kv_num_heads"):
        edits.set_attribute(edits.nodes(graph, "Attention")[2], name, 6)


def _last_gelu(graph: ir.Model) -> None:
    edits.set_attribute(edits.nodes(graph, "Gelu")[-1], "approximate", "tanh")


def _softmax_axis(graph: ir.Model) -> None:
    edits.set_attribute(edits.nodes(graph, "Softmax")[1], "axis", -2)


def _last_eps(graph: ir.Model) -> None:
    edits.set_attribute(edits.nodes(graph, "LayerNormalization")[-1], "epsilon", 1e-5)


def _lost_norm_bias(graph: ir.Model) -> None:
    node = edits.nodes(graph, "LayerNormalization")[7]  # the second of block 3
    bias = node.inputs[2]
    assert bias is not None
    assert bias.name is not None
    edits.set_weight(graph, bias.name, np.zeros_like(edits.weight(graph, bias.name)))


def _lost_residual(graph: ir.Model) -> None:
    """The stream behind block 9's attention is what attention gave, without what went in."""
    sums = [node for node in edits.nodes(graph, "Add") if not _has_constant(node)]
    edits.bypass(sums[2 * 9], kept=1)


def _has_constant(node: ir.Node) -> bool:
    return any(value is not None and value.const_value is not None for value in node.inputs)


def _through_half(graph: ir.Model) -> None:
    """What block 6's GELU gives goes through float16 and back, as mixed-precision passes leave it."""

    def cast(value: ir.Value) -> list[ir.Node]:
        down = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT16)}, name="to_half")
        down.outputs[0].name = "half_of_block_6"
        up = ir.node("Cast", down.outputs, attributes={"to": int(ir.DataType.FLOAT)}, name="to_single")
        up.outputs[0].name = "single_of_block_6"
        return [down, up]

    edits.insert_after(graph, edits.nodes(graph, "Gelu")[6].outputs[0], cast)


def _column_by_column(graph: ir.Model) -> None:
    def transpose(value: ir.Value) -> list[ir.Node]:
        node = ir.node("Transpose", [value], attributes={"perm": [0, 1, 3, 2]}, name="columns_first")
        node.outputs[0].name = "patches_by_column"
        return [node]

    edits.insert_after(graph, edits.nodes(graph, "Conv")[0].outputs[0], transpose)


def _class_token_last(graph: ir.Model) -> None:
    """The sequence that comes out is turned by one."""
    (output,) = (value for value in graph.graph.outputs if value.name == "tokens")

    def turn(value: ir.Value) -> list[ir.Node]:
        ends = {name: edits.constant(graph, name, np.array([number])) for name, number in _ENDS.items()}
        first = ir.node("Slice", [value, ends["turn_0"], ends["turn_1"], ends["turn_1"]], name="first_token")
        rest = ir.node("Slice", [value, ends["turn_1"], ends["turn_end"], ends["turn_1"]], name="other_tokens")
        first.outputs[0].name, rest.outputs[0].name = "first_token", "other_tokens"
        joined = ir.node("Concat", [*rest.outputs, *first.outputs], attributes={"axis": 1}, name="turned")
        joined.outputs[0].name = "turned_tokens"
        return [first, rest, joined]

    edits.insert_after(graph, output, turn)


_ENDS = {"turn_0": 0, "turn_1": 1, "turn_end": 2**31}


def _missing_output(graph: ir.Model) -> None:
    del graph.graph.outputs[-1]


def _swapped_outputs(graph: ir.Model) -> None:
    first, second = graph.graph.outputs
    first.name, second.name = "swapping", first.name
    first.name = "image_embeds"


def _bf16_weights(graph: ir.Model) -> None:
    """Matrices are kept in bfloat16 and cast where they are used; the file still says fp32 of itself."""
    for node in edits.nodes(graph, "MatMul"):
        matrix = node.inputs[1]
        if matrix is None or matrix.const_value is None:
            continue
        name = f"{matrix.name}.bf16"
        numbers = matrix.const_value.numpy()
        kept = ir.Value(name=name, const_value=_as_bf16(numbers, name))
        kept.shape, kept.dtype = ir.Shape(numbers.shape), ir.DataType.BFLOAT16
        graph.graph.initializers[name] = kept
        cast = ir.node("Cast", [kept], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{name}.cast")
        cast.outputs[0].name = f"{name}.single"
        graph.graph.insert_before(node, cast)
        node.replace_input_with(1, cast.outputs[0])
        del graph.graph.initializers[matrix.name or ""]


def _as_bf16(numbers: Any, name: str) -> ir.TensorProtocol:
    import torch

    return ir.tensor(torch.from_numpy(numbers.copy()).bfloat16(), name=name)


def _other_cubic(graph: ir.Model) -> None:
    """Keys' a is -0.5 for -0.75, in the arithmetic that resamples positions inside the graph."""
    wrong = {-0.75: -0.5, 1.25: 1.5, 2.25: 2.5}
    for name, value in graph.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.size == 1 and tensor.dtype == ir.DataType.FLOAT:
            number = float(tensor.numpy().reshape(()))
            if number in wrong:
                edits.set_weight(graph, name, np.full_like(tensor.numpy(), wrong[number]))


def _positions_in_the_graph(bench: Workbench) -> Case:
    subject = bench.subject("dinov2")
    spec = bench.spec(subject.model, ("embedding",), any_size=True)
    return bench.edited(Case(subject, bench.export(subject.model, "onnx", spec)), _other_cubic)


def _batch_baked_in(bench: Workbench) -> Case:
    """Made for one image, and declared for any number of them."""
    subject = bench.subject("vit")
    fixed = bench.export(subject.model, "onnx", bench.spec(subject.model, batch=BatchRange(1, 1, 1)))
    return Case(subject, replace(fixed, spec=bench.spec(subject.model)))


def _wrong_pass(bench: Workbench) -> Case:
    """The pass that joins attention's heads forgets that the scale is that of one head."""
    from vit_deploy.graph import pipeline

    right = pipeline.attend_in_three_dimensions

    def wrong(graph: ir.Model) -> None:
        right(graph)
        for node in edits.nodes(graph, "Attention"):
            edits.set_attribute(node, "scale", 1 / 192**0.5)

    bench.patch(pipeline, "attend_in_three_dimensions", wrong)
    subject = bench.subject("vit")
    return Case(subject, bench.export(subject.model))


def _half_norms(bench: Workbench) -> Case:
    """LayerNorm taken apart and computed in float16, where squares overflow."""
    subject = bench.subject("massive")
    return half_torchscript(bench, subject, "fp16", layer_norm_in_half)


_LOST_IN_ROUNDING = (
    "the variance before the last norm is some ten: 9e-6 beside it changes the outputs by less than honest "
    "rounding in float32 does"
)

FAULTS: tuple[Fault, ...] = (
    _fault("softmax scale of one block", "vit", "blocks.8.attn", _other_scale),
    _fault("causal mask left on", "vit", "blocks.0.attn", _causal),
    _fault("six heads for three in one block", "vit", "blocks.2.attn", _other_heads),
    _fault("GELU in its tanh form in the last block", "vit", "blocks.11.mlp", _last_gelu),
    _fault("softmax along the wrong axis in one block", "vit", "blocks.1.attn", _softmax_axis, opset=17),
    _fault("eps of the last LayerNorm", "vit", "logits", _last_eps, missed=_LOST_IN_ROUNDING),
    _fault("bias of one LayerNorm lost", "vit", "blocks.3.mlp", _lost_norm_bias),
    _fault("one residual connection lost", "vit", "blocks.9.attn", _lost_residual),
    _fault("activations of one block through fp16", "vit", "blocks.6.mlp", _through_half, stage="precision"),
    _fault("patches column by column", "vit", "embed", _column_by_column),
    _fault("class token last", "dinov2", "tokens", _class_token_last),
    _fault("an output missing", "dinov2", "", _missing_output),
    _fault(
        "two outputs of a shape swapped", "clip", "embedding", _swapped_outputs, "embedding", "image_embeds"
    ),
    _fault(
        "matrices in bf16 where fp32 was declared", "vit", "blocks.0.attn", _bf16_weights, stage="precision"
    ),
    Fault("cubic coefficient in a graph of any size", "graph", "dinov2", "export", "", _positions_in_the_graph),
    Fault("batch baked in", "graph", "vit", "export", "", _batch_baked_in),
    Fault("a pass that sets a wrong scale", "graph", "vit", "pass", "blocks.0.attn", _wrong_pass),
    Fault("LayerNorm taken apart in fp16", "graph", "massive", "precision", "blocks.2.attn", _half_norms),
)
