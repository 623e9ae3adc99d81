"""From tokens to one vector per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses
from torch import Tensor, nn

from vit_deploy.model.mlp import MLP

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.layout import Layout


class AttentionPool(nn.Module):
    """One learned query looks at all tokens, or at all patches: ``(b, n, d)`` to ``(b, d)``.

    The MAP head of Zhai et al. 2022 (https://arxiv.org/abs/2106.04560), as SigLIP has it.
    """

    def __init__(self, config: ViTConfig, layout: Layout) -> None:
        super().__init__()
        dim = config.embed_dim
        heads = config.pool_heads or config.num_heads
        self.num_left_out = 0 if config.pool_prefix else config.num_prefix_tokens
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = MLP(dim, config.pool_mlp_dim or config.mlp_dim, config.pool_activation)
        self.split_query = layout.split_one_head_set(heads)
        self.split_keys_and_values = layout.split_keys_and_values(heads)
        self.merge_heads = layout.merge_heads()

    def forward(self, tokens: Tensor) -> Tensor:
        """``(b, n, d)`` to ``(b, d)``."""
        if self.num_left_out:
            tokens = tokens[:, self.num_left_out :]
        query = self.split_query(self.q(self.latent)).expand(tokens.shape[0], -1, -1, -1)
        key, value = self.split_keys_and_values(self.kv(tokens))
        mixed = self.proj(self.merge_heads(F.scaled_dot_product_attention(query, key, value)))
        pooled: Tensor = mixed + self.mlp(self.norm(mixed))
        return pooled[:, 0]


class TokenPool(nn.Module):
    """Picks or averages tokens: ``(b, n, d)`` to ``(b, d)``, or ``(b, 2d)`` for ``token_avg``."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.kind = config.pool
        self.num_prefix_tokens = config.num_prefix_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """``(b, n, d)`` to ``(b, d)`` or ``(b, 2d)``."""
        patches = tokens[:, self.num_prefix_tokens :]
        if self.kind == "token":
            return tokens[:, 0]
        if self.kind == "avg":
            return patches.mean(dim=1)
        if self.kind == "avg_all":
            return tokens.mean(dim=1)
        if self.kind == "max":
            return patches.amax(dim=1)
        if self.kind == "avgmax":
            return 0.5 * (patches.amax(dim=1) + patches.mean(dim=1))
        if self.kind == "token_avg":
            return torch.cat([tokens[:, 0], patches.mean(dim=1)], dim=1)
        return tokens[:, : self.num_prefix_tokens].mean(dim=1)
