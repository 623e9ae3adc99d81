"""The last word on a quantised graph: is what should be quantised so, and in a form that all take?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.lint import leftovers, refused_by_onnx, wrong_interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from vit_deploy.quantisation.places import Place
    from vit_deploy.quantisation.weights import Kind
    from vit_deploy.spec import IOSpec


def lint_quantised(
    graph: ir.Model,
    spec: IOSpec,
    places: Sequence[Place],
    kind: Kind,
    inside: int = 0,
) -> None:
    """Check a quantised graph; weights are not read.

    Args:
        graph: as it will be written.
        spec: its inputs and outputs.
        places: those that were to be quantised.
        kind: dtype of the codes.
        inside: pairs that stand elsewhere than on what comes into a place.

    Raises:
        ExportFailed: naming each rule that is broken.
    """
    problems = [
        *wrong_interface(graph, spec),
        *leftovers(graph),
        *refused_by_onnx(graph, spec),
        *_wrong_counts(graph, len(places), inside),
        *_wrong_products(graph, places, kind),
        *_wrong_codes(graph, kind),
    ]
    if problems:
        raise ExportFailed(
            f"the {kind} graph breaks {len(problems)} rule(s): {'; '.join(problems[:8])}",
            expected="each product between quantised operands, symmetric, its bias in fp32",
            next_command="report this with the model's config and `vit-deploy doctor --json`",
        )


def _wrong_counts(graph: ir.Model, places: int, inside: int) -> list[str]:
    counted = Counter(node.op_type for node in graph.graph)
    expected = {"QuantizeLinear": places + inside, "DequantizeLinear": 2 * places + inside}
    return [f"{counted[name]} {name} for {count}" for name, count in expected.items() if counted[name] != count]


def _wrong_products(graph: ir.Model, places: Sequence[Place], kind: Kind) -> list[str]:
    nodes = {node.outputs[0].name: node for node in graph.graph}
    problems = []
    for place in places:
        node = nodes.get(place.product)
        if node is None:
            problems.append(f"{place.name} is gone")
            continue
        problems += [f"{place.name}: {told}" for told in _wrong_operands(node, place, kind)]
    return problems


def _wrong_operands(node: ir.Node, place: Place, kind: Kind) -> list[str]:
    source, weight = (value.producer() if value is not None else None for value in node.inputs[:2])
    if source is None or weight is None or {source.op_type, weight.op_type} != {"DequantizeLinear"}:
        return ["an operand is not quantised"]
    problems = []
    if len(source.outputs[0].uses()) != 1:
        problems.append("another node reads its dequantised input")
    codes, scales = weight.inputs[:2]
    if codes is None or codes.const_value is None or _name(codes) != kind:
        problems.append(f"its weight is not stored as {kind}")
    if scales is None or scales.const_value is None or scales.const_value.size != place.channels:
        problems.append(f"its weight has no scale for each of {place.channels} channels")
    if weight.attributes.get_int("axis", 1) != place.axis:
        problems.append("the scales of its weight are along another axis than its outputs")
    biases = [value.producer() for value in node.inputs[2:] if value is not None]
    if any(maker is not None for maker in biases):
        problems.append("its bias is quantised")
    return problems


def _wrong_codes(graph: ir.Model, kind: Kind) -> list[str]:
    """TensorRT takes no int32 behind a ``DequantizeLinear``, and no zero point but 0."""
    problems = []
    for node in graph.graph:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        codes = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        if codes is None or _name(codes) != kind:
            problems.append(f"{node.name!r} has codes of another dtype than {kind}")
        if zero is not None and (zero.const_value is None or zero.const_value.numpy().astype("float32").any()):
            problems.append(f"{node.name!r} has a zero point other than 0")
    return problems


def _name(value: ir.Value) -> str:
    from vit_deploy.graph.layers import DTYPE_NAMES

    return DTYPE_NAMES.get(value.dtype.name, "") if value.dtype is not None else ""
