"""Fold what is constant, and drop what is unused: onnxscript's optimiser, kept away from the weights.

PyTorch's exporter emits shape arithmetic around every reshape and a sequence for every split.
onnxscript's folding turns them into constant shapes and ``Split``. It would also read, transpose
and compare the weights, so it is told to leave every node alone that takes one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.graph.capture import is_unread

if TYPE_CHECKING:
    import onnx_ir as ir


def fold_constants(model: ir.Model) -> None:
    """Fold constants in place; weights are not read."""
    import onnx_ir.passes.common as common
    from onnxscript.optimizer import fold_constants as fold

    fold(model, onnx_shape_inference=False, should_fold=_has_no_weight)
    for step in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.CommonSubexpressionEliminationPass(),
    ):
        step(model)
    _merge_equal_constants(model)
    common.RemoveUnusedNodesPass()(model)


def _has_no_weight(node: ir.Node) -> bool | None:
    weights = (value for value in node.inputs if value is not None and value.const_value is not None)
    # None leaves the decision to onnxscript's own rules.
    return False if any(is_unread(value.const_value) for value in weights) else None


def _merge_equal_constants(model: ir.Model) -> None:
    """One initializer for equal small constants, such as the shape every block reshapes to."""
    import onnx_ir as ir

    seen: dict[tuple[object, ...], ir.Value] = {}
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or is_unread(tensor) or value.is_graph_output():
            continue
        key = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
        kept = seen.setdefault(key, value)
        if kept is not value:
            ir.convenience.replace_all_uses_with(value, kept)
            del model.graph.initializers[value.name or ""]
