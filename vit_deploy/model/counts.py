"""Parameters and multiply-accumulates of a config in closed form, so that listing sizes needs no torch.

A test holds the figures against the model itself. Multiply-accumulates are those of the matrix
products (patch projection, linear layers, both products of attention); additions, LayerNorm, GELU
and softmax are left out, as is the field's custom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig


def count_parameters(config: ViTConfig) -> int:
    """The number of parameters of ``ViT(config)``."""
    dim, mlp = config.embed_dim, config.mlp_dim
    patch = dim * config.in_channels * config.patch_size**2 + dim
    tokens = (config.num_prefix_tokens + config.num_tokens) * dim
    qkv = 3 * dim * dim + (3 * dim if config.qkv_bias else 0)
    block = 4 * dim + qkv + (dim * dim + dim) + (dim * mlp + mlp) + (mlp * dim + dim)
    total = patch + tokens + config.depth * block + 2 * dim
    if config.representation_size:
        total += config.representation_size * (dim + 1)
    total += config.num_classes * (config.embedding_dim + 1) if config.num_classes else 0
    return total + (config.num_classes * (dim + 1) if config.distillation_head else 0)


def count_macs(config: ViTConfig) -> int:
    """Multiply-accumulates of one image through ``ViT(config)``, with its default outputs."""
    dim, mlp, tokens = config.embed_dim, config.mlp_dim, config.num_tokens
    patch = config.num_patches * config.in_channels * config.patch_size**2 * dim
    linear = tokens * dim * (3 * dim + dim + 2 * mlp)
    attention = 2 * tokens * tokens * dim
    heads = config.representation_size * dim + config.num_classes * config.embedding_dim
    if config.distillation_head:
        heads += config.num_classes * dim
    return patch + config.depth * (linear + attention) + heads
