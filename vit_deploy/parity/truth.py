"""What an output is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_deploy.parity.criterion import Floats


@dataclass(frozen=True)
class Truth:
    """One output, over all samples.

    Attributes:
        exact: eager in float64, ``(s, ..., d)``.
        yardsticks: what a ratio of 1 means, ``(s, ...)``.
    """

    exact: Floats
    yardsticks: Floats
