"""ONNX files that others made: timm's, Optimum's, anybody's.

A file whose inputs and outputs do not bear our names is written anew with ours, and nothing else changed:
so that whatever judges, looks into or compares artefacts needs to know of no other names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import HostileInput
from vit_deploy.parity.candidates import Asked, Candidate
from vit_deploy.parity.candidates.matching import match_outputs
from vit_deploy.parity.candidates.pictures import (
    adopted_spec,
    bears_our_names,
    notes_of,
    taken_input,
    try_candidate,
)
from vit_deploy.protocols import Artefact
from vit_deploy.spec import IOSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from vit_deploy.spec import Precision
    from vit_deploy.weights.imported import Model


def adopt(path: Path, model: Model, asked: Asked, folder: Path) -> Candidate:
    """See :func:`vit_deploy.parity.candidates.adopt`."""
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    try:
        graph = ir.load(path)
        taken = taken_input(_inputs(graph), model.config)
    except (OSError, ValueError, TypeError, AttributeError, DecodeError, ir.serde.SerdeError) as error:
        raise HostileInput(
            f"the candidate {path.name!r} cannot be read: {error}", expected="a whole ONNX file"
        ) from error
    precision = asked.precision or _precision(graph)
    bare = Artefact(path.name, "onnx", precision, path, IOSpec((), ()), model.config)
    found = try_candidate(bare, taken, asked.open_session)
    matched, others = match_outputs(found, model.config, asked.outputs)
    dtypes = {matched[output.name]: output.dtype for output in found if output.name in matched}
    spec = adopted_spec(model, taken, dtypes)
    same = bears_our_names(taken, spec, matched, others)
    renamed = path if same else _rename(graph, spec, matched, folder)
    notes = notes_of(taken, spec, matched, others)
    return Candidate(replace(bare, path=renamed, spec=spec), tuple(notes))


def _inputs(graph: ir.Model) -> list[tuple[str, str, list[int | None]]]:
    """Name, dtype and dimensions of each input that is no weight."""
    return [
        (
            value.name or "",
            value.dtype.numpy().name if value.dtype else "",
            [dim if isinstance(dim, int) else None for dim in value.shape or ()],
        )
        for value in graph.graph.inputs
        if value.name not in graph.graph.initializers
    ]


def _precision(graph: ir.Model) -> Precision:
    """What the file computes in, from its weights and its quantisation."""
    from collections import Counter

    import onnx_ir as ir

    if any(node.op_type in ("QuantizeLinear", "MatMulInteger", "QLinearMatMul") for node in graph.graph):
        eight = {ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2}
        weights = {value.dtype for value in graph.graph.initializers.values()}
        return "fp8" if weights & eight else "int8"
    names: dict[Any, Precision] = {
        ir.DataType.FLOAT: "fp32",
        ir.DataType.FLOAT16: "fp16",
        ir.DataType.BFLOAT16: "bf16",
    }
    counted: Counter[Precision] = Counter()
    for value in graph.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype in names:
            counted[names[value.const_value.dtype]] += value.const_value.size
    return counted.most_common(1)[0][0] if counted else "fp32"


def _rename(graph: ir.Model, spec: IOSpec, matched: Mapping[str, str], folder: Path) -> Path:
    """The same graph under our names, with the outputs that are judged."""
    import onnx_ir as ir

    kept = {matched[value.name or ""]: value for value in graph.graph.outputs if value.name in matched}
    _make_room(graph, {spec.inputs[0].name, *kept}, {*graph.graph.inputs, *kept.values()})
    for value in graph.graph.inputs:
        if value.name not in graph.graph.initializers:
            value.name = spec.inputs[0].name
    graph.graph.outputs[:] = [_named(kept[name], name) for name in spec.output_names]
    target = folder / "model.onnx"
    ir.save(graph, target, external_data="model.onnx.data")
    return target


def _make_room(graph: ir.Model, names: set[str], own: set[ir.Value]) -> None:
    """Values inside the graph that bear a name we need get another one."""
    for node in graph.graph:
        for value in node.outputs:
            if value.name in names and value not in own:
                value.name = f"{value.name}.inner"


def _named(value: ir.Value, name: str) -> ir.Value:
    value.name = name
    return value
