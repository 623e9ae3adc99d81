"""A graph without its roundings: half precision raised to float32, quantisation of activations taken out.

What is left computes what the graph is meant to compute, so that an error that goes away with the roundings
is one of precision, and one that stays is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

_DTYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision")
"""The attributes of ONNX operators that name the dtype of a result, or of what leads to it."""


def without_roundings(model: ir.Model) -> ir.Model | None:
    """A copy of the graph without its roundings, or ``None`` where it has none.

    Inputs and outputs in half precision become float32 as well. Weights that are stored as whole numbers stay
    so: their scales are a part of what a file says. Tensors are shared with ``model``, and converted when they
    are read.
    """
    copy = model.clone()
    changed = _drop_quantisation(copy)
    for value in _values(copy):
        changed |= _raise_value(value)
    for node in _nodes(copy):
        changed |= _raise_attributes(node)
    return copy if changed else None


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from graph.inputs
        yield from graph.initializers.values()
    for node in _nodes(model):
        yield from node.outputs


def _is_half(dtype: ir.DataType | None) -> bool:
    import onnx_ir as ir

    return dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _raise_value(value: ir.Value) -> bool:
    import onnx_ir as ir

    tensor = value.const_value
    if tensor is not None and _is_half(tensor.dtype):
        value.const_value = raised(tensor)
        value.type = ir.TensorType(ir.DataType.FLOAT)
        return True
    if value.type is not None and _is_half(value.dtype):
        value.type = ir.TensorType(ir.DataType.FLOAT)
        return True
    return False


def raised(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    """A tensor in half precision as float32, converted when it is read."""
    import onnx_ir as ir

    def read() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype("float32"), name=tensor.name)

    return ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=tensor.shape, name=tensor.name)  # type: ignore[arg-type]


def _raise_attributes(node: ir.Node) -> bool:
    import onnx_ir as ir

    halves = (ir.DataType.FLOAT16.value, ir.DataType.BFLOAT16.value)
    changed = False
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR and _is_half(attribute.value.dtype):
            plain = ir.tensor(attribute.value.numpy().astype("float32"))
            node.attributes.add(ir.AttrTensor(name, plain))
            changed = True
        elif name in _DTYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT and attribute.value in halves:
            node.attributes.add(ir.AttrInt64(name, ir.DataType.FLOAT.value))
            changed = True
    return changed


def _drop_quantisation(model: ir.Model) -> bool:
    """Take out each ``QuantizeLinear`` that a ``DequantizeLinear`` follows: activations stay as they are."""
    import onnx_ir as ir

    changed = False
    for node in list(model.graph):
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        quantise = stored.producer() if stored is not None else None
        source = quantise.inputs[0] if quantise is not None and quantise.op_type == "QuantizeLinear" else None
        if source is None or node.outputs[0].is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        changed = True
    return changed
