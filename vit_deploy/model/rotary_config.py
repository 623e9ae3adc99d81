"""``RotaryConfig``: how rotary positions (RoPE) are counted, paired and turned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RotaryConfig:
    """Rotary position embedding over the two axes of the patch grid (RoPE).

    A patch at coordinate ``t`` on an axis turns pair ``j`` of that axis by ``t · theta^(−j/m)``, where
    ``m`` is a quarter of the width of a head. Prefix tokens are not turned.

    Attributes:
        coordinates: ``index`` counts patches (EVA-02, RoPE-ViT); ``centred`` runs over 2π times
            −1 to 1 from the outer edges of the picture (DINOv3).
        theta: the base of the frequencies; unused where they are learned.
        offset: added to each index.
        reference_grid: ``(rows, columns)`` that the indices are scaled to, whatever the picture's size.
        axes: whose pairs come first, those of ``y`` or of ``x``.
        pairing: whether a pair stands side by side (``interleaved``) or half a head apart (``halves``).
        learned: frequencies are weights, for each block and head, and mix both axes (RoPE-mixed).
    """

    coordinates: Literal["index", "centred"] = "index"
    theta: float = 10_000.0
    offset: float = 0.0
    reference_grid: tuple[int, int] | None = None
    axes: Literal["yx", "xy"] = "yx"
    pairing: Literal["interleaved", "halves"] = "interleaved"
    learned: bool = False

    def __post_init__(self) -> None:
        # JSON gives lists; the field is a pair wherever it comes from.
        if self.reference_grid is not None:
            object.__setattr__(self, "reference_grid", tuple(self.reference_grid))
