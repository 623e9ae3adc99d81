"""What sets a config apart from the plain ViT, in the field's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig

_POOLS = {
    "avg": "mean pooling",
    "avg_all": "mean pooling",
    "max": "max pooling",
    "avgmax": "mean and max pooling",
    "token_avg": "class token and mean side by side",
    "prefix_avg": "mean of the prefix tokens",
    "map": "attention pooling",
}
_ACTIVATIONS = {"gelu_tanh": "tanh GELU", "quick_gelu": "QuickGELU", "silu": "SiLU", "relu": "ReLU"}


def parts_in_words(config: ViTConfig) -> tuple[str, ...]:
    """The parts beyond a class token, learned positions and a plain MLP, and those that are missing."""
    rotary = config.rotary
    present = {
        "no class token": not config.class_token and config.pool not in {"map"},
        "distillation token": config.distillation_token,
        f"{config.num_registers} registers": config.num_registers > 0,
        "no learned positions": config.positions == "none",
        "learned RoPE": rotary is not None and rotary.learned,
        "RoPE": rotary is not None and not rotary.learned,
        "relative positions": config.relative_positions != "none",
        "pre-norm": config.pre_norm,
        "LayerScale": config.layer_scale,
        "QK norm": config.qk_norm,
        "norm in attention": config.attn_norm,
        "norm in MLP": config.mlp_norm,
        "SwiGLU": config.gated_mlp and config.activation == "silu",
        f"gated {_ACTIVATIONS.get(config.activation, 'GELU')}": config.gated_mlp
        and config.activation != "silu",
        _ACTIVATIONS.get(config.activation, ""): not config.gated_mlp and config.activation != "gelu",
        _POOLS.get(config.pool, ""): config.pool != "token",
        "tanh pre-logits": config.representation_size > 0,
        f"projection to {config.projection_dim}": config.projection_dim > 0,
    }
    return tuple(words for words, there in present.items() if there)
