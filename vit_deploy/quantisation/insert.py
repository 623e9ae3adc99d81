"""Quantised products in Q/DQ form: what comes in and its weight are quantised, what is added stays in fp32.

Before each product stand a ``QuantizeLinear`` and a ``DequantizeLinear`` of one scale and zero point 0; its
weight is an 8-bit initializer behind a ``DequantizeLinear`` along the output channels. That is the form which
ONNX Runtime, OpenVINO and TensorRT all turn into products of 8-bit numbers, and that the ONNX specification
gives a meaning without any of them. Two details are for ONNX Runtime's sake:

* it makes an integer product only of a ``DequantizeLinear`` that nothing else reads, and merges those that
  are equal first. So where several products read one tensor, each has a pair of its own, whose scales are one
  spacing of float32 apart;
* it fuses a bias and a ``Gelu`` into an operator whose kernel takes longer than both
  (:func:`part_biases_from_gelu`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.constant import constant
from vit_deploy.quantisation.places import by_source
from vit_deploy.quantisation.weights import QuantisedWeight, lazy_codes, lazy_scales

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    import torch

    from vit_deploy.quantisation.places import Place
    from vit_deploy.quantisation.weights import Kind

PER_CHANNEL_OPSET = 13
FLOAT8_OPSET = 19


def quantise(
    graph: ir.Model,
    places: Sequence[Place],
    scales: Mapping[str, float],
    *,
    weights: Kind,
    keep: frozenset[str] = frozenset(),
    power: Mapping[str, torch.Tensor] | None = None,
    search: bool = True,
) -> dict[str, QuantisedWeight]:
    """Put the Q/DQ pairs into a graph, in place; weights stay unread.

    Args:
        graph: in fp32.
        places: of this graph or of the one that it is a copy of.
        scales: for each source, the value of a step: a threshold over the largest code.
        weights: dtype of the codes, of activations too.
        keep: names of places that stay as they are.
        power: float32 ``(inner,)`` by source: the mean square of what comes in, for the search of scales.
        search: look for smaller scales of weights than the largest magnitude asks for.

    Returns:
        The weights that were quantised, by the name of the place.

    Raises:
        ExportFailed: for a place without a scale, or an opset that has no such quantisation.
    """
    _require_opset(graph, weights)
    nodes = {node.outputs[0].name: node for node in graph.graph}
    made: dict[str, QuantisedWeight] = {}
    for source, readers in by_source([place for place in places if place.name not in keep]).items():
        if source not in scales:
            raise ExportFailed(f"nothing is known of the range of {source!r}, which {readers[0].name} reads")
        for index, place in enumerate(readers):
            node = nodes[place.product]
            quantise_input(graph, node, 0, scales[source], weights, index)
            powers = None if power is None else power.get(source)
            made[place.name] = _quantise_weight(graph, node, place, weights, powers, search=search)
    return made


def _require_opset(graph: ir.Model, kind: Kind) -> None:
    least = FLOAT8_OPSET if kind == "fp8" else PER_CHANNEL_OPSET
    opset = graph.graph.opset_imports[""]
    if opset < least:
        raise ExportFailed(
            f"opset {opset} cannot quantise to {kind}",
            expected=f"opset {least} or newer",
            next_command=f"export with --opset {max(least, 23)}",
        )


def quantise_input(
    graph: ir.Model, node: ir.Node, position: int, scale: float, kind: Kind, index: int = 0
) -> None:
    """Quantise and dequantise one operand of a node, in place.

    Args:
        graph: which the node stands in.
        node: whose operand it is.
        position: of the operand.
        scale: the value of a step.
        kind: dtype of the codes.
        index: how many other nodes have such a pair on the same tensor; the scale is so many spacings larger.
    """
    import numpy as np
    import onnx_ir as ir

    source = node.inputs[position]
    if source is None:
        raise ExportFailed(f"the node {node.name!r} has no operand {position}")
    step = np.float32(scale)
    for _ in range(index):
        step = np.nextafter(step, np.float32(np.inf), dtype=np.float32)
    name = f"{source.name}.{index}" if index else f"{source.name}"
    scale_value = constant(graph, f"{name}.scale", step, "float32")
    zero = zero_point(graph, kind)
    quantised = _node(graph, node, "QuantizeLinear", [source, scale_value, zero], f"{name}.quantised")
    quantised.shape, quantised.type = source.shape, zero.type
    restored = _node(graph, node, "DequantizeLinear", [quantised, scale_value, zero], f"{name}.dequantised")
    restored.shape, restored.type = source.shape, ir.TensorType(ir.DataType.FLOAT)
    node.replace_input_with(position, restored)


def zero_point(graph: ir.Model, kind: Kind) -> ir.Value:
    """The one zero point there is: 0, as everything is symmetric; its dtype is that of the codes."""
    import ml_dtypes

    if kind == "int8":
        return constant(graph, "zero_point_int8", 0, "int8")
    return constant(graph, "zero_point_fp8", 0, ml_dtypes.float8_e4m3fn)


def _quantise_weight(
    graph: ir.Model, node: ir.Node, place: Place, kind: Kind, power: torch.Tensor | None, *, search: bool
) -> QuantisedWeight:
    import onnx_ir as ir

    old = graph.graph.initializers[place.weight]
    tensor = old.const_value
    if tensor is None or old.shape is None:
        raise ExportFailed(f"the weight {place.weight!r} has no values")
    weight = QuantisedWeight(reader(tensor), place.axis, place.inner, kind, power, search)
    shape = ir.Shape(tensor.shape.numpy())
    codes = lazy_codes(weight, shape, f"{place.weight}.{kind}")
    steps = lazy_scales(weight, place.channels, f"{place.weight}.scales")
    values = [
        ir.Value(name=each.name, shape=each.shape, type=ir.TensorType(each.dtype), const_value=each)
        for each in (codes, steps)
    ]
    for value in values:
        graph.graph.register_initializer(value)
    name = f"{place.weight}.dequantised"
    restored = _node(graph, node, "DequantizeLinear", values, name, axis=place.axis)
    restored.shape, restored.type = shape, ir.TensorType(ir.DataType.FLOAT)
    node.replace_input_with(1, restored)
    del graph.graph.initializers[place.weight]
    return weight


def reader(tensor: ir.TensorProtocol) -> Callable[[], torch.Tensor]:
    """Reads a tensor of a graph as float32."""
    return functools.partial(_read, tensor)


def _read(tensor: ir.TensorProtocol) -> torch.Tensor:
    import torch

    return torch.from_numpy(tensor.numpy()).float()


def _node(
    graph: ir.Model, before: ir.Node, operator: str, inputs: Sequence[ir.Value], name: str, **attributes: object
) -> ir.Value:
    import onnx_ir as ir

    node = ir.node(operator, list(inputs), attributes=attributes, name=name)  # type: ignore[arg-type]
    node.outputs[0].name = name
    graph.graph.insert_before(before, node)
    return node.outputs[0]


def part_biases_from_gelu(graph: ir.Model) -> int:
    """Write the biases in front of each ``Gelu`` as ``(1, 1, c)``; returns how many. No number changes.

    ONNX Runtime fuses a one-dimensional bias and a ``Gelu`` into ``BiasGelu``, which took longer than ``Add``
    and ``Gelu`` in a profile of a ViT-B/16 (5.1 and 3.9 ms of some 60); of whole inferences no gain is shown
    yet. It does not know the bias in this form.
    """
    count = 0
    for node in list(graph.graph):
        source = node.inputs[0] if node.op_type == "Gelu" else None
        add = source.producer() if source is not None else None
        if source is None or add is None or add.op_type != "Add" or len(source.uses()) != 1:
            continue
        count += _widen_bias(source, add)
    return count


def _widen_bias(result: ir.Value, add: ir.Node) -> bool:
    import onnx_ir as ir

    for value in add.inputs:
        tensor = value.const_value if value is not None else None
        if value is None or tensor is None or len(tensor.shape) != 1 or len(value.uses()) != 1:
            continue
        if result.shape is None or len(result.shape) < 2:
            return False
        shape = ir.Shape([*[1] * (len(result.shape) - 1), *tensor.shape.numpy()])
        value.const_value = _reshaped(tensor, shape)
        value.shape = shape
        return True
    return False


def _reshaped(tensor: ir.TensorProtocol, shape: ir.Shape) -> ir.LazyTensor:
    import onnx_ir as ir

    name = tensor.name

    def read() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().reshape(shape.numpy()), name=name)

    return ir.LazyTensor(read, dtype=tensor.dtype, shape=shape, name=name)
