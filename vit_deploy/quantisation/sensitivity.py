"""Which layers suffer most from being quantised, and how few must stay in fp32 for a budget to hold.

Layers are ranked by what they do to the outputs, not by their own error: each is kept in fp32 alone, with all
others quantised, and what goes of the outputs' squared error is its effect (as in the sensitivity analysis of
Wu et al. 2020, https://arxiv.org/abs/2004.09602, section 5.2, but at the point where the graph will work). The
worst are then kept, twice as many each time, until the budget holds on the pictures, and the least number that
holds it is found by halving: the ranking only gives the order, every verdict is measured.

What it costs: a graph's weights are written once (:class:`WeightStore`); a layer costs a session and a few
pictures. A budget that holds from the start costs one run over the pictures, and ranks nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import BudgetUnmet, UsageFailed
from vit_deploy.protocols import Silent
from vit_deploy.quantisation.outcome import drop_of, moved
from vit_deploy.quantisation.session import WeightStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx_ir as ir

    from vit_deploy.protocols import Arrays, Progress
    from vit_deploy.quantisation.outcome import Outputs

    Build = Callable[[frozenset[str]], ir.Model]
    """Gives a graph in which every layer but those named is quantised. The same name and dtype must mean the
    same unread weight in all graphs that it gives."""

    Feed = Callable[[], Iterable[Arrays]]
    """Gives the batches from the first one on, each time it is called."""

RANKED_ON = 8
"""Pictures that a ranking is made on: it only orders the layers."""

MOST = 0.5
"""The share of the layers that may stay in fp32; with more, a graph is not what it is declared to be."""


@dataclass(frozen=True)
class LayerEffect:
    """What one layer does to the outputs.

    Attributes:
        name: of the layer.
        error: the outputs' relative squared error: with it alone kept in fp32, or it alone quantised.
        effect: how much of the error with everything quantised is this layer's; may be below 0 where errors
            cancel one another.
    """

    name: str
    error: float
    effect: float


@dataclass(frozen=True)
class Trial:
    """One choice of layers that stay in fp32, and what it came to, in points."""

    kept: tuple[str, ...]
    drop: float


@dataclass(frozen=True)
class Held:
    """How a search for a budget ended.

    Attributes:
        best: the trial that keeps fewest layers of those that hold the budget; if none does, the one that drops
            least.
        budget: points that may be lost.
        pictures: how many it was measured on; one of them is ``100 / pictures`` points.
        measure: what a point is one of.
        trials: all of them, in order.
        effects: of the layers, the worst first; empty where nothing had to be ranked.
    """

    best: Trial
    budget: float
    pictures: int
    measure: str
    trials: tuple[Trial, ...]
    effects: tuple[LayerEffect, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the best is within the budget."""
        return self.best.drop <= self.budget

    def require(self) -> None:
        """Refuse to go on where nothing holds the budget.

        Raises:
            BudgetUnmet: with the best that was.
        """
        if self.holds:
            return
        kept = len(self.best.kept)
        raise BudgetUnmet(
            f"nothing holds a drop of {self.budget:g} points: the best, with {kept} layers in fp32, drops "
            f"{self.best.drop:.2f} points of {self.measure} on {self.pictures} pictures",
            expected=f"at most {self.budget:g} points with no more than {MOST:.0%} of the layers in fp32",
            next_command=f"--max-drop {self.best.drop:.2f}, --dtype bf16, or --dtype auto",
        )

    def facts(self) -> dict[str, Any]:
        """What a manifest records of it."""
        return {
            "max_drop": self.budget,
            "drop": self.best.drop,
            "measure": self.measure,
            "pictures": self.pictures,
            "kept": list(self.best.kept),
            "trials": [{"kept": len(trial.kept), "drop": trial.drop} for trial in self.trials],
            "effects": [{"layer": entry.name, "effect": entry.effect} for entry in self.effects[:10]],
        }


class Trials:
    """Runs graphs that differ in which layers are quantised; a context manager, as it has files.

    Args:
        exact: the fp32 graph that the others are compared with.
        build: makes the others.
        feed: the pictures.
        labels: the right class of each picture, in order; without, agreement with ``exact`` counts.
    """

    def __init__(self, exact: ir.Model, build: Build, feed: Feed, labels: Sequence[int] | None = None) -> None:
        self._exact, self._build, self._feed, self.labels = exact, build, feed, labels
        self._folder = tempfile.TemporaryDirectory(prefix="vit-deploy-")
        self._store = WeightStore(Path(self._folder.name))
        self._reference: Outputs | None = None
        self._few: tuple[list[Arrays], Outputs] | None = None

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def reference(self) -> Outputs:
        """What the fp32 graph gives on all pictures."""
        if self._reference is None:
            self._reference = self._outputs(self._exact, self._feed())
        return self._reference

    @property
    def pictures(self) -> int:
        """How many there are."""
        return len(next(iter(self.reference.values())))

    def drop(self, keep: Iterable[str]) -> tuple[float, str]:
        """What is lost on all pictures, in points, with these layers in fp32, and points of what.

        Raises:
            UsageFailed: when there are not as many labels as pictures.
        """
        if self.labels is not None and len(self.labels) != self.pictures:
            raise UsageFailed(
                f"there are {len(self.labels)} labels for {self.pictures} pictures", expected="one for each"
            )
        found = self._outputs(self._build(frozenset(keep)), self._feed())
        return drop_of(self.reference, found, self.labels)

    def error(self, keep: Iterable[str]) -> float:
        """The outputs' relative squared error on a few pictures with these layers in fp32."""
        if self._few is None:
            batches = _first(self._feed(), RANKED_ON)
            self._few = batches, self._outputs(self._exact, batches)
        batches, reference = self._few
        return moved(reference, self._outputs(self._build(frozenset(keep)), batches))

    def _outputs(self, graph: ir.Model, batches: Iterable[Arrays]) -> Outputs:
        import numpy as np

        with self._store.opened(graph) as session:
            found = [session.run(batch) for batch in batches]
        return {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}


def rank_layers(
    trials: Trials,
    layers: Sequence[str],
    *,
    keep: frozenset[str] = frozenset(),
    alone: bool = False,
    progress: Progress | None = None,
) -> tuple[LayerEffect, ...]:
    """Every layer's effect on the outputs, the worst first.

    Args:
        trials: of the graph.
        layers: names of all that can be quantised.
        keep: those that stay in fp32 whatever comes, and are not ranked.
        alone: quantise each layer alone instead of keeping it alone. The errors are then each layer's own, but
            most of the graph runs in fp32, which takes two to three times as long.
        progress: advanced by one for each layer.
    """
    ranked = [name for name in layers if name not in keep]
    everything = frozenset(layers)
    whole = trials.error(keep)
    effects = []
    for name in ranked:
        error = trials.error((everything - {name}) if alone else (keep | {name}))
        effects.append(LayerEffect(name, error, error if alone else whole - error))
        (progress or Silent()).advance()
    return tuple(sorted(effects, key=lambda entry: -entry.effect))


def hold_budget(
    trials: Trials,
    layers: Sequence[str],
    max_drop: float,
    *,
    keep: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> Held:
    """Keep as few layers in fp32 as hold a budget, the worst first.

    Args:
        trials: of the graph.
        layers: names of all that can be quantised.
        max_drop: points that may be lost: of top-1 accuracy with labels, of top-1 agreement without.
        keep: those that stay in fp32 whatever comes.
        progress: told of the phases.

    Returns:
        How it ended; :meth:`Held.require` refuses a budget that nothing holds.

    Raises:
        UsageFailed: for a budget below 0 or above 100.
    """
    if not 0 <= max_drop <= 100:
        raise UsageFailed(f"--max-drop is {max_drop:g}", expected="points from 0 to 100")
    progress = progress or Silent()
    search = _Search(trials, tuple(name for name in layers if name in keep), max_drop)
    progress.phase("quantisation: measuring the drop")
    if search.holds(0):
        return search.ended()
    free = [name for name in layers if name not in keep]
    progress.phase("quantisation: ranking the layers", len(free))
    search.effects = rank_layers(trials, layers, keep=keep, progress=progress)
    progress.phase("quantisation: keeping the worst layers in fp32")
    failed, most = 0, int(MOST * len(free))
    count = 1
    while count < most and not search.holds(count):
        failed, count = count, 2 * count
    count = min(count, most)
    if count > failed and search.holds(count):
        search.halve(failed, count)
    return search.ended()


class _Search:
    """The trials of one search, by how many of the worst layers they keep."""

    def __init__(self, trials: Trials, fixed: tuple[str, ...], budget: float) -> None:
        self.trials, self.fixed, self.budget = trials, fixed, budget
        self.effects: tuple[LayerEffect, ...] = ()
        self.done: dict[int, Trial] = {}
        self.measure = ""

    def holds(self, count: int) -> bool:
        """Whether the budget holds with so many of the worst layers in fp32."""
        if count not in self.done:
            kept = (*self.fixed, *(entry.name for entry in self.effects[:count]))
            drop, self.measure = self.trials.drop(kept)
            self.done[count] = Trial(kept, drop)
        return self.done[count].drop <= self.budget

    def halve(self, failed: int, held: int) -> None:
        """Between a number that does not hold and one that does, find the least that does."""
        while held - failed > 1:
            middle = (failed + held) // 2
            if self.holds(middle):
                held = middle
            else:
                failed = middle

    def ended(self) -> Held:
        """The best of all trials."""
        holding = [count for count, trial in self.done.items() if trial.drop <= self.budget]
        best = min(holding) if holding else min(self.done, key=lambda count: (self.done[count].drop, count))
        return Held(
            self.done[best],
            self.budget,
            self.trials.pictures,
            self.measure,
            tuple(self.done.values()),
            self.effects,
        )


def _first(batches: Iterable[Arrays], count: int) -> list[Arrays]:
    """The first pictures, as batches; at least one batch, whole."""
    taken: list[Arrays] = []
    pictures = 0
    for batch in batches:
        taken.append(batch)
        pictures += len(next(iter(batch.values())))
        if pictures >= count:
            break
    return taken
