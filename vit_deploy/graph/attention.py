"""Attention over ``(b, n, d)``: opset 23's ``Attention`` splits and merges the heads itself.

PyTorch's exporter reshapes and transposes q, k and v to ``(b, k, n, dh)`` and back around every
``Attention``. Given the 3-D form and ``q_num_heads`` the operator does that inside, which leaves
eight nodes fewer a block and no transposes for a runtime to carry out
(https://onnx.ai/onnx/operators/onnx__Attention.html).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

HEADS_FIRST = (0, 2, 1, 3)


def attend_in_three_dimensions(model: ir.Model) -> int:
    """Rewrite each 4-D ``Attention`` whose heads were split just for it; returns how many.

    Shape arithmetic has to be gone by then: a ``Shape`` of the heads is a use of them.
    """
    import onnx_ir.passes.common as common

    count = sum(_rewrite(node) for node in list(model.graph) if node.op_type == "Attention")
    common.RemoveUnusedNodesPass()(model)
    return count


def _rewrite(node: ir.Node) -> bool:
    import onnx_ir as ir

    sources = [_before_heads(value) for value in node.inputs[:3]]
    merged = _after_heads(node.outputs[0])
    if merged is None or any(source is None for source in sources) or "q_num_heads" in node.attributes:
        return False
    flat = [source for source in sources if source is not None]
    heads = flat[0][1]
    for index, (value, _) in enumerate(flat):
        node.replace_input_with(index, value)
    node.attributes.add(ir.AttrInt64("q_num_heads", heads))
    node.attributes.add(ir.AttrInt64("kv_num_heads", flat[1][1]))
    result = node.outputs[0]
    result.shape = merged.shape
    result.type = merged.type
    ir.convenience.replace_all_uses_with(merged, result, replace_graph_outputs=True)
    return True


def _before_heads(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """What ``Reshape`` and ``Transpose`` to ``(b, k, n, dh)`` were applied to, and ``k``."""
    transpose = value.producer() if value is not None else None
    if transpose is None or not _swaps_heads(transpose):
        return None
    split = transpose.inputs[0]
    reshape = split.producer() if split is not None else None
    if split is None or reshape is None or reshape.op_type != "Reshape":
        return None
    source = reshape.inputs[0]
    if source is None or source.shape is None or split.shape is None:
        return None
    if len(source.shape) != 3 or len(split.shape) != 4 or not isinstance(split.shape[2], int):
        return None
    # Heads may be split off the last axis only: a module may cut its tokens up on the way.
    return (source, split.shape[2]) if source.shape[:2] == split.shape[:2] else None


def _after_heads(value: ir.Value) -> ir.Value | None:
    """The ``(b, n, d)`` that heads are merged to, when nothing else uses them apart."""
    nodes = value.consumers()
    if value.is_graph_output() or len(nodes) != 1 or not _swaps_heads(nodes[0]):
        return None
    apart = nodes[0].outputs[0]
    nodes = apart.consumers()
    if apart.is_graph_output() or len(nodes) != 1 or nodes[0].op_type != "Reshape":
        return None
    merged = nodes[0].outputs[0]
    if merged.shape is None or apart.shape is None or len(merged.shape) != 3:
        return None
    return merged if merged.shape[:2] == apart.shape[:2] else None


def _swaps_heads(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and tuple(node.attributes.get_ints("perm", ())) == HEADS_FIRST
