"""Configs that between them have every part a ViT can have, as changes to ``small_config``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vit_deploy.model.config import ViTConfig
from vit_deploy.model.rotary_config import RotaryConfig

PARTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no head": {"num_classes": 0},
    "no qkv bias": {"qkv_bias": False},
    "pre-logits": {"representation_size": 33},
    "distilled": {"distillation_token": True, "distillation_head": True},
    "second token, one head": {"distillation_token": True, "pool": "prefix_avg"},
    "grey": {"in_channels": 1},
    "registers": {"num_registers": 4, "position_scope": "class", "layer_scale": True},
    "positions of patches": {"num_registers": 1, "position_scope": "patches", "pool": "avg_all"},
    "no positions": {
        "positions": "none",
        "class_token": False,
        "pool": "avg",
        "fc_norm": True,
        "final_norm": False,
    },
    "CLIP": {
        "pre_norm": True,
        "patch_bias": False,
        "num_classes": 0,
        "projection_dim": 11,
        "activation": "quick_gelu",
    },
    "attention pooling": {"class_token": False, "pool": "map", "num_classes": 0, "pool_mlp_dim": 90},
    "biased projection": {"projection_dim": 11, "projection_bias": True},
    "attention pooling over patches": {"pool": "map", "pool_prefix": False},
    "attention pooling, fewer heads": {"pool": "map", "pool_heads": 3, "activation": "gelu_tanh"},
    "gated": {"gated_mlp": True, "mlp_norm": True, "attn_norm": True, "qk_norm": True, "activation": "silu"},
    "no biases": {"mlp_bias": False, "proj_bias": False, "head_bias": False, "activation": "relu"},
    "rotary": {"rotary": RotaryConfig(reference_grid=(7, 3), offset=1.0, axes="xy")},
    "centred rotary": {
        "rotary": RotaryConfig(coordinates="centred", theta=100.0, pairing="halves"),
        "positions": "none",
        "num_registers": 2,
    },
    "learned rotary": {"rotary": RotaryConfig(learned=True, axes="xy")},
    "relative positions": {"relative_positions": "block", "positions": "none", "pool": "token_avg"},
    "shared relative positions": {"relative_positions": "shared", "pool": "max"},
    "maximum and mean": {"pool": "avgmax"},
    "pixels left over": {"image_size": (35, 53), "drop_remainder": True},
}


def shrunk(config: ViTConfig) -> ViTConfig:
    """The same parts at sizes that run in milliseconds."""
    patch = min(config.patch_size, 4)
    return replace(
        config,
        image_size=(2 * patch, 3 * patch),
        patch_size=patch,
        embed_dim=24,
        depth=2,
        num_heads=2,
        mlp_dim=20,
        num_classes=min(config.num_classes, 5),
        num_registers=min(config.num_registers, 3),
        pool_heads=min(config.pool_heads, 3),
        pool_mlp_dim=min(config.pool_mlp_dim, 10),
        representation_size=min(config.representation_size, 7),
        projection_dim=min(config.projection_dim, 6),
    )
