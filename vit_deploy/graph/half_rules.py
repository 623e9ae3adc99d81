"""What each node of a graph computes in, when the graph goes to half precision.

Three kinds of nodes are told apart. The *network* is what depends on an input and on a weight: it goes to
half precision. What depends on an input alone (a resize, a normalisation of pixels) and what depends on no
input (positions that are resampled in the graph) stays as it is. Within the network:

- products (:data:`PRODUCTS`) are in half precision: they are where the time goes;
- sums, powers and exponentials (:data:`FP32_OPERATORS`) are in fp32: in fp16 they overflow, in bf16 they lose;
- everything else computes in what it is given, so that few values are cast: in half precision where any
  operand is, in fp32 where all are. A LayerNormalization goes by what it normalises.

Which operands an operator lets us cast, and whether it takes half precision at the graph's opset at all
(``Conv`` takes bfloat16 from opset 22 on), is asked of ONNX's own schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.half_layers import is_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx
    import onnx_ir as ir

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention"})
"""Operators that hold the bulk of the arithmetic."""

FP32_OPERATORS = frozenset(
    {
        *("Softmax", "LogSoftmax", "Exp", "Log", "Softplus", "CumSum"),
        *(
            "ReduceMean",
            "ReduceSum",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSumExp",
            "ReduceProd",
        ),
        *("Pow", "Sqrt", "Reciprocal", "InstanceNormalization", "MeanVarianceNormalization"),
    }
)
"""Operators whose result, or what leads to it, half precision cannot hold."""

STASHED = frozenset({"LayerNormalization", "GroupNormalization", "RMSNormalization"})
"""Operators that say in ``stash_type`` what they compute mean and variance in."""

MOVES = frozenset(
    {
        *("Reshape", "Transpose", "Expand", "Concat", "Split", "Slice", "Gather", "Squeeze", "Unsqueeze"),
        *("Identity", "Flatten", "Tile", "Pad", "Dropout"),
    }
)
"""Operators that only move numbers."""


class Rules:
    """The kinds and the dtypes of a graph's nodes.

    Args:
        model: a finished graph in fp32.
        half: ``FLOAT16`` or ``BFLOAT16``.
        keep: nodes that stay in fp32.
        types: of every value by name, as :func:`inferred_types` gives them.

    Raises:
        ExportFailed: for control flow: what its branches compute in is not to be told from outside.
    """

    def __init__(
        self, model: ir.Model, half: ir.DataType, keep: set[ir.Node], types: Mapping[str, ir.DataType]
    ) -> None:
        self.half = half
        self.keep = keep
        self._types = types
        self._opset = model.graph.opset_imports[""]
        self._word = "tensor(bfloat16)" if half.name == "BFLOAT16" else "tensor(float16)"
        self.fed, self.network = _reach(model)
        branching = sorted({node.op_type for node in model.graph if any(True for _ in _graphs(node))})
        if branching:
            raise ExportFailed(
                f"the graph has control flow ({', '.join(branching)}), which is not taken to half precision",
                expected="a graph without branches and loops",
                next_command="export with --dtype fp32",
            )
        self._floats = {node: self._places(node, castable=False) for node in model.graph}
        self._operands = {node: self._places(node, castable=True) for node in model.graph}
        self._pliant = self._pliant_weights(model)

    def lowers(self, node: ir.Node) -> bool:
        """Whether a node's dtype is for us to choose."""
        return node.op_type not in ("Cast", "CastLike") and (node in self.fed or node in self._pliant)

    def before(self, value: ir.Value) -> ir.DataType | None:
        """The dtype that a value of the fp32 graph had; ``None`` for one that was added since."""
        return self._types.get(value.name or "")

    def floats(self, node: ir.Node) -> list[int]:
        """The places of the operands that were fp32; none of a node that was added since."""
        return self._floats.get(node, [])

    def operands(self, node: ir.Node) -> list[int]:
        """The places of those of them that may be in half precision."""
        return self._operands.get(node, [])

    def unable(self, node: ir.Node) -> bool:
        """Whether ONNX has the node's operator in fp32 but not in half precision."""
        return bool(self.floats(node)) and not self.operands(node)

    def results(self, node: ir.Node) -> list[int]:
        """The places of the results that were fp32 and have the operands' dtype."""
        schema = self._schema(node)
        cast = {_formal(schema.inputs, place).type_str for place in self.operands(node)}
        return [
            place
            for place, value in enumerate(node.outputs)
            if self._was_float(value) and _formal(schema.outputs, place).type_str in cast
        ]

    def dtype(self, node: ir.Node, now: Mapping[ir.Value, ir.DataType]) -> ir.DataType:
        """What a node computes in.

        Args:
            node: one that :meth:`lowers`.
            now: dtypes of the values that nodes before it give, and of the inputs.
        """
        places = self.operands(node)
        if node in self.keep or node.op_type in FP32_OPERATORS or not places:
            return _float()
        if node.op_type in PRODUCTS:
            return self.half if node in self.network else _float()
        if node in self._pliant:
            return self.half
        looked_at = places[:1] if node.op_type in STASHED else places
        operands = [node.inputs[place] for place in looked_at]
        given = [now[value] for value in operands if value is not None and value in now]
        if node in self.network or node.op_type in MOVES:
            return self.half if any(dtype != _float() for dtype in given) else _float()
        return _float()

    def _places(self, node: ir.Node, *, castable: bool) -> list[int]:
        found = [
            place for place, value in enumerate(node.inputs) if value is not None and self._was_float(value)
        ]
        if not castable or not found:
            return found
        schema = self._schema(node)
        return [place for place in found if self._castable(schema, _formal(schema.inputs, place))]

    def _pliant_weights(self, model: ir.Model) -> set[ir.Node]:
        """Nodes that only move weights, for the network alone: they move the halved weight as well."""
        pliant = {
            node
            for node in model.graph
            if node not in self.fed and node.op_type in MOVES and self.operands(node)
        }
        while stiff := {node for node in pliant if not self._is_pliant(node, pliant)}:
            pliant -= stiff
        return pliant

    def _is_pliant(self, node: ir.Node, pliant: set[ir.Node]) -> bool:
        """Whether what a node moves is weights, and goes where half precision is."""
        sources = [node.inputs[place] for place in self.operands(node)]
        users = [use.node for value in node.outputs for use in value.uses()]
        return all(_constant(value) or (value and value.producer() in pliant) for value in sources) and all(
            user in pliant or (user in self.network and user not in self.keep) for user in users
        )

    def _was_float(self, value: ir.Value) -> bool:
        return self.before(value) == _float()

    def _castable(self, schema: onnx.defs.OpSchema, formal: onnx.defs.OpSchema.FormalParameter) -> bool:
        allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
        return self._word in allowed.get(formal.type_str, ())

    def _schema(self, node: ir.Node) -> onnx.defs.OpSchema:
        import onnx

        try:
            return onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        except onnx.defs.SchemaError as error:
            raise ExportFailed(
                f"the operator {node.op_type} is none of ONNX's at opset {self._opset}",
                next_command="export with --dtype fp32",
            ) from error


def inferred_types(model: ir.Model) -> dict[str, ir.DataType]:
    """The dtype of every value by name, as ONNX infers it; no weight is read."""
    import onnx
    import onnx_ir as ir

    from vit_deploy.graph.stream import skeleton

    proto = onnx.shape_inference.infer_shapes(skeleton(model, weights_as_inputs=True), data_prop=True)
    found = {entry.name: entry.data_type for entry in proto.graph.initializer}
    for entry in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        found[entry.name] = entry.type.tensor_type.elem_type
    return {name: ir.DataType(number) for name, number in found.items() if number}


def _reach(model: ir.Model) -> tuple[set[ir.Node], set[ir.Node]]:
    """The nodes that depend on an input's numbers, and those of them that depend on a weight too."""
    import onnx_ir as ir

    fed_values, network_values = set(model.graph.inputs), set[ir.Value]()
    fed, network = set[ir.Node](), set[ir.Node]()
    for node in model.graph:
        given = {value for value in node.inputs if value is not None}
        if node.op_type in ("Shape", "Size") or not given & fed_values:
            continue
        fed.add(node)
        fed_values.update(node.outputs)
        if given & network_values or any(map(is_weight, given)):
            network.add(node)
            network_values.update(node.outputs)
    return fed, network


def _graphs(node: ir.Node) -> Iterable[object]:
    import onnx_ir as ir

    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return (attribute for attribute in node.attributes.values() if attribute.type in kinds)


def _constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _formal(
    parameters: Iterable[onnx.defs.OpSchema.FormalParameter], place: int
) -> onnx.defs.OpSchema.FormalParameter:
    """The parameter at a place; the last one may stand for many."""
    known = list(parameters)
    return known[min(place, len(known) - 1)]


def _float() -> ir.DataType:
    import onnx_ir as ir

    return ir.DataType.FLOAT
