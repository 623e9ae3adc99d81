"""Which runs judge an artefact: every sample once at the largest batch, a spread few at the smaller ones.

Every slot of the largest batch is filled; a fault of one batch size shows on the spread few, which are of
as many families as there are. Two more runs of the smallest sizes show how steady the backend is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.parity.declared import rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vit_deploy.parity.inputs import Sample

SPREAD = 8
"""How many samples are judged at each of the smaller batch sizes."""


@dataclass(frozen=True)
class Run:
    """One run of an artefact.

    Attributes:
        indices: which sample stands in each slot.
        again: whether it only shows how steady the backend is: such a run may fail an artefact by its
            worst ratio, and is no part of the 95th percentile.
    """

    indices: tuple[int, ...]
    again: bool = False

    @property
    def batch_size(self) -> int:
        """Images in the run."""
        return len(self.indices)


def spread_samples(samples: Sequence[Sample], count: int = SPREAD) -> tuple[int, ...]:
    """At most ``count`` samples of as many families as there are, the user's own pictures first.

    Returns:
        Their places among ``samples``, in order.
    """
    by_family: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        by_family.setdefault(sample.family, []).append(index)
    families = sorted(by_family.values(), key=lambda places: samples[places[0]].family != "image")
    longest = max(map(len, families))
    in_turn = [places[turn] for turn in range(longest) for places in families if turn < len(places)]
    return tuple(sorted(in_turn[:count]))


def plan_runs(
    samples: Sequence[Sample], batch_sizes: Sequence[int], spread: int = SPREAD, *, steadiness: bool = True
) -> list[Run]:
    """The runs, the smallest batch first.

    Args:
        samples: what is judged.
        batch_sizes: rising.
        spread: samples at each size but the largest.
        steadiness: whether the first run is done again, and once with its slots turned.
    """
    few = spread_samples(samples, spread)
    runs: list[Run] = []
    for size in batch_sizes:
        chosen = range(len(samples)) if size == batch_sizes[-1] else few
        at_size = [Run(tuple(chosen[place] for place in places)) for places in rounds(len(chosen), size)]
        extra = []
        if steadiness and size == batch_sizes[0]:
            extra.append(Run(at_size[0].indices, again=True))
        if steadiness and size == next((other for other in batch_sizes if other > 1), 0):
            turned = at_size[0].indices[1:] + at_size[0].indices[:1]
            extra.append(Run(turned, again=True))
        runs += [at_size[0], *extra, *at_size[1:]]
    return runs
