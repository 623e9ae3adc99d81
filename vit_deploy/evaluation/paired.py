"""What two classifiers on the same pictures show of the difference between them.

They answer the same pictures, so their errors go together: the interval of a difference between two
independent shares would be far too wide. Only pictures that one has right and the other wrong say anything.

* Whether there is a difference at all: McNemar's test in its exact form, which is the binomial test of
  ``lost`` against ``gained`` (Q. McNemar, Psychometrika 12 (1947), https://doi.org/10.1007/BF02295996).
* How large it is: Tango's score interval of the difference of paired shares (T. Tango, "Equivalence test and
  confidence interval for the difference in proportions for the paired-sample design", Statistics in
  Medicine 17 (1998), 891-908), which holds its confidence on few discordant pictures, and on none. It is made
  by turning a score test around, so a bound of it is itself the test of "larger than so many points".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vit_deploy.parity.binomial import clopper_pearson

CONFIDENCE = 0.95

Ruling = Literal["held", "exceeded", "open"]
"""What is shown of a budget: that it holds, that it does not, or neither."""

_STEPS = 60
"""Halvings of the interval from -1 to 1: past the precision of a float64."""


@dataclass(frozen=True)
class Share:
    """So many of so many, with the interval of Clopper and Pearson.

    Attributes:
        right: how many.
        of: of how many.
        low: lower end of the two-sided interval.
        high: its upper end.
    """

    right: int
    of: int
    low: float
    high: float

    @classmethod
    def counted(cls, right: int, of: int, confidence: float = CONFIDENCE) -> Share:
        """The share with its interval; a one-sided bound at each end has half of what may fail."""
        low, high = clopper_pearson(right, of, 1 - (1 - confidence) / 2)
        return cls(right, of, low, high)

    @property
    def share(self) -> float:
        """Between 0 and 1; NaN of none."""
        return self.right / self.of if self.of else math.nan


@dataclass(frozen=True)
class Drop:
    """How many points of accuracy are lost from one classifier to another, on the same pictures.

    Attributes:
        lost: pictures that the first had right and the second has wrong.
        gained: the other way round.
        of: all pictures.
    """

    lost: int
    gained: int
    of: int

    @property
    def points(self) -> float:
        """In percentage points; negative where the second is better."""
        return 100 * (self.lost - self.gained) / self.of if self.of else math.nan

    @property
    def p_value(self) -> float:
        """McNemar's exact two-sided p: how likely so lopsided a change is where there is no difference."""
        from scipy.special import bdtr

        changed = self.lost + self.gained
        if not changed:
            return 1.0
        return min(1.0, 2 * float(bdtr(min(self.lost, self.gained), changed, 0.5)))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Tango's two-sided interval in points."""
        return self._bounds(1 - (1 - confidence) / 2)

    def ruling(self, budget: float, confidence: float = CONFIDENCE) -> Ruling:
        """What is shown of "at most ``budget`` points", with an error of at most ``1 - confidence``.

        Returns:
            ``exceeded`` when the one-sided lower bound of the drop lies above the budget, ``held`` when the
            upper one does not lie above it, ``open`` when neither.
        """
        low, high = self._bounds(confidence)
        return "exceeded" if low > budget else "held" if high <= budget else "open"

    def needed(self, budget: float, confidence: float = CONFIDENCE) -> int | None:
        """How many pictures would show that the budget holds, where as many of them change as of these.

        Returns:
            ``None`` where no number would: as many points are lost as the budget has, or more.
        """
        if not self.of or self.points >= budget:
            return None
        low, high = 0, max(1, self.of)
        while not self._scaled(high)._shows(budget, confidence):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            shown = self._scaled(middle)._shows(budget, confidence)
            low, high = (low, middle) if shown else (middle, high)
        return high

    def _shows(self, budget: float, confidence: float) -> bool:
        return self.of > 0 and self._bounds(confidence)[1] <= budget

    def _scaled(self, of: int) -> Drop:
        """The same shares of another number of pictures, rounded against the second classifier."""
        lost = math.ceil(self.lost * of / self.of)
        gained = math.floor(self.gained * of / self.of)
        return Drop(lost, min(gained, of - min(lost, of)), of)

    def _bounds(self, confidence: float) -> tuple[float, float]:
        """The lower and the upper one-sided bound in points, each at ``confidence``."""
        from scipy.special import ndtri

        if not self.of:
            return -100.0, 100.0
        limit = float(ndtri(confidence))
        return 100 * self._where_score_is(limit), 100 * self._where_score_is(-limit)

    def _where_score_is(self, target: float) -> float:
        """The difference whose score is ``target``; the score falls as the difference grows."""
        low, high = -1.0, 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._score(middle) > target else (low, middle)
        return (low + high) / 2

    def _score(self, difference: float) -> float:
        """Tango's statistic of "the true difference is ``difference``": standard normal where it is.

        The share of gained pictures is that of the greatest likelihood under it, the root of a quadratic
        (his equation 8).
        """
        n, lost, gained = self.of, self.lost, self.gained
        linear = -lost - gained + (2 * n - lost + gained) * difference
        constant = -gained * difference * (1 - difference)
        root = math.sqrt(max(0.0, linear * linear - 8 * n * constant))
        share = (root - linear) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        above = lost - gained - n * difference
        if variance <= 0:
            return math.copysign(math.inf, above) if above else 0.0
        return above / math.sqrt(variance)
