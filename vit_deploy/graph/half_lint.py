"""The last word on a graph in half precision: is it the fp32 graph, but for its dtypes?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vit_deploy.errors import ExportFailed
from vit_deploy.graph.half_rules import FP32_OPERATORS, PRODUCTS, STASHED, inferred_types
from vit_deploy.graph.lint import leftovers, refused_by_onnx, wrong_interface

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from vit_deploy.graph.half_casts import Recast
    from vit_deploy.graph.half_rules import Rules
    from vit_deploy.spec import IOSpec

_CASTS_OF_A_NODE = 2
"""At most so many stand around a node that computes in another dtype than those beside it."""


def count_operators(model: ir.Model) -> Counter[str]:
    """Number of nodes by operator."""
    return Counter(node.op_type for node in model.graph)


def lint_half(model: ir.Model, before: Mapping[str, int], rules: Rules, done: Recast, spec: IOSpec) -> None:
    """Check a graph that was lowered; weights are not read.

    Args:
        model: as it is now.
        before: :func:`count_operators` of the fp32 graph, which was linted.
        rules: that it was lowered by.
        done: what was done to it.
        spec: its inputs and outputs as they should be now.

    Raises:
        ExportFailed: naming each rule that is broken.
    """
    problems = [
        *_other_operators(model, before, done),
        *_wrong_dtypes(model, rules),
        *_wasted_casts(model),
        *_many_casts(model, rules, done),
        *wrong_interface(model, spec),
        *_wrong_ends(model, spec),
        *leftovers(model),
        *refused_by_onnx(model, spec),
    ]
    if problems:
        raise ExportFailed(
            f"the graph in half precision breaks {len(problems)} rule(s): {'; '.join(problems)}",
            expected="the fp32 graph in other dtypes",
            next_command="report this with the model's config and `vit-deploy doctor --json`",
        )


def _other_operators(model: ir.Model, before: Mapping[str, int], done: Recast) -> list[str]:
    """Nothing but Casts may be added: one LayerNormalization stays one, and one Attention."""
    expected = Counter(before) + Counter(Cast=done.casts)
    found = count_operators(model)
    return [
        f"{found[name]} {name} for {expected[name]}"
        for name in sorted({*found, *expected})
        if found[name] != expected[name]
    ]


def _wrong_dtypes(model: ir.Model, rules: Rules) -> list[str]:
    import onnx_ir as ir

    types = inferred_types(model)
    problems = []
    for node in model.graph:
        if node not in rules.network:
            continue
        found = types.get(node.outputs[0].name or "")
        name = f"{node.op_type} {node.name!r}"
        allowed = node in rules.keep or rules.unable(node)
        if node.op_type in PRODUCTS and found != rules.half and not allowed:
            problems.append(f"{name} is left in {found}")
        if node.op_type in FP32_OPERATORS and found not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            problems.append(f"{name} is in {found}")
        if node.op_type in STASHED and node.attributes.get_int("stash_type", 0) != ir.DataType.FLOAT:
            problems.append(f"{name} computes its mean in half precision")
        if "softmax_precision" in node.attributes:
            problems.append(f"{name} has a softmax_precision, which TensorRT refuses")
    return problems


def _wasted_casts(model: ir.Model) -> list[str]:
    """A Cast of a Cast between floats, one that changes nothing, one that nobody uses, one made twice."""
    types = inferred_types(model)
    problems, seen = [], set()
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "Cast" else None
        if source is None:
            continue
        to = node.attributes.get_int("to", 0)
        maker = source.producer()
        if types.get(source.name or "") == to:
            problems.append(f"the Cast {node.name!r} changes nothing")
        if maker is not None and maker.op_type == "Cast" and _is_float(types, maker.inputs[0]):
            problems.append(f"the Cast {node.name!r} is one of a Cast")
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            problems.append(f"the Cast {node.name!r} is for nothing")
        if (source, to) in seen and not node.outputs[0].is_graph_output():
            problems.append(f"{source.name!r} is cast to one dtype twice")
        seen.add((source, to))
    return problems


def _is_float(types: Mapping[str, ir.DataType], value: ir.Value | None) -> bool:
    found = types.get(value.name or "") if value is not None else None
    return found is not None and found.is_floating_point()


def most_casts(model: ir.Model, rules: Rules) -> int:
    """How many Casts a graph may need: at its ends, around each node in fp32, for each value made beside it."""
    ends = len(model.graph.inputs) + len(model.graph.outputs)
    in_fp32 = sum(
        node.op_type in FP32_OPERATORS or node in rules.keep or rules.unable(node)
        for node in model.graph
        if node in rules.network
    )
    beside = {
        value
        for node in rules.network
        for value in node.inputs
        if value is not None and (maker := value.producer()) is not None and maker not in rules.fed
    }
    return ends + _CASTS_OF_A_NODE * in_fp32 + len(beside)


def _many_casts(model: ir.Model, rules: Rules, done: Recast) -> list[str]:
    most = most_casts(model, rules)
    return [f"{done.casts} Casts were added, where {most} would do"] if done.casts > most else []


def _wrong_ends(model: ir.Model, spec: IOSpec) -> list[str]:
    """The dtypes of inputs and outputs."""
    ends = zip((*model.graph.inputs, *model.graph.outputs), (*spec.inputs, *spec.outputs), strict=True)
    return [
        f"{entry.name} is {value.dtype}, not {entry.dtype}"
        for value, entry in ends
        if value.dtype is None or value.dtype.numpy().name != entry.dtype
    ]
