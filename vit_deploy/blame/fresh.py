"""The graph of a model as this version makes it: before our passes, after each of them, and finished.

What is tried first is the finished graph: where it holds, so does all that leads to it. Where it does not,
the first pass that breaks it is found by bisection. No file is written: the graphs are computed by the
standard's own definition, with the weights read from the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vit_deploy.blame.record import StageReading
from vit_deploy.blame.stages import Fall, Tried, Unable, Walk, in_fp32
from vit_deploy.blame.standard import NotEvaluated, evaluate

if TYPE_CHECKING:
    import onnx_ir as ir

    from vit_deploy.blame.record import StageKind
    from vit_deploy.graph.pipeline import Recipe
    from vit_deploy.protocols import Arrays, Artefact

CAPTURED = "the graph as captured"
FINISHED = "the graph as this version makes it"


@dataclass(frozen=True)
class FreshGraph:
    """A graph at one point of its making.

    Attributes:
        name: of the pass it comes from; :data:`CAPTURED` before the first.
        graph: with its weights unread.
    """

    name: str
    graph: ir.Model


def make_graphs(recipe: Recipe) -> list[FreshGraph]:
    """The graph as it is captured, and after each pass.

    Raises:
        ExportFailed: when it cannot be captured.
        PassFailed: when a pass cannot take it, with the graphs up to there.
    """
    from vit_deploy.graph.pipeline import apply_passes, capture_graph

    graph = capture_graph(recipe)
    made = [FreshGraph(CAPTURED, graph.clone())]
    steps = apply_passes(graph, recipe)
    while True:
        try:
            name = next(steps, None)
        except Exception as error:  # a pass may stumble on anything
            raise PassFailed(made, error) from error
        if name is None:
            return made
        made.append(FreshGraph(name, graph.clone()))


class PassFailed(Exception):
    """A pass raised an error.

    Attributes:
        made: the graphs up to there.
        name: of the pass.
    """

    def __init__(self, made: list[FreshGraph], error: Exception) -> None:
        from vit_deploy.graph.pipeline import PASSES

        super().__init__(f"{type(error).__name__}: {error}")
        self.made = made
        self.name = PASSES[len(made) - 1][0]


def defined(walk: Walk, graph: ir.Model, artefact: Artefact | None = None, *, by_place: bool = False) -> Arrays:
    """The outputs of a graph by the standard's definition.

    Args:
        walk: of the artefact.
        graph: what is computed.
        artefact: whose inputs it takes, where they are other than the walk's own.
        by_place: name the outputs by their places, as a graph in the making has its own names.

    Raises:
        Unable: when the evaluator does not get through it; its cause says why.
    """
    chosen = artefact or walk.artefact
    try:
        values = evaluate(graph, walk.feed(chosen))
    except NotEvaluated as error:
        raise Unable(f"ONNX's reference evaluator does not get through it: {error}") from error
    own = [value.name or "" for value in graph.graph.outputs]
    names = list(chosen.spec.output_names) if by_place else own
    return dict(zip(names, values, strict=len(own) == len(names)))


def fresh_rungs(walk: Walk, recipe: Recipe) -> tuple[Fall | None, ir.Model | None]:
    """What is wrong with the graph as this version makes it, if anything is; and the finished graph.

    Args:
        walk: of the artefact; its inputs and outputs are those of the graph.
        recipe: what the artefact was made from.
    """
    made: list[FreshGraph] = []

    def finish() -> Arrays:
        made.extend(make_graphs(recipe))
        return _outputs(walk, made[-1])

    try:
        finished = walk.measure("export", FINISHED, finish)
    except PassFailed as failed:
        return _broken_pass(walk, failed), None
    if finished.reading.holds is not False or not made:
        walk.readings.append(finished.reading)
        return finished.fall("PyTorch cannot capture the model as a graph"), made[-1].graph if made else None
    return _culpable(walk, made, finished), None


def _try(walk: Walk, fresh: FreshGraph) -> Tried:
    kind: StageKind = "export" if fresh.name == CAPTURED else "pass"
    return walk.measure(kind, fresh.name, lambda: _outputs(walk, fresh))


def _outputs(walk: Walk, fresh: FreshGraph) -> Arrays:
    """A graph in the making is in float32, and has names of its own for its outputs."""
    return defined(walk, fresh.graph, in_fp32(walk.artefact), by_place=True)


_CAPTURE_WRONG = "the graph that PyTorch captures of the model does not compute what the model computes"


def _culpable(walk: Walk, made: list[FreshGraph], finished: Tried) -> Fall | None:
    """The capture, or the first pass after which the graph is wrong, by bisection."""
    tried = {0: _try(walk, made[0])}
    low, high = 0, len(made) - 1
    if tried[0].reading.holds is False:
        walk.readings.append(tried[0].reading)
        return tried[0].fall(_CAPTURE_WRONG)
    # What was read of the finished graph is what the last pass gives.
    tried[high] = replace(finished, reading=replace(finished.reading, kind="pass", name=made[high].name))
    while high - low > 1:
        middle = (low + high) // 2
        tried[middle] = _try(walk, made[middle])
        low, high = (low, middle) if tried[middle].reading.holds is False else (middle, high)
    walk.readings.extend(tried[place].reading for place in sorted(tried))
    return tried[high].fall(f"our graph pass {made[high].name} changes what the graph computes")


def _broken_pass(walk: Walk, failed: PassFailed) -> Fall | None:
    captured = _try(walk, failed.made[0])
    walk.readings.append(captured.reading)
    fall = captured.fall(_CAPTURE_WRONG)
    if fall is not None:
        return fall
    reading = StageReading("pass", failed.name, None, False, str(failed))
    walk.readings.append(reading)
    return Fall(reading, f"our graph pass {failed.name} cannot take the graph: {failed}", broke=True)
