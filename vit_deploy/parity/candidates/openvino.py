"""OpenVINO IRs that others made: with ``ovc``, Optimum, NNCF.

What is judged is the ``.xml`` with the ``.bin`` beside it. Names of inputs and outputs that are not ours are
changed in the ``.xml``, a copy of which is written beside a link to the ``.bin``; nothing else is changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.graph.openvino_ir import read_ir
from vit_deploy.graph.openvino_ir_edit import copy_of, name_ends, write_ir
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
from vit_deploy.spec import IOSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vit_deploy.graph.openvino_ir import IrGraph, IrTensor
    from vit_deploy.weights.imported import Model


def adopt(path: Path, model: Model, asked: Asked, folder: Path) -> Candidate:
    """See :func:`vit_deploy.parity.candidates.adopt`."""
    graph = _with_names(read_ir(path), folder)
    taken = taken_input([_described(tensor) for tensor in graph.inputs], model.config)
    given = tuple(TensorSpec(tensor.name, tensor.dtype, ()) for tensor in graph.outputs)
    precision = asked.precision or graph.precision or "fp32"
    bare = Artefact(path.name, "openvino", precision, graph.path, IOSpec((), given), model.config)
    found = try_candidate(bare, taken, asked.open_session)
    matched, others = match_outputs(found, model.config, asked.outputs)
    dtypes = {matched[output.name]: output.dtype for output in found if output.name in matched}
    spec = adopted_spec(model, taken, dtypes)
    # An output that is not judged may stay: what runs an IR gives the outputs that it is asked for.
    same = bears_our_names(taken, spec, matched, ())
    renamed = graph if same else _renamed(graph, spec.inputs[0].name, matched, folder)
    notes = notes_of(taken, spec, matched, others)
    return Candidate(replace(bare, path=renamed.path, spec=spec), tuple(notes))


def _described(tensor: IrTensor) -> tuple[str, str, tuple[int | None, ...]]:
    return tensor.name, tensor.dtype, tensor.shape


def _with_names(graph: IrGraph, folder: Path) -> IrGraph:
    """The graph with a name for each input and output; what is converted from PyTorch often has none."""
    ends = {"input": graph.inputs, "output": graph.outputs}
    bare = {
        tensor.number: f"{kind}.{place}"
        for kind, tensors in ends.items()
        for place, tensor in enumerate(tensors)
        if not tensor.name
    }
    if not bare:
        return graph
    named = copy_of(graph)
    name_ends(named, bare)
    return write_ir(named, folder / "named.xml")


def _renamed(graph: IrGraph, taken: str, matched: Mapping[str, str], folder: Path) -> IrGraph:
    """The same graph under our names."""
    names = {tensor.number: matched[tensor.name] for tensor in graph.outputs if tensor.name in matched}
    renamed = copy_of(graph)
    name_ends(renamed, {**names, graph.inputs[0].number: taken})
    return write_ir(renamed, folder / "model.xml")
