"""From a captured graph to the finished one: our passes by name, in the order in which they are applied.

The table is what the exporter runs and what blame walks along: a graph can be had before the first pass and
after each of them. A new pass is a file beside this one and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.graph.attention import attend_in_three_dimensions
from vit_deploy.graph.batch import shorten_batch_arithmetic
from vit_deploy.graph.capture import bind_weights, capture
from vit_deploy.graph.fold import fold_constants
from vit_deploy.graph.lower_opset import lower_opset
from vit_deploy.graph.metadata import describe_model, strip_metadata
from vit_deploy.graph.transpose_weights import transpose_weights
from vit_deploy.graph.twin_outputs import part_twin_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

    from vit_deploy.spec import IOSpec
    from vit_deploy.weights.imported import Model

    Pass = Callable[[ir.Model, "Recipe"], object]


@dataclass(frozen=True)
class Recipe:
    """What a graph is made from.

    Attributes:
        model: its config and weights.
        spec: inputs and outputs.
        opset: of the finished graph.
    """

    model: Model
    spec: IOSpec
    opset: int


PASSES: tuple[tuple[str, Pass], ...] = (
    ("fold_constants", lambda graph, _: fold_constants(graph)),
    ("transpose_weights", lambda graph, _: transpose_weights(graph)),
    ("shorten_batch_arithmetic", lambda graph, _: shorten_batch_arithmetic(graph)),
    ("attend_in_three_dimensions", lambda graph, _: attend_in_three_dimensions(graph)),
    ("lower_opset", lambda graph, recipe: lower_opset(graph, recipe.opset)),
    ("part_twin_outputs", lambda graph, recipe: part_twin_outputs(graph, recipe.spec)),
    ("strip_metadata", lambda graph, _: strip_metadata(graph)),
    ("describe_model", lambda graph, recipe: describe_model(graph, recipe.model)),
)
"""Each pass rewrites the graph in place; its name is that of the function."""


def capture_graph(recipe: Recipe) -> ir.Model:
    """The graph as PyTorch gives it, its weights bound and unread: what the first pass is given.

    Raises:
        ExportFailed: when PyTorch cannot capture the model, or the graph does not fit the weights.
    """
    from vit_deploy.graph.capture_live import capture_live

    model, spec = recipe.model, recipe.spec
    if model.is_live:
        graph = capture_live(model.module(spec), spec, model.config)
    else:
        graph = capture(lambda: model.module(spec), spec)
    bind_weights(graph, model.weights_for(spec))
    return graph


def apply_passes(graph: ir.Model, recipe: Recipe) -> Iterator[str]:
    """Apply :data:`PASSES` to ``graph`` in place, one for each step; gives the name of the one just applied.

    Raises:
        ExportFailed: for a graph that a pass cannot take.
    """
    for name, apply in PASSES:
        apply(graph, recipe)
        yield name
