"""OpenVINO IR: the model, the ONNX graph that an IR is made from, an IR made anew, the IR itself.

OpenVINO's optimisations cannot be left out, and nobody else defines what an IR means. In their place an IR is
made anew, in float32, of the graph that this version makes: where that does not hold in OpenVINO, OpenVINO is
at fault; where it does, it is the IR's precision, or the IR is another one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.blame.fresh import fresh_rungs
from vit_deploy.blame.record import StageReading
from vit_deploy.blame.stages import Fall, backend_rung, eager_rung, in_fp32
from vit_deploy.blame.tensors import differences, first_tap, in_short, listed, readers_of
from vit_deploy.errors import HostileInput, VitDeployError

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.blame.stages import Walk
    from vit_deploy.graph.openvino_ir import IrGraph
    from vit_deploy.protocols import Artefact

OPSET = 23
"""The first with ``Attention``: what IRs are made from unless something else was asked for."""


def climb(walk: Walk) -> Fall | None:
    """Try the rungs in order; gives the first that does not hold."""
    from vit_deploy.graph.openvino_ir import read_ir
    from vit_deploy.graph.pipeline import Recipe

    fall = eager_rung(walk)
    if fall is not None:
        return fall
    try:
        held = read_ir(walk.artefact.path)
    except HostileInput as error:
        reading = StageReading("export", "the file", None, False, error.found)
        walk.readings.append(reading)
        return Fall(reading, f"the file cannot be read: {error.found}", broke=True)
    fall, graph = fresh_rungs(walk, Recipe(walk.check.model, in_fp32(walk.artefact).spec, OPSET))
    if fall is not None:
        return fall
    made = _made_anew(walk, graph) if graph is not None else None
    if made is None or graph is None:
        return backend_rung(walk)
    return _fresh_rung(walk, made) or _own_rung(walk, held, graph)


def _made_anew(walk: Walk, graph: ir.Model) -> Artefact | None:
    """An IR in float32 of the graph that this version makes; ``None`` where none can be made here."""
    from vit_deploy.exporters.openvino import EXPORTER
    from vit_deploy.graph.stream import write_model
    from vit_deploy.protocols import Artefact, NoOptions

    walk.progress.phase(f"{walk.artefact.name}: making an IR in fp32")
    plain = in_fp32(walk.artefact)
    folder = walk.folder / "ir"
    folder.mkdir()
    try:
        write_model(graph, folder / "model.onnx")
        source = Artefact("onnx-fp32", "onnx", "fp32", folder / "model.onnx", plain.spec, plain.config)
        made = EXPORTER.export(walk.check.model, plain.spec, NoOptions(), folder, walk.progress, source)
    except VitDeployError as error:
        walk.notes.append(f"no IR could be made to compare with: {error.found}")
        return None
    return replace(plain, path=folder / made.files[0], facts=made.facts)


def _fresh_rung(walk: Walk, made: Artefact) -> Fall | None:
    fall = backend_rung(walk, made)
    reading = replace(walk.readings[-1], name=f"{walk.runtime.name}, an IR made anew in fp32")
    walk.readings[-1] = reading
    because = "OpenVINO computes wrongly what holds as an ONNX graph, in fp32 too"
    return replace(fall, reading=reading, because=because) if fall is not None else None


def _own_rung(walk: Walk, held: IrGraph, graph: ir.Model) -> Fall | None:
    from vit_deploy.graph.openvino_ir_edit import weight_readers

    declared, config = walk.artefact.precision, walk.check.model.config
    fall = backend_rung(walk, kind="precision" if declared != "fp32" else "runtime")
    if fall is None:
        return None
    found = differences(weight_readers(held), readers_of(graph), config, declared)
    if not found and declared != "fp32":
        return fall
    reading = replace(walk.readings[-1], kind="export", name="the IR itself")
    walk.readings[-1] = reading
    because = "the IR does not compute what the model computes: one made anew does"
    if not found:
        return replace(fall, reading=reading, because=because)
    walk.notes.append(listed(found))
    first = first_tap(config, [difference.name for difference in found])
    return replace(fall, reading=reading, because=f"{because}: {in_short(found)}", where=first)
