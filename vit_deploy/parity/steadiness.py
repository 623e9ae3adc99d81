"""How much an artefact's outputs depend on what they should not depend on.

The same sample is met again: in the same run done twice, in another slot of the batch, at another batch
size. How far its outputs then lie apart is measured in yardsticks of the criterion. A kernel that adds in
another order for another shape moves them by a part of one, which is honest; so none of this is gated, and
all of it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.parity.criterion import relative_lengths

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from vit_deploy.parity.plan import Run
    from vit_deploy.parity.truth import Truth

    Outputs = Mapping[str, NDArray[Any]]

EFFECTS = ("run_to_run", "batch_position", "batch_size")


class Steadiness:
    """The largest difference of each kind.

    Args:
        truths: by output.
        watched: the samples that are compared; their outputs are kept, at each batch size.
    """

    def __init__(self, truths: Mapping[str, Truth], watched: Collection[int]) -> None:
        self._truths = truths
        self._watched = frozenset(watched)
        self._kept: dict[tuple[int, int], tuple[int, Outputs]] = {}
        self._before: tuple[int, ...] = ()
        self.effects: dict[str, float | None] = dict.fromkeys(EFFECTS)

    def add(self, run: Run, outputs: Outputs) -> None:
        """Compare one run with those before it.

        Args:
            run: which sample stood in which slot.
            outputs: finite outputs by name, each ``(batch_size, ...)``.
        """
        same_run = run.indices == self._before
        for slot, index in enumerate(run.indices):
            if index not in self._watched:
                continue
            found = {name: outputs[name][slot] for name in self._truths}
            for (sample, size), (place, kept) in self._kept.items():
                if sample != index:
                    continue
                if size != run.batch_size:
                    self._note("batch_size", index, found, kept)
                elif place != slot:
                    self._note("batch_position", index, found, kept)
                elif same_run:
                    self._note("run_to_run", index, found, kept)
            self._kept.setdefault(
                (index, run.batch_size), (slot, {name: array.copy() for name, array in found.items()})
            )
        self._before = run.indices

    def _note(self, effect: str, index: int, found: Outputs, kept: Outputs) -> None:
        apart = max(
            float(
                (relative_lengths(found[name], kept[name], truth.exact[index]) / truth.yardsticks[index]).max()
            )
            for name, truth in self._truths.items()
        )
        self.effects[effect] = max(self.effects[effect] or 0.0, apart)
