"""What a user of an artefact's scores would notice: another first class, another first five, other odds.

Decisions are counted over samples: one agrees where it does so in every run that it was part of. Samples on
which honest rounding may swap two classes (near-ties) are counted apart; they are no evidence either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_deploy.parity.binomial import clopper_pearson, needed
from vit_deploy.parity.criterion import near_ties

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vit_deploy.parity.criterion import Floats
    from vit_deploy.parity.limits import Limits
    from vit_deploy.parity.truth import Truth

TOP = 5


@dataclass(frozen=True)
class Findings:
    """What gates a verdict: what breaks a limit, and what too few samples leave open; a sentence each."""

    broken: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    gated: bool = False

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.broken + other.broken, self.open + other.open, self.gated or other.gated)


@dataclass(frozen=True)
class Agreement:
    """On how many samples one decision is the same.

    Attributes:
        agreed: of the clear ones.
        of: samples that are no near-tie.
        near_ties: the others.
        near_ties_agreed: of the others.
    """

    agreed: int
    of: int
    near_ties: int
    near_ties_agreed: int

    @classmethod
    def over(cls, same: NDArray[np.bool_], ties: NDArray[np.bool_]) -> Agreement:
        """Counted over samples, ``(s,)`` each."""
        clear = ~ties
        return cls(int((same & clear).sum()), int(clear.sum()), int(ties.sum()), int((same & ties).sum()))

    def findings(self, name: str, budget: float | None, confidence: float) -> Findings:
        """Whether the share that agrees is shown to be at least ``budget``."""
        if budget is None:
            return Findings()
        lower, upper = clopper_pearson(self.agreed, self.of, confidence)
        seen = (
            f"{name} agrees on {self.agreed} of {self.of} clear samples, so that with {confidence:.0%} "
            f"confidence it does on"
        )
        if lower >= budget:
            return Findings(gated=True)
        if upper < budget:
            return Findings((f"{seen} {upper:.1%} of all at most (budget {budget:.1%})",), gated=True)
        count = needed(self.of - self.agreed, budget, confidence)
        wanted = (
            "no number of samples shows it"
            if count is None
            else f"{count} clear samples would show it, {count - self.of} more than there are"
        )
        return Findings(
            open=(f"{seen} {lower:.1%} of all at least, and the budget is {budget:.1%}: {wanted}",), gated=True
        )

    def to_dict(self, budget: float | None, confidence: float) -> dict[str, Any]:
        """The counts and their bounds, as plain data."""
        lower, upper = clopper_pearson(self.agreed, self.of, confidence)
        figures: dict[str, Any] = {
            "agreed": self.agreed,
            "of": self.of,
            "near_ties": self.near_ties,
            "near_ties_agreed": self.near_ties_agreed,
            "lower_bound": lower,
            "upper_bound": upper,
            "confidence": confidence,
        }
        if budget is not None:
            figures["samples_needed"] = needed(self.of - self.agreed, budget, confidence)
        return figures


class Decisions:
    """The decisions of one artefact over all samples.

    Args:
        truth: of the logits, ``(s, k)`` with ``k >= 2``.
        names: of the samples.
    """

    def __init__(self, truth: Truth, names: Sequence[str]) -> None:
        import numpy as np

        self._exact, self._names = truth.exact, names
        count, classes = truth.exact.shape
        self._first = truth.exact.argmax(axis=-1)
        self._scores = softmax(truth.exact)
        self._ties = near_ties(truth.exact, truth.yardsticks)
        self._ties_top = near_ties(truth.exact, truth.yardsticks, TOP) if classes > TOP else None
        self._seen = np.zeros(count, dtype=bool)
        self._same = np.ones(count, dtype=bool)
        self._same_top = np.ones(count, dtype=bool)
        self._divergence = np.zeros(count)
        self._told: dict[int, tuple[int, float]] = {}

    def add(self, indices: Sequence[int], logits: NDArray[Any]) -> None:
        """Note the decisions of one run.

        Args:
            indices: which sample stood in each slot.
            logits: finite, ``(batch_size, k)``.
        """
        import numpy as np

        found = logits.astype(np.float64)
        scores = softmax(found)
        divergence = symmetric_divergence(found, self._exact[list(indices)])
        for slot, index in enumerate(indices):
            first, exact = int(found[slot].argmax()), self._first[index]
            # What is told of a sample is the run in which it differs, where there is one.
            if index not in self._told or (first != exact and self._same[index]):
                self._told[index] = (first, float(scores[slot, first]))
            self._seen[index] = True
            self._same[index] &= first == exact
            self._same_top[index] &= bool((found[slot] > found[slot, exact]).sum() < TOP)
            self._divergence[index] = max(self._divergence[index], divergence[slot])

    def _agreements(self) -> dict[str, Agreement]:
        seen = self._seen
        found = {"top1": Agreement.over(self._same[seen], self._ties[seen])}
        if self._ties_top is not None:
            found["top5"] = Agreement.over(self._same_top[seen], self._ties_top[seen])
        return found

    def findings(self, limits: Limits) -> Findings:
        """What the limits say of the decisions."""
        found = self._flips(limits.flips)
        for name, agreement in self._agreements().items():
            said = {"top1": "the first class", "top5": "eager's first class among the first five"}[name]
            found += agreement.findings(said, getattr(limits, name), limits.confidence)
        if limits.kl is not None:
            mean = float(self._divergence[self._seen].mean())
            told = f"the symmetric KL divergence is {mean:.4g} nats in the mean (limit {limits.kl:g})"
            found += Findings(() if mean <= limits.kl else (told,), gated=True)
        return found

    def _flips(self, allowed: int | None) -> Findings:
        """Samples with another first class that is no near-tie."""
        flipped = [int(index) for index in (self._seen & ~self._same & ~self._ties).nonzero()[0]]
        if allowed is None or len(flipped) <= allowed:
            return Findings()
        shown = ", ".join(
            f"{self._names[index]!r} ({int(self._first[index])} became {self._told[index][0]})"
            for index in flipped[:3]
        )
        more = f" and {len(flipped) - 3} more" if len(flipped) > 3 else ""
        limit = f" (limit {allowed})" if allowed else ""
        return Findings(
            (f"another first class on {len(flipped)} samples that are no near-ties{limit}: {shown}{more}",)
        )

    def top1(self) -> dict[str, int]:
        """The counts of first classes."""
        found = self._agreements()["top1"]
        return {
            "agreed": found.agreed,
            "of": found.of,
            "near_ties": found.near_ties,
            "near_ties_agreed": found.near_ties_agreed,
        }

    def details(self, limits: Limits) -> dict[str, Any]:
        """Every figure, as plain data."""
        divergence = self._divergence[self._seen]
        return {
            **{
                name: agreement.to_dict(getattr(limits, name), limits.confidence)
                for name, agreement in self._agreements().items()
            },
            "kl": {"mean": float(divergence.mean()), "max": float(divergence.max())},
        }

    def near_tie(self, index: int) -> bool:
        """Whether honest rounding may give a sample another first class."""
        return bool(self._ties[index])

    def of_sample(self, index: int) -> dict[str, Any] | None:
        """Its first class and the probability of that, by eager and by the artefact."""
        if index not in self._told:
            return None
        first = int(self._first[index])
        return {"eager": [first, float(self._scores[index, first])], "artefact": [*self._told[index]]}


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    import numpy as np

    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return scores


def symmetric_divergence(one: Floats, other: Floats) -> Floats:
    """The mean of both directions of the Kullback-Leibler divergence of the softmaxes, in nats.

    That is ``sum((p - q) * (log p - log q)) / 2``, computed from logits, so that no probability that
    vanishes has its logarithm taken.

    Args:
        one: logits, ``(..., k)``.
        other: likewise.

    Returns:
        ``(...)``.
    """
    import numpy as np

    apart = one - other
    # A constant added to all logits of a sample changes nothing in theory; taking it out keeps digits.
    apart = apart - apart.mean(axis=-1, keepdims=True)
    total: Floats = 0.5 * ((softmax(one) - softmax(other)) * apart).sum(axis=-1)
    return np.maximum(total, 0.0)
