"""``--max-drop``: the layers that a quantised graph keeps in fp32, so that a budget of decisions holds.

Each candidate is the very graph that would be written but for the correction of biases: smoothed, with the
scales and the weights' codes that were chosen, and some of its layers left as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.quantisation.insert import part_biases_from_gelu, quantise
from vit_deploy.quantisation.sensitivity import Trials, hold_budget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx_ir as ir
    import torch

    from vit_deploy.protocols import Arrays, Progress
    from vit_deploy.quantisation.places import Place
    from vit_deploy.quantisation.weights import Kind

NO_SEARCH = 100.0
"""A budget that anything holds."""

WORST = "among the worst for the outputs: kept so that --max-drop holds"


def keep_worst(
    graph: ir.Model,
    places: Sequence[Place],
    scales: Mapping[str, float],
    kind: Kind,
    feed: Callable[[], Iterable[Arrays]],
    max_drop: float,
    *,
    wide: frozenset[str] = frozenset(),
    power: Mapping[str, torch.Tensor] | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The layers that stay in fp32 beside ``wide`` so that the budget holds.

    Args:
        graph: in fp32, smoothed; it is not changed.
        places: all places of the graph.
        scales: of activations, by source.
        kind: dtype of the codes.
        feed: gives the batches of pictures from the first one on.
        max_drop: points of top-1 agreement with fp32 that may be lost on them.
        wide: what stays in fp32 whatever comes.
        power: see :func:`vit_deploy.quantisation.insert.quantise`.
        progress: told of the phases.

    Returns:
        Their names, the worst first, and the facts of the search.

    Raises:
        BudgetUnmet: when nothing holds it; it says the best that was.
        UsageFailed: for a budget below 0.
    """

    def build(kept: frozenset[str]) -> ir.Model:
        made = graph.clone()
        quantise(made, places, scales, weights=kind, keep=kept, power=power)
        part_biases_from_gelu(made)
        return made

    names = [place.name for place in places]
    with Trials(graph.clone(), build, feed) as trials:
        held = hold_budget(trials, names, max_drop, keep=wide, progress=progress)
    held.require()
    return tuple(name for name in held.best.kept if name not in wide), held.facts()
