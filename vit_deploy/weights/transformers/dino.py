"""DINOv2, with and without registers, and DINOv3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.weights.transformers import settings as s
from vit_deploy.weights.transformers.family import Family, ModelClass, Rule
from vit_deploy.weights.transformers.names import AFFINE, NUMBER
from vit_deploy.weights.transformers.vit import ATTENTION, CLASSIFIER, EMBEDDINGS, MASK, SETTINGS, TOLD

if TYPE_CHECKING:
    from vit_deploy.weights.transformers.family import Reading

_BLOCK_PARTS = (
    *ATTENTION,
    Rule(rf"norm([12]){AFFINE}", r"norm\1.\2"),
    Rule(r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    Rule(rf"mlp\.gate_proj{AFFINE}", r"mlp.gate.\1"),
    Rule(rf"mlp\.up_proj{AFFINE}", r"mlp.value.\1"),
    Rule(rf"mlp\.down_proj{AFFINE}", r"mlp.fc2.\1"),
)
# Before release 5 gate and value were one tensor, the gate first.
_DINOV2_INNER = (
    *_BLOCK_PARTS,
    Rule(rf"mlp\.(?:fc1|weights_in){AFFINE}", r"mlp.fc1.\1"),
    Rule(rf"mlp\.(?:fc2|weights_out){AFFINE}", r"mlp.fc2.\1"),
)


def _mlp_dim(reading: Reading) -> int:
    """As ``Dinov2MLP`` and ``Dinov2SwiGLUFFN`` compute it: two thirds, up to a multiple of 8, if gated."""
    wide = int(reading.tower.integer("hidden_size", 768) * reading.tower.number("mlp_ratio", 4))
    return (int(wide * 2 / 3) + 7) // 8 * 8 if _gated(reading) else wide


_gated = s.boolean("use_swiglu_ffn", False)
_plain_activation = s.activation("hidden_act", "gelu")

_DINOV2_SETTINGS = {
    **SETTINGS,
    "image_size": s.square_image(224),
    "patch_size": s.patch_size(14),
    "mlp_dim": _mlp_dim,
    "norm_eps": s.number("layer_norm_eps", 1e-6),
    "layer_scale": s.constant(True),
    "gated_mlp": _gated,
    "activation": lambda reading: "silu" if _gated(reading) else _plain_activation(reading),
}
_DINOV2_TOLD = {
    **TOLD,
    "use_swiglu_ffn": lambda weights: s.ends(weights, ("weights_in.weight", "gate_proj.weight")),
}
_CLASS_AND_PATCHES = {"pool": s.constant("token_avg")}
_BACKBONE = {"pool": s.last_stage_only}

DINOV2 = Family(
    model_types=("dinov2",),
    classes={
        "Dinov2ForImageClassification": ModelClass(CLASSIFIER, _CLASS_AND_PATCHES),
        "Dinov2Model": ModelClass(),
        "Dinov2Backbone": ModelClass(settings=_BACKBONE),
    },
    settings=_DINOV2_SETTINGS,
    prefix=r"dinov2\.",
    outer=EMBEDDINGS,
    block=rf"encoder\.layer\.{NUMBER}\.",
    inner=_DINOV2_INNER,
    marks=(r"encoder\.layer\.0\.layer_scale1\.lambda1", r"embeddings\.position_embeddings"),
    unused=(MASK,),
    told=_DINOV2_TOLD,
    processor="BitImageProcessor",
    any_size=True,
)

REGISTERS = Rule(r"embeddings\.register_tokens", "reg_token")

DINOV2_WITH_REGISTERS = Family(
    model_types=("dinov2_with_registers",),
    classes={
        "Dinov2WithRegistersForImageClassification": ModelClass(CLASSIFIER, _CLASS_AND_PATCHES),
        "Dinov2WithRegistersModel": ModelClass(),
        "Dinov2WithRegistersBackbone": ModelClass(settings=_BACKBONE),
    },
    settings={
        **_DINOV2_SETTINGS,
        "patch_size": s.patch_size(16),
        "num_registers": s.registers("num_register_tokens", 4),
        "position_scope": s.constant("class"),
        "position_resampling": s.constant("bicubic_antialias"),
    },
    prefix=r"dinov2_with_registers\.",
    outer=(*EMBEDDINGS, REGISTERS),
    block=rf"encoder\.layer\.{NUMBER}\.",
    inner=_DINOV2_INNER,
    marks=(*DINOV2.marks, r"embeddings\.register_tokens"),
    unused=(MASK,),
    told={
        **_DINOV2_TOLD,
        "num_register_tokens": lambda weights: s.size_of(weights, "embeddings.register_tokens", 1),
    },
    processor="BitImageProcessor",
    any_size=True,
)

_BIASES = {"q": ("query_bias", True), "k": ("key_bias", False), "v": ("value_bias", True)}


def _without_bias(reading: Reading) -> frozenset[str]:
    return frozenset(part for part, flag in _BIASES.items() if not reading.tower.boolean(*flag))


DINOV3 = Family(
    model_types=("dinov3_vit",),
    classes={
        "DINOv3ViTModel": ModelClass(),
        "DINOv3ViTBackbone": ModelClass(settings=_BACKBONE),
    },
    settings={
        **SETTINGS,
        "embed_dim": s.integer("hidden_size", 384),
        "num_heads": s.num_heads(6),
        "mlp_dim": s.integer("intermediate_size", 1536),
        "norm_eps": s.number("layer_norm_eps", 1e-5),
        "qkv_bias": lambda reading: len(_without_bias(reading)) < len(_BIASES),
        "proj_bias": s.boolean("proj_bias", True),
        "mlp_bias": s.boolean("mlp_bias", True),
        "num_registers": s.registers("num_register_tokens", 0),
        "positions": s.constant("none"),
        # modeling_dinov3_vit.py: 2π times −1 to 1, rows first, pairs half a head apart.
        "rotary": lambda reading: RotaryConfig(
            coordinates="centred", theta=reading.tower.number("rope_theta", 100.0), pairing="halves"
        ),
        "layer_scale": s.constant(True),
        "gated_mlp": s.boolean("use_gated_mlp", False),
    },
    prefix="",
    outer=(
        EMBEDDINGS[0],
        REGISTERS,
        Rule(rf"embeddings\.patch_embeddings{AFFINE}", r"patch_embed.proj.\1"),
        Rule(rf"norm{AFFINE}", r"norm.\1"),
    ),
    block=rf"(?:model\.)?layer\.{NUMBER}\.",
    inner=_BLOCK_PARTS,
    marks=(r"(?:model\.)?layer\.0\.layer_scale1\.lambda1", r"embeddings\.patch_embeddings\.weight"),
    unused=(MASK, r"rope_embeddings\..*"),
    without_bias=_without_bias,
    told={
        "num_channels": lambda weights: s.size_of(weights, "embeddings.patch_embeddings.weight", 1, 3),
        "num_register_tokens": lambda weights: s.size_of(weights, "embeddings.register_tokens", 1),
        "query_bias": lambda weights: s.ends(weights, "q_proj.bias"),
        "key_bias": lambda weights: s.ends(weights, "k_proj.bias"),
        "value_bias": lambda weights: s.ends(weights, "v_proj.bias"),
        "proj_bias": lambda weights: s.ends(weights, "o_proj.bias"),
        "mlp_bias": lambda weights: s.ends(weights, "down_proj.bias"),
        "use_gated_mlp": lambda weights: s.ends(weights, "gate_proj.weight"),
    },
    processor="DINOv3ViTImageProcessor",
    any_size=True,
)

FAMILIES = (DINOV2, DINOV2_WITH_REGISTERS, DINOV3)
