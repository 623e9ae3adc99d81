"""Learned positions, added to the tokens; resampled in the graph where the image size is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vit_deploy.model.resample import resample_grid

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig


class LearnedPositions(nn.Module):
    """Joins prefix tokens and patches and adds the learned positions to those that have one.

    The positions themselves are the model's own parameter ``pos_embed``.
    """

    def __init__(self, config: ViTConfig, *, dynamic_size: bool) -> None:
        super().__init__()
        self.scope = config.position_scope
        self.num_prefix = config.num_position_prefix
        self.native_grid = config.grid_size
        self.resampling = config.position_resampling
        self.dynamic_size = dynamic_size

    def forward(
        self, prefix: list[Tensor], patches: Tensor, pos_embed: Tensor | None, grid: tuple[int, int]
    ) -> Tensor:
        """The sequence ``(b, n, d)``.

        Args:
            prefix: class token, distillation token, registers: those there are, ``(b, m, d)`` each.
            patches: ``(b, h·w, d)``.
            pos_embed: ``(1, m + h·w, d)`` at the native size, or ``None``.
            grid: rows and columns of patches.
        """
        if pos_embed is None:
            return torch.cat([*prefix, patches], dim=1)
        pos_embed = self._at(pos_embed, grid)
        if self.scope == "patches":
            return torch.cat([*prefix, patches + pos_embed], dim=1)
        if self.scope == "all":
            return torch.cat([*prefix, patches], dim=1) + pos_embed
        # Registers come between the class token and the patches, and have no position.
        count = self.num_prefix
        placed = [token + pos_embed[:, at : at + 1] for at, token in enumerate(prefix[:count])]
        return torch.cat([*placed, *prefix[count:], patches + pos_embed[:, count:]], dim=1)

    def _at(self, pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
        if not self.dynamic_size:
            return pos_embed
        prefix, patches = pos_embed[:, : self.num_prefix], pos_embed[:, self.num_prefix :]
        resampled = resample_grid(patches[0], self.native_grid, grid, self.resampling)
        return torch.cat([prefix, resampled.unsqueeze(0)], dim=1)
