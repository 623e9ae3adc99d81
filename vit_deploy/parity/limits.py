"""Every tolerance of the parity criterion, by declared precision, with the reason for each number.

A limit that is ``None`` gates nothing. Ratios gate where eager PyTorch has the precision, so that its own
error is a yardstick; decisions gate where it has not. Either can be asked for anywhere:
:meth:`Limits.with_changes`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from vit_deploy.errors import UsageFailed, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.spec import Precision


@dataclass(frozen=True)
class Limits:
    """The tolerances of one precision.

    Attributes:
        p95: the largest ratio allowed at the 95th percentile.
        worst: the largest ratio allowed anywhere.
        epsilon: the relative error that one block is granted even where eager happens to be exact, or is
            not there; a model of ``depth`` blocks is granted ``epsilon * sqrt(depth)``, as rounding errors
            add up like a random walk.
        typical: quantile of eager's absolute errors over all samples that is granted to each of
            them; ``None`` for no such grant.
        flips: on how many samples, near-ties left out, the first class may be another.
        top1: the share of samples whose first class must be the same, near-ties left out.
        top5: the share of samples whose first class must be among the artefact's first five.
        kl: the largest mean symmetric Kullback-Leibler divergence of the softmaxes, in nats.
        cosine: the least cosine between an embedding and the exact one, on any sample.
        recall: the least mean share of the ten nearest neighbours that are the same.
        confidence: of the bounds on ``top1`` and ``top5``.
    """

    p95: float | None
    worst: float | None
    epsilon: float
    typical: float | None = None
    flips: int | None = None
    top1: float | None = None
    top5: float | None = None
    kl: float | None = None
    cosine: float | None = None
    recall: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None and name not in _REQUIRED:
                continue
            low, high = _RANGES.get(name, (0.0, float("inf")))
            if value is None or not low <= value <= high or (name == "flips" and value != int(value)):
                raise UsageFailed(
                    f"the limit {name} is {value}",
                    expected=f"a {'whole ' if name == 'flips' else ''}number from {low:g} to {high:g}",
                )

    def floor(self, depth: int) -> float:
        """The smallest yardstick of a model of ``depth`` blocks."""
        return float(self.epsilon * depth**0.5)

    def with_changes(self, changes: Mapping[str, float | None]) -> Limits:
        """The same limits, but for some; ``None`` takes a limit away.

        Raises:
            UsageFailed: for a name that is none of :data:`NAMES`, or a value outside its range.
        """
        for name in changes:
            if name not in NAMES:
                raise unknown_name("limit", name, NAMES, "docs/parity.md")
        return replace(self, **changes)  # type: ignore[arg-type]

    def in_force(self) -> dict[str, float]:
        """Those that are not ``None``, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


NAMES: tuple[str, ...] = tuple(entry.name for entry in fields(Limits))
"""What can be set."""

_REQUIRED = frozenset({"epsilon", "confidence"})
_TINY = 2.0**-52
_RANGES: Mapping[str, tuple[float, float]] = {
    "epsilon": (_TINY, 1.0),
    "typical": (0.0, 1.0),
    "top1": (0.0, 1.0),
    "top5": (0.0, 1.0),
    "cosine": (-1.0, 1.0),
    "recall": (0.0, 1.0),
    "confidence": (0.5, 1 - 1e-9),
}

SUSPECT = 4.0
"""How often the declared rounding an error must be to be looked into where no limit of ratios is in force."""

LIMITS: Mapping[Precision, Limits] = MappingProxyType(
    {
        # An honest fp32 variant stays below a ratio of 2.5 on outputs of ten numbers and more, and comes near
        # 4 at the 95th percentile only on outputs of two or three; the tanh GELU stands at 300 and more.
        # 2^-23 is the spacing of float32 at 1: one honest rounding per block. No first class changes that
        # is no near-tie.
        "fp32": Limits(p95=4.0, worst=10.0, epsilon=2.0**-23, flips=0),
        # Half precision leaves less room between honest rounding and damage that a user would see, so
        # the limits are half of fp32's. Eager itself is the yardstick: its errors on ViT-S and ViT-B are
        # 0.36 * spacing * sqrt(depth), so a floor of a quarter of the spacing (2^-10, 2^-7) lies below
        # them, and only guards against 0. On outputs of few numbers eager's error on one sample is a
        # draw that can be near 0 by luck; what is typical over all samples, its upper quartile, is
        # granted to each. `python benchmarks/criterion.py` counts the honest variants that fail all the
        # same: 3 of 50 in bf16 on outputs of two numbers, and none on more.
        "fp16": Limits(p95=2.0, worst=4.0, epsilon=2.0**-12, typical=0.75, flips=0),
        "bf16": Limits(p95=2.0, worst=4.0, epsilon=2.0**-9, typical=0.75, flips=0),
        # Eager has neither of these two, so ratios gate nothing; they are told in units of epsilon, which is
        # what rounding every weight and activation leads to, over the root of the depth: 2^-6 for int8 and
        # 2^-5 for fp8 (E4M3), measured by `python benchmarks/criterion.py` on ViTs with random weights and on
        # the trained digits model. It also says which samples are near-ties.
        #
        # The budgets are what a user is asked to accept unless other ones are stated:
        # top1, top5: 95 %, the tightest share that 59 samples show where all agree; 98 % needs 149 of them.
        # kl: a hundredfold (int8) and twentyfold (fp8) of what honest rounding gives there, as classes are less
        # sure than in most trained models; 0.05 is what moving one of two classes from 60 % to 44 % costs.
        # cosine: an error of a fifth (int8) and a quarter (fp8) of the length of any one vector; honest
        # rounding stays below a seventeenth (0.9984) and a seventh (0.990).
        # recall: depends on how close the neighbours of the gallery stand; told, and gated where it is set.
        "int8": Limits(p95=None, worst=None, epsilon=2.0**-6, top1=0.95, top5=0.95, kl=0.05, cosine=0.98),
        "fp8": Limits(p95=None, worst=None, epsilon=2.0**-5, top1=0.95, top5=0.95, kl=0.1, cosine=0.97),
    }
)
"""Every tolerance by declared precision, each with its reason."""
