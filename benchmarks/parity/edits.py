"""Small edits of ONNX graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


def nodes(model: ir.Model, operator: str) -> list[ir.Node]:
    """The nodes of one operator, in the order of computation."""
    return [node for node in model.graph if node.op_type == operator]


def set_attribute(node: ir.Node, name: str, value: float | int | str) -> None:
    """Give a node an attribute, in place of the one it has."""
    node.attributes[name] = ir.convenience.convert_attribute(name, value)


def weight(model: ir.Model, name: str) -> NDArray[Any]:
    """A copy of an initializer's numbers."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy().copy()


def set_weight(model: ir.Model, name: str, numbers: NDArray[Any]) -> None:
    """Other numbers for an initializer, of the same dtype."""
    old = model.graph.initializers[name]
    assert old.dtype is not None
    old.const_value = ir.tensor(numbers, dtype=old.dtype, name=name)


def constant(model: ir.Model, name: str, numbers: NDArray[np.generic]) -> ir.Value:
    """A new initializer."""
    value = ir.Value(name=name, const_value=ir.tensor(numbers, name=name))
    value.shape, value.dtype = ir.Shape(numbers.shape), value.const_value.dtype
    model.graph.initializers[name] = value
    return value


def insert_after(
    model: ir.Model, value: ir.Value, make: Callable[[ir.Value], list[ir.Node]], behind: ir.Node | None = None
) -> None:
    """Put nodes behind a value: all that used it uses the last node's output.

    Args:
        model: is changed.
        value: an output of a node.
        make: gives the nodes for the value, in order.
        behind: the node to stand behind, where that is not the value's own.
    """
    users = list(value.uses())
    made = make(value)
    model.graph.insert_after(behind or value.producer(), made)
    result = made[-1].outputs[0]
    result.dtype, result.shape = value.dtype, value.shape
    for user, index in users:
        user.replace_input_with(index, result)
    for place, output in enumerate(model.graph.outputs):
        if output is value:
            name, value.name = value.name, f"{value.name}_before"
            result.name = name
            model.graph.outputs[place] = result


def bypass(node: ir.Node, kept: int) -> None:
    """Take a node out: those that used its output use its input number ``kept``."""
    source = node.inputs[kept]
    assert source is not None
    for user, index in list(node.outputs[0].uses()):
        user.replace_input_with(index, source)
