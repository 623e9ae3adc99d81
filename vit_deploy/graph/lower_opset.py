"""From opset 23 down to 17: only what those opsets lack is spelled out.

``Attention`` (opset 23) becomes its two products and a ``Softmax``; ``Gelu`` (opset 20) its exact
form with ``Erf`` or the other with ``Tanh``; reductions (opset 18) name their axes in an attribute.
Every other operator of a captured ViT means the same from 17 to 23.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.attention import HEADS_FIRST
from vit_deploy.graph.constant import constant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_ir as ir

ATTENTION_OPSET = 23
GELU_OPSET = 20
REDUCTION_OPSET = 18


def lower_opset(model: ir.Model, opset: int) -> None:
    """Lower a graph captured at opset 23 to ``opset``, in place.

    Raises:
        ExportFailed: for an ``Attention`` in a form that is not ours to lower.
    """
    import onnx_ir.passes.common as common

    for node in list(model.graph):
        if node.op_type == "Attention" and opset < ATTENTION_OPSET:
            _lower_attention(model, node)
        elif node.op_type == "Gelu" and opset < GELU_OPSET:
            _lower_gelu(model, node)
        elif node.op_type in {"ReduceMean", "ReduceMax"} and opset < REDUCTION_OPSET:
            _lower_reduction(node)
        elif node.op_type == "Split":
            _explicit_split(model, node)
    model.graph.opset_imports[""] = opset
    common.RemoveUnusedNodesPass()(model)  # what was an input may have become an attribute


class _Tape:
    """Puts nodes before another one, with names made from its name."""

    def __init__(self, model: ir.Model, before: ir.Node) -> None:
        self.model = model
        self.before = before
        self.count = 0

    def __call__(
        self, op_type: str, inputs: Sequence[ir.Value], shape: Iterable[object] | None, **attributes: object
    ) -> ir.Value:
        import onnx_ir as ir

        self.count += 1
        name = f"{self.before.outputs[0].name}/{op_type.lower()}_{self.count}"
        node = ir.node(op_type, list(inputs), attributes=attributes, name=name)  # type: ignore[arg-type]
        output = node.outputs[0]
        output.name = name
        output.type = self.before.outputs[0].type
        output.shape = None if shape is None else ir.Shape(shape)  # type: ignore[arg-type]
        self.model.graph.insert_before(self.before, node)
        return output

    def constant(self, value: object, dtype: str, name: str) -> ir.Value:
        return constant(self.model, name, value, dtype)

    def replace(self, result: ir.Value) -> None:
        import onnx_ir as ir

        old = self.before.outputs[0]
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        self.model.graph.remove(self.before, safe=True)


def _lower_attention(model: ir.Model, node: ir.Node) -> None:
    """Over ``(b, n, d)`` with a number of heads, or over ``(b, k, n, dh)``; a bias is added to the scores."""
    query, key, value, bias = (*node.inputs[:4], None)[:4]
    known = all(entry is None for entry in node.inputs[4:]) and not node.attributes.get_int("is_causal", 0)
    if not known or query is None or key is None or value is None or query.shape is None or key.shape is None:
        raise ExportFailed(
            f"the Attention node {node.name!r} is not that of a ViT",
            expected="an Attention with q, k, v and at most a bias, their shapes known",
            next_command="export with --opset 23",
        )
    tape = _Tape(model, node)
    heads = node.attributes.get_int("q_num_heads", 0)
    batch, tokens, keys = query.shape[0], query.shape[-2], key.shape[-2]
    count = heads or int(query.shape[1])  # type: ignore[arg-type]
    width = int(query.shape[-1]) // (heads or 1)  # type: ignore[arg-type]
    factor = tape.constant(
        node.attributes.get_float("scale", 1 / math.sqrt(width)), "float32", f"softmax_scale_{width}"
    )
    scaled = tape("Mul", [query, factor], query.shape)
    if heads:
        scaled = _with_heads(tape, scaled, heads, HEADS_FIRST)
        turned = _with_heads(tape, key, heads, (0, 2, 3, 1))
        value = _with_heads(tape, value, heads, HEADS_FIRST)
    else:
        turned = tape("Transpose", [key], [batch, count, width, keys], perm=[0, 1, 3, 2])
    square = [batch, count, tokens, keys]
    scores = tape("MatMul", [scaled, turned], square)
    if bias is not None:
        scores = tape("Add", [scores, bias], square)
    weights = tape("Softmax", [scores], square, axis=-1)
    mixed = tape("MatMul", [weights, value], [batch, count, tokens, width])
    if heads:
        merge = tape.constant([0, 0, -1], "int64", "shape_merge_heads")
        together = tape("Transpose", [mixed], [batch, tokens, count, width], perm=list(HEADS_FIRST))
        mixed = tape("Reshape", [together, merge], query.shape)
    tape.replace(mixed)


def _with_heads(tape: _Tape, source: ir.Value, heads: int, order: tuple[int, ...]) -> ir.Value:
    """``(b, n, d)`` cut into heads and transposed."""
    shape = tuple(source.shape or ())
    apart = [*shape[:2], heads, int(shape[2]) // heads]  # type: ignore[arg-type]
    split = tape.constant([0, 0, *apart[2:]], "int64", f"shape_split_{heads}_heads")
    cut = tape("Reshape", [source, split], apart)
    return tape("Transpose", [cut], [apart[axis] for axis in order], perm=list(order))


def _lower_gelu(model: ir.Model, node: ir.Node) -> None:
    source = node.inputs[0]
    if source is None:
        raise ExportFailed(f"the Gelu node {node.name!r} has no input")
    tape = _Tape(model, node)
    one = tape.constant(1.0, "float32", "one")
    half = tape.constant(0.5, "float32", "half")
    if node.attributes.get_string("approximate", "none") == "tanh":
        curve = tape("Tanh", [_tanh_argument(tape, source, one)], source.shape)
    else:
        root = tape.constant(math.sqrt(2), "float32", "sqrt_2")
        curve = tape("Erf", [tape("Div", [source, root], source.shape)], source.shape)
    product = tape("Mul", [source, tape("Add", [curve, one], source.shape)], source.shape)
    tape.replace(tape("Mul", [product, half], source.shape))


def _tanh_argument(tape: _Tape, x: ir.Value, one: ir.Value) -> ir.Value:
    """``sqrt(2/pi) x (1 + 0.044715 x^2)`` (Hendrycks & Gimpel, https://arxiv.org/abs/1606.08415)."""
    cubic = tape.constant(0.044715, "float32", "gelu_cubic")
    factor = tape.constant(math.sqrt(2 / math.pi), "float32", "sqrt_2_over_pi")
    square = tape("Mul", [tape("Mul", [x, x], x.shape), cubic], x.shape)
    grown = tape("Mul", [x, tape("Add", [square, one], x.shape)], x.shape)
    return tape("Mul", [grown, factor], x.shape)


def _lower_reduction(node: ir.Node) -> None:
    """The axes, an input from opset 18 on, become an attribute."""
    import onnx_ir as ir

    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is None or axes.const_value is None:
        raise ExportFailed(
            f"the {node.op_type} node {node.name!r} has no constant axes", next_command="use --opset 18"
        )
    node.attributes.add(ir.AttrInt64s("axes", axes.const_value.numpy().tolist()))
    node.attributes.pop("noop_with_empty_axes", None)
    node.resize_inputs(1)


def _explicit_split(model: ir.Model, node: ir.Node) -> None:
    """Equal parts are written as sizes: ``num_outputs`` came with opset 18, and sizes are valid in all."""
    source = node.inputs[0]
    if "num_outputs" not in node.attributes or source is None or source.shape is None:
        return
    axis = node.attributes.get_int("axis", 0)
    size = source.shape[axis]
    parts = len(node.outputs)
    if not isinstance(size, int) or size % parts:
        return
    sizes = constant(model, f"split_{parts}x{size // parts}", [size // parts] * parts, "int64")
    node.resize_inputs(2)
    node.replace_input_with(1, sizes)
    node.attributes.pop("num_outputs")
