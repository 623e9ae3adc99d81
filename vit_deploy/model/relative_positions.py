"""Relative position bias on attention, as in BEiT (Bao et al. 2022, https://arxiv.org/abs/2106.08254)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASS_ENTRIES = 3
"""Entries of the table that are no distance: class to patch, patch to class, class to itself."""


def table_length(grid_size: tuple[int, int]) -> int:
    """Entries of the table for a grid of patches and a class token."""
    height, width = grid_size
    return (2 * height - 1) * (2 * width - 1) + CLASS_ENTRIES


class RelativePositionIndex(nn.Module):
    """Which entry of the table each pair of tokens looks up: ``(n, n)`` of int64, class token first."""

    def __init__(self, grid_size: tuple[int, int]) -> None:
        super().__init__()
        self.grid_size = grid_size

    def forward(self, like: Tensor) -> Tensor:
        """The index, on ``like``'s device."""
        height, width = self.grid_size
        rows = torch.arange(height, device=like.device).unsqueeze(1).expand(height, width).flatten()
        columns = torch.arange(width, device=like.device).unsqueeze(0).expand(height, width).flatten()
        down = rows.unsqueeze(1) - rows.unsqueeze(0) + (height - 1)
        right = columns.unsqueeze(1) - columns.unsqueeze(0) + (width - 1)
        distances = down * (2 * width - 1) + right
        count = table_length(self.grid_size)
        to_class = torch.full((height * width, 1), count - 2, dtype=torch.int64, device=like.device)
        from_class = torch.full((1, height * width), count - 3, dtype=torch.int64, device=like.device)
        itself = torch.full((1, 1), count - 1, dtype=torch.int64, device=like.device)
        first_row = torch.cat([itself, from_class], dim=1)
        return torch.cat([first_row, torch.cat([to_class, distances], dim=1)], dim=0)


class RelativePositionBias(nn.Module):
    """A bias for each head and pair of tokens: ``(1, k, n, n)``."""

    def __init__(self, grid_size: tuple[int, int], num_heads: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_length(grid_size), num_heads))

    def forward(self, index: Tensor) -> Tensor:
        """``(n, n)`` of int64 to ``(1, k, n, n)``."""
        tokens = index.shape[0]
        looked_up = self.relative_position_bias_table.index_select(0, index.flatten())
        return torch.unflatten(looked_up, 0, (tokens, tokens)).permute(2, 0, 1).unsqueeze(0)
