"""From opset 23 down to 17: only what those opsets lack is spelled out.

``Attention`` (opset 23) becomes its two products and a ``Softmax``; ``Gelu`` (opset 20) its exact
form with ``Erf``. Every other operator of a captured ViT means the same from 17 to 23.
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


def lower_opset(model: ir.Model, opset: int) -> None:
    """Lower a graph captured at opset 23 to ``opset``, in place.

    Raises:
        ExportFailed: for an ``Attention`` in a form that is not ours to lower.
    """
    for node in list(model.graph):
        if node.op_type == "Attention" and opset < ATTENTION_OPSET:
            _lower_attention(model, node)
        elif node.op_type == "Gelu" and opset < GELU_OPSET:
            _lower_gelu(model, node)
        elif node.op_type == "Split":
            _explicit_split(model, node)
    model.graph.opset_imports[""] = opset


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
    query, key, value = node.inputs[:3]
    heads = node.attributes.get_int("q_num_heads", 0)
    plain = heads and len([entry for entry in node.inputs if entry is not None]) == 3
    if not plain or query is None or key is None or value is None or query.shape is None:
        raise ExportFailed(
            f"the Attention node {node.name!r} is not plain self-attention over (b, n, d)",
            expected="an Attention with q, k and v of three dimensions",
            next_command="export with --opset 23",
        )
    batch, tokens, dim = query.shape
    width = int(dim) // heads  # type: ignore[arg-type]
    tape = _Tape(model, node)
    split = tape.constant([0, 0, heads, width], "int64", f"shape_split_{heads}_heads")
    merge = tape.constant([0, 0, -1], "int64", "shape_merge_heads")
    scale = node.attributes.get_float("scale", 1 / math.sqrt(width))
    factor = tape.constant(scale, "float32", f"softmax_scale_{width}")

    def with_heads(source: ir.Value, order: tuple[int, ...], shape: list[object]) -> ir.Value:
        apart = tape("Reshape", [source, split], [batch, tokens, heads, width])
        return tape("Transpose", [apart], shape, perm=list(order))

    per_query = with_heads(
        tape("Mul", [query, factor], query.shape), HEADS_FIRST, [batch, heads, tokens, width]
    )
    per_key = with_heads(key, (0, 2, 3, 1), [batch, heads, width, tokens])
    per_value = with_heads(value, HEADS_FIRST, [batch, heads, tokens, width])
    square = [batch, heads, tokens, tokens]
    weights = tape("Softmax", [tape("MatMul", [per_query, per_key], square)], square, axis=-1)
    mixed = tape("MatMul", [weights, per_value], [batch, heads, tokens, width])
    together = tape("Transpose", [mixed], [batch, tokens, heads, width], perm=list(HEADS_FIRST))
    tape.replace(tape("Reshape", [together, merge], query.shape))


def _lower_gelu(model: ir.Model, node: ir.Node) -> None:
    source = node.inputs[0]
    if source is None or node.attributes.get_string("approximate", "none") != "none":
        raise ExportFailed(f"the Gelu node {node.name!r} is not the exact one", next_command="use --opset 20")
    tape = _Tape(model, node)
    root = tape.constant(math.sqrt(2), "float32", "sqrt_2")
    one = tape.constant(1.0, "float32", "one")
    half = tape.constant(0.5, "float32", "half")
    bell = tape("Erf", [tape("Div", [source, root], source.shape)], source.shape)
    product = tape("Mul", [source, tape("Add", [bell, one], source.shape)], source.shape)
    tape.replace(tape("Mul", [product, half], source.shape))


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
