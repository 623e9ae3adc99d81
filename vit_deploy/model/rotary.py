"""Rotary position embedding over the patch grid (RoPE).

Su et al. 2021 (https://arxiv.org/abs/2104.09864) turn each pair of numbers in queries and keys by an
angle that grows with the position. In two dimensions half of the pairs go by rows and half by columns
(EVA-02, https://arxiv.org/abs/2303.11331; DINOv3, https://arxiv.org/abs/2508.10104), or each pair
by a learned mixture of both (Heo et al. 2024, https://arxiv.org/abs/2403.13298).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.layout import Layout
    from vit_deploy.model.rotary_config import RotaryConfig


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of every token's angles, ``(n, dh)``, or ``(k, n, dh)`` where heads differ."""

    cos: Tensor
    sin: Tensor


class RotaryPositions(nn.Module):
    """Makes the rotation of each block from the size of the patch grid.

    Prefix tokens have angle 0, so that they stay exactly as they are and no token has to be cut off.
    A grid of a fixed size is computed in float64, which an exporter can fold into constants; one whose
    size is known only at run time in the parameters' own dtype.
    """

    def __init__(self, config: ViTConfig, *, dynamic_size: bool) -> None:
        super().__init__()
        assert config.rotary is not None
        self.rotary: RotaryConfig = config.rotary
        self.head_dim = config.head_dim
        self.depth = config.depth
        self.num_prefix_tokens = config.num_prefix_tokens
        self.dynamic_size = dynamic_size
        pairs = self.head_dim // 2
        self.freqs = (
            nn.Parameter(torch.zeros(2, config.depth, config.num_heads, pairs)) if self.rotary.learned else None
        )

    def forward(self, height: int, width: int, like: Tensor) -> list[Rotation]:
        """One rotation per block for a grid of ``height`` x ``width`` patches, in ``like``'s dtype."""
        if self.freqs is not None:
            angles = self._mixed_angles(self.freqs, height, width)
            return [self._rotation(part, like) for part in angles.unbind(0)]
        return [self._rotation(self._axial_angles(height, width, like), like)] * self.depth

    def _coordinates(self, height: int, width: int, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Of each patch on the first and on the second axis, each ``(h w)``."""
        reference = self.rotary.reference_grid or (None, None)
        rows = self._along(height, reference[0], like, dtype).unsqueeze(1).expand(height, width).flatten()
        columns = self._along(width, reference[1], like, dtype).unsqueeze(0).expand(height, width).flatten()
        return (rows, columns) if self.rotary.axes == "yx" else (columns, rows)

    def _along(self, size: int, reference: int | None, like: Tensor, dtype: torch.dtype) -> Tensor:
        index = torch.arange(size, device=like.device).to(dtype)
        if self.rotary.coordinates == "centred":
            centred = (index + 0.5 + self.rotary.offset) / size * 2 - 1
            return centred * (2 * math.pi)
        index = index + self.rotary.offset
        return index if reference is None else index / size * reference

    def _axial_angles(self, height: int, width: int, like: Tensor) -> Tensor:
        """``(h w, dh/2)``: the pairs of one axis, then those of the other."""
        quarter = self.head_dim // 4
        dtype = like.dtype if self.dynamic_size else torch.float64
        exponents = torch.arange(quarter, device=like.device).to(torch.float64) / quarter
        frequencies = torch.pow(torch.full_like(exponents, self.rotary.theta), -exponents).to(dtype)
        first, second = self._coordinates(height, width, like, dtype)
        return torch.cat([first.unsqueeze(1) * frequencies, second.unsqueeze(1) * frequencies], dim=1)

    def _mixed_angles(self, freqs: Tensor, height: int, width: int) -> Tensor:
        """``(depth, k, h w, dh/2)``."""
        first, second = self._coordinates(height, width, freqs, freqs.dtype)
        by_first, by_second = freqs.unbind(0)
        return first.unsqueeze(1) * by_first.unsqueeze(-2) + second.unsqueeze(1) * by_second.unsqueeze(-2)

    def _rotation(self, angles: Tensor, like: Tensor) -> Rotation:
        angles = F.pad(angles, (0, 0, self.num_prefix_tokens, 0))
        cos, sin = (self._paired(part).to(like.dtype) for part in (angles.cos(), angles.sin()))
        return Rotation(cos, sin)

    def _paired(self, half: Tensor) -> Tensor:
        """Each number for both of its pair: ``dh/2`` to ``dh``."""
        if self.rotary.pairing == "halves":
            return torch.cat([half, half], dim=-1)
        return torch.stack([half, half], dim=-1).flatten(-2)


class Rotate(nn.Module):
    """Turns queries or keys ``(b, k, n, dh)`` by a :class:`Rotation`."""

    def __init__(self, rotary: RotaryConfig, layout: Layout) -> None:
        super().__init__()
        self.quarter_turn = layout.quarter_turn(rotary.pairing)

    def forward(self, heads: Tensor, rotation: Rotation) -> Tensor:
        """``(b, k, n, dh)`` to the same."""
        turned: Tensor = self.quarter_turn(heads)
        return heads * rotation.cos + turned * rotation.sin
