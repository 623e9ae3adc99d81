"""Parameters and multiply-accumulates of a config in closed form, so that listing sizes needs no torch.

A test holds the figures against the model itself. Multiply-accumulates are those of the matrix
products (patch projection, linear layers, both products of attention); additions, LayerNorm,
activations and softmax are left out, as is the field's custom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig


def count_parameters(config: ViTConfig) -> int:
    """The number of parameters of ``ViT(config)``."""
    dim = config.embed_dim
    patch = dim * config.in_channels * config.patch_size**2 + dim * config.patch_bias
    learned = config.positions == "learned"
    tokens = config.num_prefix_tokens + learned * (config.num_position_prefix + config.num_patches)
    norms = 2 * dim * (config.pre_norm + config.final_norm)
    tables = _table(config) if config.relative_positions == "shared" else 0
    if config.rotary is not None and config.rotary.learned:
        tables += config.depth * dim
    blocks = config.depth * _block_parameters(config)
    return patch + tokens * dim + norms + tables + blocks + _head_parameters(config)


def _table(config: ViTConfig) -> int:
    """Entries of a table of relative positions."""
    height, width = config.grid_size
    return ((2 * height - 1) * (2 * width - 1) + 3) * config.num_heads


def _block_parameters(config: ViTConfig) -> int:
    dim, mlp = config.embed_dim, config.mlp_dim
    wide = mlp * (2 if config.gated_mlp else 1)
    attention = 3 * dim * (dim + config.qkv_bias) + dim * (dim + config.proj_bias)
    layers = wide * (dim + config.mlp_bias) + dim * (mlp + config.mlp_bias)
    norms = (
        4 * dim + 4 * config.head_dim * config.qk_norm + 2 * dim * config.attn_norm + 2 * mlp * config.mlp_norm
    )
    table = _table(config) if config.relative_positions == "block" else 0
    return attention + layers + norms + table + 2 * dim * config.layer_scale


def _head_parameters(config: ViTConfig) -> int:
    dim, classes, wide = config.embed_dim, config.num_classes, config.embedding_dim
    total = config.projection_dim * (wide + config.projection_bias)
    if config.pool == "map":
        mlp = config.pool_mlp_dim or config.mlp_dim
        total += dim + 4 * dim * (dim + 1) + 2 * dim + mlp * (dim + 1) + dim * (mlp + 1)
    total += 2 * _pooled(config) * config.fc_norm
    total += config.representation_size * (_pooled(config) + 1)
    total += classes * (wide + config.head_bias)
    return total + (classes * (dim + 1) if config.distillation_head else 0)


def _pooled(config: ViTConfig) -> int:
    """Width of what the pool gives."""
    return config.embed_dim * (2 if config.pool == "token_avg" else 1)


def count_macs(config: ViTConfig) -> int:
    """Multiply-accumulates of one image through ``ViT(config)``, with its default outputs."""
    dim, mlp, tokens = config.embed_dim, config.mlp_dim, config.num_tokens
    patch = config.num_patches * config.in_channels * config.patch_size**2 * dim
    linear = tokens * dim * (3 * dim + dim + mlp * (3 if config.gated_mlp else 2))
    attention = 2 * tokens * tokens * dim
    return patch + config.depth * (linear + attention) + _head_macs(config)


def _head_macs(config: ViTConfig) -> int:
    dim = config.embed_dim
    tokens = config.num_tokens if config.pool_prefix else config.num_patches
    outputs = set(config.default_outputs)
    if outputs == {"tokens"}:
        return 0
    macs = config.representation_size * _pooled(config)
    if config.pool == "map":
        mlp = config.pool_mlp_dim or config.mlp_dim
        macs += dim * dim + 2 * tokens * dim * dim + 2 * tokens * dim + dim * dim + 2 * dim * mlp
    if "logits" in outputs:
        macs += config.num_classes * config.embedding_dim
        macs += config.num_classes * dim if config.distillation_head else 0
    if "image_embeds" in outputs:
        macs += config.projection_dim * config.embedding_dim
    return macs
