"""TensorRT: the model, the ONNX graph that an engine is built from, an engine in float32, the engine itself.

An engine is its optimisations, so nothing can be tried without them, and it cannot be looked into. In its place
an engine is built anew, in float32, of the graph that this version makes: where that does not hold, TensorRT
is at fault; where it does, it is the engine's precision, or the engine is not what this version builds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.blame.fresh import fresh_rungs
from vit_deploy.blame.stages import backend_rung, eager_rung, in_fp32
from vit_deploy.errors import VitDeployError

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.blame.stages import Fall, Walk
    from vit_deploy.protocols import Artefact

OPSET = 23
"""The first with ``Attention``: what engines are built from unless something else was asked for."""


def climb(walk: Walk) -> Fall | None:
    """Try the rungs in order; gives the first that does not hold."""
    from vit_deploy.graph.pipeline import Recipe

    fall = eager_rung(walk)
    if fall is not None:
        return fall
    recipe = Recipe(walk.check.model, in_fp32(walk.artefact).spec, OPSET)
    fall, graph = fresh_rungs(walk, recipe)
    if fall is not None:
        return fall
    rebuilt = _rebuilt(walk, graph) if graph is not None else None
    if rebuilt is None:
        return backend_rung(walk)
    return _fresh_engine(walk, rebuilt) or _own_engine(walk)


def _rebuilt(walk: Walk, graph: ir.Model) -> Artefact | None:
    """An engine in float32 of the graph that this version makes; ``None`` where none can be built here."""
    from vit_deploy.exporters.tensorrt import EXPORTER
    from vit_deploy.graph.stream import write_model
    from vit_deploy.protocols import Artefact

    walk.progress.phase(f"{walk.artefact.name}: building an engine in fp32")
    plain = in_fp32(walk.artefact)
    folder = walk.folder / "engine"
    folder.mkdir()
    write_model(graph, folder / "model.onnx")
    config = walk.artefact.config
    source = Artefact("onnx-fp32", "onnx", "fp32", folder / "model.onnx", plain.spec, config)
    flavour = str(walk.artefact.facts.get("flavour", "auto"))
    try:
        options = EXPORTER.Options(flavour=flavour)
        made = EXPORTER.export(walk.check.model, plain.spec, options, folder, walk.progress, source)
    except VitDeployError as error:
        walk.notes.append(f"no engine could be built to compare with: {error.found}")
        return None
    return replace(plain, path=folder / made.files[0], facts=made.facts)


def _fresh_engine(walk: Walk, rebuilt: Artefact) -> Fall | None:
    fall = backend_rung(walk, rebuilt)
    reading = replace(walk.readings[-1], name=f"{walk.runtime.name}, an engine built anew in fp32")
    walk.readings[-1] = reading
    because = "TensorRT makes a wrong engine of a graph that holds, in fp32 too"
    return replace(fall, reading=reading, because=because) if fall is not None else None


def _own_engine(walk: Walk) -> Fall | None:
    if walk.artefact.precision != "fp32":
        return backend_rung(walk, kind="precision")
    fall = backend_rung(walk)
    reading = replace(walk.readings[-1], kind="export", name="the engine itself")
    walk.readings[-1] = reading
    because = "the engine is not what this version builds from these weights: one built anew holds"
    return replace(fall, reading=reading, because=because) if fall is not None else None
