"""The config of a timm model, read off its modules: one function for each of timm's classes."""

from __future__ import annotations

from typing import Any

from vit_deploy.model.config import ViTConfig
from vit_deploy.model.rotary_config import RotaryConfig


class Unsupported(Exception):
    """A part that no ViTConfig can say; its text follows "it has"."""


def read_config(module: Any) -> ViTConfig:
    """The config of a model, read off the module.

    Raises:
        Unsupported: naming the part that no ViTConfig can say.
    """
    readers = {
        "VisionTransformer": read_vision_transformer,
        "VisionTransformerDistilled": read_distilled,
        "Eva": read_eva,
        "Beit": read_beit,
    }
    return readers[type(module).__name__](module)


def read_vision_transformer(module: Any) -> ViTConfig:
    """Of timm's ``VisionTransformer``."""
    from timm.layers import Attention, PatchEmbed
    from timm.models.vision_transformer import Block

    block = module.blocks[0]
    if type(block) is not Block:
        raise Unsupported(
            {
                "ResPostBlock": "norms after attention and MLP (post-norm)",
                "ParallelThingsBlock": "several attentions and MLPs side by side in a block",
                "ParallelScalingBlock": "attention and MLP side by side in a block",
                "DiffParallelScalingBlock": "differential attention",
            }[type(block).__name__]
        )
    if type(block.attn) is not Attention:
        raise Unsupported("differential attention")
    if type(module.patch_embed) is not PatchEmbed:
        raise Unsupported("a stem other than patches")
    parts = read_shared(module)
    learned = module.pos_embed is not None
    mapped = module.global_pool == "map"
    return ViTConfig(
        **parts,
        qkv_bias=block.attn.qkv.bias is not None,
        positions="learned" if learned else "none",
        position_scope="patches" if learned and module.no_embed_class else "all",
        layer_scale=hasattr(block.ls1, "gamma"),
        qk_norm=has_norm(block.attn.q_norm),
        attn_norm=has_norm(block.attn.norm),
        pool=pool_of(module, over_prefix=module.pool_include_prefix),
        pool_prefix=not mapped or module.pool_include_prefix or not module.num_prefix_tokens,
    )


def read_distilled(module: Any) -> ViTConfig:
    """Of timm's ``VisionTransformerDistilled``."""
    parts = read_vision_transformer(module).to_dict()
    heads = module.num_classes > 0
    changes = {"distillation_token": True, "distillation_head": heads, "num_registers": 0}
    return ViTConfig.from_dict({**parts, **changes, "pool": "token" if heads else "prefix_avg"})


def read_eva(module: Any) -> ViTConfig:
    """Of timm's ``Eva``."""
    block = module.blocks[0]
    if type(block).__name__ == "EvaBlockPostNorm":
        raise Unsupported("norms after attention and MLP (post-norm)")
    if getattr(block.attn, "num_kv_groups", 1) != 1 or any(
        getattr(other.attn, "num_kv_groups", 1) != 1 for other in module.blocks
    ):
        raise Unsupported("grouped-query attention and RMSNorm")
    if (block.gamma_1 is None) != (block.gamma_2 is None):
        raise Unsupported("RMSNorm, and LayerScale on attention alone")
    parts = read_shared(module)
    learned = module.pos_embed is not None
    query = block.attn.qkv if block.attn.qkv is not None else block.attn.q_proj
    return ViTConfig(
        **parts,
        qkv_bias=query.bias is not None or getattr(block.attn, "q_bias", None) is not None,
        positions="learned" if learned else "none",
        position_scope="patches" if learned and module.no_embed_class else "all",
        rotary=read_rotary(module.rope, block.attn),
        layer_scale=block.gamma_1 is not None,
        qk_norm=has_norm(block.attn.q_norm),
        attn_norm=has_norm(block.attn.norm),
        pool=pool_of(module, over_prefix=module.global_pool == "map"),
    )


def read_beit(module: Any) -> ViTConfig:
    """Of timm's ``Beit``."""
    attention = module.blocks[0].attn
    block, shared = attention.relative_position_bias_table is not None, module.rel_pos_bias is not None
    return ViTConfig(
        **read_shared(module),
        qkv_bias=attention.q_bias is not None,
        positions="learned" if module.pos_embed is not None else "none",
        relative_positions="block" if block else "shared" if shared else "none",
        layer_scale=module.blocks[0].gamma_1 is not None,
        pool=pool_of(module, over_prefix=False),
    )


def read_shared(module: Any) -> dict[str, Any]:
    """Sizes, norms, MLP, tokens and pooling, which all classes name alike."""
    embed, block = module.patch_embed, module.blocks[0]
    height, width = embed.patch_size
    if height != width:
        raise Unsupported("oblong patches")
    if block.attn.num_heads * getattr(block.attn, "head_dim", module.embed_dim // block.attn.num_heads) != (
        module.embed_dim
    ):
        raise Unsupported("heads whose widths do not add up to that of a token")
    if has_norm(embed.norm) or any("RmsNorm" in type(part).__name__ for part in module.modules()):
        raise Unsupported("RMSNorm")
    registers = getattr(module, "reg_token", None)
    return {
        "image_size": tuple(embed.img_size),
        "patch_size": height,
        "drop_remainder": any(side % height for side in embed.img_size),
        "in_channels": embed.proj.in_channels,
        "embed_dim": module.embed_dim,
        "depth": len(module.blocks),
        "num_heads": block.attn.num_heads,
        "num_classes": module.num_classes,
        "patch_bias": embed.proj.bias is not None,
        "proj_bias": block.attn.proj.bias is not None,
        "norm_eps": read_eps(module),
        "class_token": module.cls_token is not None,
        "num_registers": 0 if registers is None else registers.shape[1],
        "pre_norm": has_norm(getattr(module, "norm_pre", None)),
        "final_norm": has_norm(module.norm),
        "fc_norm": has_norm(module.fc_norm),
        **read_mlp(block.mlp),
        **read_attention_pool(getattr(module, "attn_pool", None), block),
    }


def read_eps(module: Any) -> float:
    """The epsilon that all norms share."""
    from torch import nn

    found = {part.eps for part in module.modules() if isinstance(part, nn.LayerNorm)}
    if len(found) != 1:
        raise Unsupported("norms of different epsilons")
    epsilon: float = found.pop()
    return epsilon


def has_norm(part: Any) -> bool:
    """Whether a norm is there, and no identity in its place."""
    from torch import nn

    return part is not None and not isinstance(part, nn.Identity)


def read_mlp(mlp: Any) -> dict[str, Any]:
    """Width, gate, norm and activation of a block's MLP."""
    gated = {"Mlp": False, "GluMlp": True, "SwiGLU": True}[type(mlp).__name__]
    if gated and getattr(mlp, "gate_last", False):
        raise Unsupported("a gate after the values")
    return {
        "mlp_dim": mlp.fc2.in_features,
        "gated_mlp": gated,
        "mlp_bias": mlp.fc2.bias is not None,
        "mlp_norm": has_norm(mlp.norm),
        "activation": read_activation(mlp.act),
    }


def read_activation(act: Any) -> Any:
    """Our name of an activation."""
    name = type(act).__name__
    names = {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu", "ReLU": "relu"}
    if name == "GELU":
        return "gelu_tanh" if getattr(act, "approximate", "none") == "tanh" else "gelu"
    return names[name]


def read_attention_pool(pool: Any, block: Any) -> dict[str, Any]:
    """Of attention pooling, what is not as in the blocks."""
    if pool is None:
        return {}
    if type(pool).__name__ != "AttentionPoolLatent" or pool.latent_len != 1:
        raise Unsupported("attention pooling without a learned query")
    width = pool.mlp.fc2.in_features
    return {
        "pool_heads": 0 if pool.num_heads == block.attn.num_heads else pool.num_heads,
        "pool_mlp_dim": 0 if width == block.mlp.fc2.in_features else width,
        "pool_activation": read_activation(pool.mlp.act),
    }


def pool_of(module: Any, *, over_prefix: bool) -> Any:
    """Our name of ``global_pool``."""
    kind = module.global_pool
    if kind == "avg":
        return "avg_all" if over_prefix else "avg"
    if kind not in {"token", "map", "max", "avgmax"}:
        raise Unsupported(f"{kind!r} pooling")
    return kind


def read_rotary(rope: Any, attention: Any) -> RotaryConfig | None:
    """Rotary positions, where there are any."""
    if rope is None:
        return None
    kind = type(rope).__name__
    axes: Any = {"ij": "yx", "xy": "xy"}[rope.grid_indexing]
    if kind == "RotaryEmbeddingMixed":
        return RotaryConfig(axes=axes, learned=True)
    if kind not in {"RotaryEmbeddingCat", "RotaryEmbeddingDinoV3"}:
        raise Unsupported("multimodal rotary positions")
    if rope.rotate_half != attention.rotate_half:
        raise Unsupported("rotary positions in two orders")
    reference = getattr(rope, "ref_feat_shape", None)
    centred = kind == "RotaryEmbeddingDinoV3"
    if centred and (rope.normalize_coords != "separate" or rope.min_period is not None):
        raise Unsupported("rotary positions scaled by another side, or by periods")
    return RotaryConfig(
        coordinates="centred" if centred else "index",
        theta=float(rope.temperature),
        offset=float(rope.grid_offset),
        reference_grid=tuple(reference) if reference is not None else None,
        axes=axes,
        pairing="halves" if rope.rotate_half else "interleaved",
    )
