"""ONNX files that others made: timm's, Optimum's, anybody's.

A file whose inputs and outputs do not bear our names is written anew with ours, and nothing else changed:
so that whatever judges, looks into or compares artefacts needs to know of no other names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import BackendMissing, HostileInput, RunFailed, UsageFailed
from vit_deploy.model.contract import with_inputs
from vit_deploy.parity.candidates import Asked, Candidate
from vit_deploy.parity.candidates.matching import Found, match_outputs
from vit_deploy.protocols import Artefact, SessionOptions
from vit_deploy.spec import BatchRange, IOSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from vit_deploy.facts import Device
    from vit_deploy.model.kinds import Architecture
    from vit_deploy.parity.check import Opener
    from vit_deploy.protocols import Runtime, Session
    from vit_deploy.spec import Contract, Precision
    from vit_deploy.weights.imported import Model


@dataclass(frozen=True)
class _Input:
    """The file's one picture: its own name, what it means, and the batches it takes."""

    name: str
    dtype: str
    contract: Contract
    batch: BatchRange


def adopt(path: Path, model: Model, asked: Asked, folder: Path) -> Candidate:
    """See :func:`vit_deploy.parity.candidates.adopt`."""
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    try:
        graph = ir.load(path)
        taken = _input(graph, model.config)
    except (OSError, ValueError, TypeError, AttributeError, DecodeError, ir.serde.SerdeError) as error:
        raise HostileInput(
            f"the candidate {path.name!r} cannot be read: {error}", expected="a whole ONNX file"
        ) from error
    precision = asked.precision or _precision(graph)
    found = _try(path, taken, model.config, precision, asked.open_session)
    matched, others = match_outputs(found, model.config, asked.outputs)
    dtypes = {matched[output.name]: output.dtype for output in found if output.name in matched}
    spec = _spec(model, taken, dtypes)
    notes = [f"not judged: its output {output}, which the model has not" for output in others]
    notes += _renamings(taken, spec, matched)
    same = taken.name == spec.inputs[0].name and not others and all(a == b for a, b in matched.items())
    renamed = path if same else _rename(graph, spec, matched, folder)
    return Candidate(Artefact(path.name, "onnx", precision, renamed, spec, model.config), tuple(notes))


def _input(graph: ir.Model, config: Architecture) -> _Input:
    values = [value for value in graph.graph.inputs if value.name not in graph.graph.initializers]
    pictures = [value for value in values if value.shape is not None and len(value.shape) == 4 and value.dtype]
    if len(values) != 1 or not pictures:
        names = ", ".join(value.name or "?" for value in values)
        raise UsageFailed(
            f"the candidate takes {names or 'nothing'}",
            expected="one input of four dimensions: a batch of pictures",
        )
    (value,) = pictures
    dims = [dim if isinstance(dim, int) else None for dim in value.shape or ()]
    dtype = value.dtype.numpy().name if value.dtype else ""
    height, width = config.image_size
    right: dict[Contract, list[int | None]] = {
        "pixel_values": [config.in_channels, height, width],
        "uint8": [height, width, config.in_channels],
    }
    contract: Contract = "uint8" if dtype == "uint8" else "pixel_values"
    if dtype not in ("uint8", "float32", "float16") or any(
        have not in (None, want) for have, want in zip(dims[1:], right[contract], strict=True)
    ):
        shown = "x".join(str(dim or "?") for dim in dims)
        raise UsageFailed(
            f"the candidate takes {value.name} as {dtype} of shape {shown}",
            expected=f"float32 or float16 of shape ?x{'x'.join(map(str, right['pixel_values']))}, "
            f"or uint8 of shape ?x{'x'.join(map(str, right['uint8']))}",
            next_command="--image-size, where the file was made for another one",
        )
    batch = BatchRange(dims[0], dims[0], dims[0]) if dims[0] else BatchRange()
    return _Input(value.name or "", dtype, contract, batch)


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


def _runtime() -> Runtime:
    from vit_deploy import registry

    for runtime in registry.runtimes_for("onnx"):
        found = runtime.available()
        if found.ok:
            return runtime
    raise BackendMissing(f"nothing here runs ONNX: {found.reason}", next_command=found.mend)


def _open_here(runtime: Runtime, artefact: Artefact, device: Device, options: SessionOptions) -> Session:
    return runtime.open(artefact, device, options)


def _try(
    path: Path, taken: _Input, config: Architecture, precision: Precision, open_session: Opener | None
) -> list[Found]:
    """What the file gives for one batch of black pictures: its shapes as they are, not as declared."""
    import numpy as np

    runtime = _runtime()
    height, width, channels = *config.image_size, config.in_channels
    sides = (height, width, channels) if taken.contract == "uint8" else (channels, height, width)
    shape = (taken.batch.minimum, *sides)
    spec = IOSpec((TensorSpec(taken.name, taken.dtype, (taken.batch.dim, *sides)),), (), taken.batch)
    artefact = Artefact(path.name, "onnx", precision, path, spec, config)
    try:
        opened = (open_session or _open_here)(runtime, artefact, runtime.devices()[0], SessionOptions())
        with opened as session:
            outputs = session.run({taken.name: np.zeros(shape, taken.dtype)})
    except RunFailed as error:
        raise HostileInput(f"the candidate {path.name!r} does not run: {error.found}") from error
    batch = taken.batch.minimum
    return [
        Found(name, array.dtype.name, (1, *array.shape[1:]) if array.shape[:1] == (batch,) else array.shape)
        for name, array in outputs.items()
    ]


def _spec(model: Model, taken: _Input, dtypes: Mapping[str, str]) -> IOSpec:
    names: Any = tuple(dtypes)
    plain = model.config.io_spec(names, taken.batch)
    spec = with_inputs(plain, taken.contract)
    inputs = spec.inputs if taken.contract != "pixel_values" else (replace(spec.inputs[0], dtype=taken.dtype),)
    outputs = tuple(replace(output, dtype=dtypes[output.name]) for output in spec.outputs)
    return replace(spec, inputs=inputs, outputs=outputs)


def _renamings(taken: _Input, spec: IOSpec, matched: Mapping[str, str]) -> list[str]:
    pairs = [(taken.name, spec.inputs[0].name), *matched.items()]
    return [f"its {theirs!r} is taken for {ours}" for theirs, ours in pairs if theirs != ours]


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
