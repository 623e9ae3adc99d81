"""Give every node of a graph its dtype, with as few Casts as there are borders between dtypes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vit_deploy.graph.half_rules import PRODUCTS, STASHED
from vit_deploy.graph.half_weights import in_half

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.graph.half_rules import Rules

SHORT = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64"}
"""Our names, which those of added values end on."""


@dataclass
class Recast:
    """What was done to a graph.

    Attributes:
        casts: Casts that were added.
        products: number of nodes of :data:`PRODUCTS` in the network, by what they compute in.
        weights: initializers of the network by dtype; one that is needed in both counts twice.
    """

    casts: int = 0
    products: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)


class Caster:
    """Walks a graph once, node by node.

    Args:
        model: changed in place.
        rules: say what each node computes in.
        io: the dtype of fp32 inputs and outputs from now on.
    """

    def __init__(self, model: ir.Model, rules: Rules, io: ir.DataType) -> None:
        self._model = model
        self._rules = rules
        self._io = io
        self._now: dict[ir.Value, ir.DataType] = {}
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._asked: defaultdict[ir.Value, dict[ir.DataType, list[tuple[ir.Node, int]]]] = defaultdict(dict)
        self.done = Recast()

    def run(self) -> Recast:
        """Cast what has to be cast, and halve the weights of what computes in half precision."""
        import onnx_ir as ir

        for value in self._model.graph.inputs:
            if value.dtype == ir.DataType.FLOAT:
                self._set(value, self._io)
        for node in list(self._model.graph):
            self._retype(node)
        for value, asked in self._asked.items():
            self._settle(value, asked)
        for place, value in enumerate(self._model.graph.outputs):
            self._close(place, value)
        return self.done

    def _retype(self, node: ir.Node) -> None:
        import onnx_ir as ir

        rules = self._rules
        if not rules.lowers(node):
            self._leave(node)
            return
        dtype = rules.dtype(node, self._now)
        castable = rules.operands(node) if dtype != ir.DataType.FLOAT else []
        changing = rules.results(node) if dtype != ir.DataType.FLOAT else []
        for place in rules.floats(node):
            self._feed(node, place, dtype if place in castable else ir.DataType.FLOAT)
        for place, value in enumerate(node.outputs):
            self._set(value, dtype if place in changing else rules.before(value))
        if node.op_type in PRODUCTS and node in rules.network:
            name = SHORT[dtype.name]
            self.done.products[name] = self.done.products.get(name, 0) + 1
        if node.op_type in STASHED:
            node.attributes.add(ir.AttrInt64("stash_type", ir.DataType.FLOAT.value))

    def _leave(self, node: ir.Node) -> None:
        """A node that stays as it is; its weights are not for halving."""
        import onnx_ir as ir

        for place in self._rules.floats(node):
            value = node.inputs[place]
            if value is not None and value.const_value is not None:
                self._feed(node, place, ir.DataType.FLOAT)
        for value in node.outputs:
            self._set(value, self._rules.before(value))

    def _set(self, value: ir.Value, dtype: ir.DataType | None) -> None:
        import onnx_ir as ir

        if dtype is None:
            return
        self._now[value] = dtype
        value.type = ir.TensorType(dtype)

    def _feed(self, node: ir.Node, place: int, dtype: ir.DataType) -> None:
        """Have an operand in a dtype."""
        value = node.inputs[place]
        if value is None:
            return
        if value.const_value is not None:
            self._asked[value].setdefault(dtype, []).append((node, place))
        elif self._now.get(value, dtype) != dtype:
            node.replace_input_with(place, self._cast(value, dtype, node))

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        if (value, dtype) not in self._made:
            node = self._cast_node(value, dtype)
            self._model.graph.insert_before(before, node)
            self._made[value, dtype] = node.outputs[0]
        return self._made[value, dtype]

    def _cast_node(self, value: ir.Value, dtype: ir.DataType) -> ir.Node:
        import onnx_ir as ir

        name = f"{value.name}/{SHORT[dtype.name]}"
        node = ir.node("Cast", [value], attributes={"to": dtype.value}, name=name)
        result = node.outputs[0]
        result.name, result.shape, result.type = name, value.shape, ir.TensorType(dtype)
        self._now[result] = dtype
        self.done.casts += 1
        return node

    def _settle(self, value: ir.Value, asked: dict[ir.DataType, list[tuple[ir.Node, int]]]) -> None:
        """Give an initializer the dtype that it is asked for; one that is asked for in two has a twin."""
        import onnx_ir as ir

        for dtype in asked:
            name = SHORT[dtype.name]
            self.done.weights[name] = self.done.weights.get(name, 0) + 1
        half = next((dtype for dtype in asked if dtype != ir.DataType.FLOAT), None)
        if half is None:
            return
        tensor = in_half(value, half)
        if len(asked) == 1:
            value.const_value, value.type = tensor, ir.TensorType(half)
            return
        twin = ir.Value(
            name=f"{value.name}.{SHORT[half.name]}",
            shape=value.shape,
            type=ir.TensorType(half),
            const_value=tensor,
        )
        tensor.name = twin.name
        self._model.graph.register_initializer(twin)
        for node, place in asked[half]:
            node.replace_input_with(place, twin)

    def _close(self, place: int, value: ir.Value) -> None:
        """Have an output in its dtype, under its own name."""
        import onnx_ir as ir

        graph = self._model.graph
        if self._rules.before(value) != ir.DataType.FLOAT or self._now[value] == self._io:
            return
        name = value.name
        value.name = f"{name}/{SHORT[self._now[value].name]}"
        node = self._cast_node(value, self._io)
        node.outputs[0].name = name
        graph.append(node)
        graph.outputs[place] = node.outputs[0]
