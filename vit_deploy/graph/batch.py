"""The one piece of shape arithmetic a ViT needs: the class token repeated for each sample.

The exporter reads the batch as a scalar and makes a vector of it again for each use. Its vector
form is used directly, a reshape with one free dimension gets a constant target with -1 there, and a
reshape or slice that changes nothing is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.graph.constant import constant

if TYPE_CHECKING:
    import onnx_ir as ir


def shorten_batch_arithmetic(model: ir.Model) -> int:
    """Drop shape arithmetic that changes nothing; returns how many nodes went."""
    import onnx_ir as ir
    import onnx_ir.passes.common as common

    before = len(model.graph)
    for node in list(model.graph):
        _fix_target(model, node)
        source = _vector_again(node) or _unchanged(node)
        if source is not None:
            ir.convenience.replace_all_uses_with(node.outputs[0], source)
    common.RemoveUnusedNodesPass()(model)
    return before - len(model.graph)


def _fix_target(model: ir.Model, node: ir.Node) -> None:
    """A ``Reshape`` whose result has at most one free dimension needs no computed target."""
    shape = node.outputs[0].shape
    target = node.inputs[1] if node.op_type == "Reshape" else None
    if target is None or target.const_value is not None or shape is None:
        return
    sizes = [dim if isinstance(dim, int) else -1 for dim in shape]
    if sizes.count(-1) > 1 or 0 in sizes:
        return
    name = "shape_" + "x".join("b" if size == -1 else str(size) for size in sizes)
    node.replace_input_with(1, constant(model, name, sizes, "int64"))
    node.attributes.pop("allowzero", None)


def _vector_again(node: ir.Node) -> ir.Value | None:
    """``Reshape(Squeeze(v), [-1])`` of a vector of one element is that vector."""
    if node.op_type != "Reshape" or node.inputs[0] is None:
        return None
    squeeze = node.inputs[0].producer()
    target = node.inputs[1].const_value if node.inputs[1] is not None else None
    if squeeze is None or squeeze.op_type != "Squeeze" or target is None:
        return None
    shape = squeeze.inputs[0].producer() if squeeze.inputs[0] is not None else None
    if shape is None or shape.op_type != "Shape" or target.numpy().tolist() != [-1]:
        return None
    start = shape.attributes.get_int("start", 0)
    end = shape.attributes.get_int("end", start)
    return squeeze.inputs[0] if end - start == 1 else None


def _unchanged(node: ir.Node) -> ir.Value | None:
    """The input of a ``Reshape``, ``Slice`` or ``Expand`` whose output has its very shape."""
    source = node.inputs[0] if node.inputs else None
    if node.op_type not in {"Reshape", "Slice", "Expand"} or source is None:
        return None
    before, after = source.shape, node.outputs[0].shape
    if before is None or after is None or len(before) != len(after) or node.outputs[0].is_graph_output():
        return None
    free = [dim for dim in before if not isinstance(dim, int)]
    return source if tuple(before) == tuple(after) and len(free) <= 1 else None
