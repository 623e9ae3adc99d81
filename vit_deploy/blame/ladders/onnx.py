"""ONNX: the model, the graph as it is captured, each of our passes, the file, the runtime, the precision.

The file is computed by the standard's own definition first, without its roundings where it has any. So a wrong
file and a wrong runtime are told apart, and so are an error and too little precision. A file that another
tool wrote has no graph of ours to be compared with: it is taken as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vit_deploy.blame.fresh import defined, fresh_rungs
from vit_deploy.blame.record import StageReading
from vit_deploy.blame.stages import (
    Fall,
    Unable,
    Walk,
    backend_rung,
    backend_rungs,
    eager_rung,
    in_fp32,
)
from vit_deploy.blame.standard import NotEvaluated, load_graph
from vit_deploy.blame.tensors import (
    differences,
    first_tap,
    in_short,
    listed,
    readers_of,
    rounded_to,
    weights_of,
)
from vit_deploy.errors import HostileInput
from vit_deploy.spec import EAGER_PRECISIONS

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.graph.pipeline import Recipe
    from vit_deploy.protocols import Arrays, Artefact

PRODUCER = "vit-deploy"
NOT_OURS = "the file is not what this version exports from these weights"
UNTOLD = "nothing else here could compute it"


@dataclass
class _File:
    """The artefact's file.

    Attributes:
        graph: as it is.
        plain: without its roundings; ``None`` where it has none.
        form: the artefact that ``plain`` is, or the artefact itself.
        fresh: the graph that this version makes; ``None`` for a file of another tool's.
        refused: whether the evaluator finds the graph at odds with itself.
    """

    graph: ir.Model
    plain: ir.Model | None
    form: Artefact
    fresh: ir.Model | None = None
    refused: bool = False

    @property
    def meant(self) -> ir.Model:
        """What the graph is meant to compute."""
        return self.plain or self.graph


def climb(walk: Walk) -> Fall | None:
    """Try the rungs in order; gives the first that does not hold."""
    fall = eager_rung(walk)
    if fall is not None:
        return fall
    try:
        file = _open(walk)
    except HostileInput as error:
        reading = StageReading("export", "the file", None, False, error.found)
        walk.readings.append(reading)
        return Fall(reading, f"the file cannot be read: {error.found}", broke=True)
    if file.graph.producer_name == PRODUCER:
        fall, file.fresh = fresh_rungs(walk, _recipe(walk, file.graph))
    return fall or _defined_rung(walk, file) or _second_opinion(walk, file) or _backend_rungs(walk, file)


def _open(walk: Walk) -> _File:
    from vit_deploy.graph.roundings import without_roundings

    graph = load_graph(walk.artefact.path)
    plain = without_roundings(graph)
    rounded = plain is not None and walk.artefact.precision in EAGER_PRECISIONS
    return _File(graph, plain, in_fp32(walk.artefact) if rounded else walk.artefact)


def _recipe(walk: Walk, graph: ir.Model) -> Recipe:
    from vit_deploy.graph.options import OPSETS
    from vit_deploy.graph.pipeline import Recipe

    opset = graph.opset_imports.get("", max(OPSETS))
    known = opset if opset in OPSETS else max(OPSETS)
    return Recipe(walk.check.model, in_fp32(walk.artefact).spec, known)


def _defined_rung(walk: Walk, file: _File) -> Fall | None:
    """The file as the standard defines it, without its roundings."""
    name = "the file, by the standard's definition" + (", without its roundings" if file.plain else "")

    def run() -> Arrays:
        try:
            return defined(walk, file.meant, file.form)
        except Unable as error:
            cause = error.__cause__
            file.refused = isinstance(cause, NotEvaluated) and not cause.unknown
            raise

    ours = file.fresh is not None
    because = NOT_OURS if ours else "the file does not compute what the model computes"
    fall = walk.rung("export", name, run, because=because, spec=file.form.spec)
    return _explained(walk, file, fall) if fall is not None else None


def _explained(walk: Walk, file: _File, fall: Fall) -> Fall:
    """What in the file is wrong, where its weights or its operators show it."""
    declared = walk.artefact.precision
    held = readers_of(file.meant)
    word = rounded_to(held, weights_of(walk.check.model, walk.artefact.spec))
    if word and declared in EAGER_PRECISIONS and word != declared:
        reading = replace(fall.reading, kind="precision")
        walk.readings[-1] = reading
        because = f"the file's weights are {word} numbers, and it is declared as {declared}"
        return replace(fall, reading=reading, because=because)
    if declared not in EAGER_PRECISIONS:
        # Its weights are no floats that could be compared, and rounding them is what it is for.
        reading = replace(fall.reading, kind="precision")
        walk.readings[-1] = reading
        return replace(fall, reading=reading, because=f"{declared} loses too much there")
    if file.fresh is None:
        return fall
    config = walk.check.model.config
    found = differences(held, readers_of(file.fresh), config, declared)
    if found:
        walk.notes.append(listed(found))
        first = first_tap(config, [difference.name for difference in found])
        return replace(fall, because=f"{fall.because}: {in_short(found)}", where=first)
    walk.notes.append(_operators(file.meant, file.fresh))
    return fall


def _operators(found: ir.Model, fresh: ir.Model) -> str:
    """How the operators of two graphs differ, by number."""
    have, want = (Counter(node.op_type for node in model.graph) for model in (found, fresh))
    apart = [
        f"{have[name]} {name} for {want[name]}" for name in sorted(have | want) if have[name] != want[name]
    ]
    if apart:
        return f"its weights are right, and its graph is another: {', '.join(apart)}"
    return (
        "its weights and the number of its operators are right: it is their wiring or attributes that are not"
    )


def _second_opinion(walk: Walk, file: _File) -> Fall | None:
    """Another backend, where the standard's evaluator does not get through the file: two do not err alike."""
    if walk.readings[-1].holds is not None or file.plain is not None:
        return None
    from vit_deploy import registry
    from vit_deploy.facts import Device
    from vit_deploy.protocols import SessionOptions

    cpu = Device()
    others = [found for found in registry.runtimes_for("onnx") if found.name != walk.runtime.name]
    other = next((found for found in others if found.available(cpu).ok), None)
    if other is None:
        walk.notes.append("nothing else here can run the file: a wrong file and a wrong runtime look alike")
        return None

    def run() -> Arrays:
        with walk.opener(other, walk.artefact, cpu, SessionOptions()) as session:
            return session.run(walk.feed())

    because = f"the file does not compute what the model computes, in {other.name} either"
    return walk.rung("export", f"the file in {other.name}", run, because=because)


def _backend_rungs(walk: Walk, file: _File) -> Fall | None:
    """The runtime, and what the roundings of the file do."""
    if file.plain is None:
        return _or_the_file(walk, file, backend_rungs(walk))
    if walk.artefact.precision not in EAGER_PRECISIONS:
        return _rounded_rung(walk, file) or _or_the_file(walk, file, backend_rungs(walk))
    return (
        _or_the_file(walk, file, backend_rungs(walk, _written(walk, file)))
        or _rounded_rung(walk, file)
        or backend_rung(walk, kind="precision")
    )


def _or_the_file(walk: Walk, file: _File, fall: Fall | None) -> Fall | None:
    """A file that neither the evaluator nor the backend gets through is itself at fault.

    Where nothing but the backend could compute it, either may be.
    """
    if fall is None:
        return None
    if not (fall.broke and file.refused):
        told = any(reading.holds is not None and "the file" in reading.name for reading in walk.readings[:-1])
        return fall if told else replace(fall, because=f"{fall.because}; or the file is wrong: {UNTOLD}")
    reading = replace(fall.reading, kind="export")
    walk.readings[-1] = reading
    because = "the file fits no definition: neither the standard's evaluator nor the backend runs it"
    return replace(fall, reading=reading, because=because)


def _written(walk: Walk, file: _File) -> Artefact:
    """The graph without its roundings as a file of its own."""
    from vit_deploy.graph.stream import write_model

    folder = walk.folder / "plain"
    folder.mkdir(exist_ok=True)
    write_model(file.meant, folder / "model.onnx")
    return replace(file.form, path=folder / "model.onnx")


def _rounded_rung(walk: Walk, file: _File) -> Fall | None:
    declared = walk.artefact.precision
    because = f"without its roundings the file holds: what it loses in {declared} is too much"
    if declared == "fp32":
        because = "a part of the file computes in less than the fp32 that it is declared in"
    name = "the file as it is, by the standard's definition"
    return walk.rung(
        "precision", name, lambda: defined(walk, file.graph), because=because, spec=walk.artefact.spec
    )
