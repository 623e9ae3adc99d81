"""Multi-head self-attention, with the positions that act inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from vit_deploy.model.relative_positions import RelativePositionBias
from vit_deploy.model.rotary import Rotate

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.layout import Layout
    from vit_deploy.model.rotary import Rotation


class Attention(nn.Module):
    """Multi-head self-attention over ``(b, n, d)``."""

    def __init__(self, config: ViTConfig, layout: Layout) -> None:
        super().__init__()
        dim, eps = config.embed_dim, config.norm_eps
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.q_norm = nn.LayerNorm(config.head_dim, eps=eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(config.head_dim, eps=eps) if config.qk_norm else nn.Identity()
        self.rotate = Rotate(config.rotary, layout) if config.rotary else None
        self.rel_pos = (
            RelativePositionBias(config.grid_size, config.num_heads)
            if config.relative_positions == "block"
            else None
        )
        self.norm = nn.LayerNorm(dim, eps=eps) if config.attn_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=config.proj_bias)
        self.split_heads = layout.split_heads(config.num_heads)
        self.merge_heads = layout.merge_heads()

    def forward(
        self,
        tokens: Tensor,
        rotation: Rotation | None = None,
        index: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """``(b, n, d)`` to ``(b, n, d)``.

        Args:
            tokens: normalised.
            rotation: what queries and keys are turned by.
            index: of the table of relative positions, where this block has one.
            bias: ``(1, k, n, n)``, added to the scores; shared by all blocks.
        """
        query, key, value = self.split_heads(self.qkv(tokens))
        query, key = self.q_norm(query), self.k_norm(key)
        if self.rotate is not None and rotation is not None:
            query, key = self.rotate(query, rotation), self.rotate(key, rotation)
        if self.rel_pos is not None and index is not None:
            bias = self.rel_pos(index)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        projected: Tensor = self.proj(self.norm(self.merge_heads(mixed)))
        return projected
