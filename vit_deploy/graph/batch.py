"""The arithmetic on shapes that a ViT does not need, and the little that it does.

It needs the batch, to repeat the class token for each sample, and the size of the picture where that
is free. The exporter reads each as a scalar and makes a vector of it again for each use: its vector
form is used directly. A reshape gets a constant target, in which 0 copies a dimension and -1 takes
what is left, and a reshape or slice that changes nothing is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.graph.constant import constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    Size = int | ir.SymbolicDim


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
    """A ``Reshape`` needs no computed target where each free dimension but one stays where it is."""
    shape = node.outputs[0].shape
    target = node.inputs[1] if node.op_type == "Reshape" else None
    if target is None or target.const_value is not None or shape is None:
        return
    sizes = _target(tuple(node.inputs[0].shape or ()) if node.inputs[0] else (), tuple(shape))
    if sizes is None:
        return
    name = "shape_" + "x".join({-1: "rest", 0: "same"}.get(size, str(size)) for size in sizes)
    node.replace_input_with(1, constant(model, name, sizes, "int64"))
    node.attributes.pop("allowzero", None)


def _target(before: Sequence[Size], after: Sequence[Size]) -> list[int] | None:
    """A constant target for a ``Reshape``: 0 copies a dimension, -1 takes what is left; or none."""
    if 0 in after:
        return None
    free = [axis for axis, dim in enumerate(after) if not isinstance(dim, int)]
    kept = [axis for axis in free if axis < len(before) and _same(before[axis], after[axis])]
    moved = [axis for axis in free if axis not in kept]
    if len(moved) > 1:
        return None
    rest = (moved or free[:1])[:1]
    return [dim if isinstance(dim, int) else -1 if axis in rest else 0 for axis, dim in enumerate(after)]


def _same(left: Size, right: Size) -> bool:
    """Whether two dimensions are known to be one; two that have no name are not."""
    if isinstance(left, int) or isinstance(right, int):
        return left == right
    return left.value is not None and left == right


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
    if node.op_type == "Slice" and not _steps_of_one(node):
        return None
    return source if all(map(_same, before, after)) else None


def _steps_of_one(node: ir.Node) -> bool:
    """Whether a ``Slice`` keeps the order: one that turns it around gives the very shape too."""
    steps = node.inputs[4] if len(node.inputs) > 4 else None
    if steps is None:
        return True
    return steps.const_value is not None and bool((steps.const_value.numpy() == 1).all())
