"""What a checkpoint looks like: read off its weights, held against a config, and named.

A checkpoint of one family that is given as another differs in whole parts, and is answered with the
parts and with the architecture that has them, not with a list of a hundred names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.model.architectures import NAMED_CONFIGS, is_timms
from vit_deploy.weights.strangers import AS_MODULE

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.weights.tensors import Weights

_STRANGERS = (
    (r"^patch_embed\.backbone\.", "a convolutional stem before the patches (a hybrid)"),
    (r"\.attn\.rel_pos_[hw]$", "windowed attention with relative positions (SAM)"),
    (r"\.rel_pos\.mlp\.", "relative positions made by an MLP"),
    (r"\.(attns|ffns)\.\d+\.", "several attentions and MLPs side by side in a block"),
    (r"\.(in_proj|attn_out_proj)\.weight$", "attention and MLP side by side in a block"),
    (r"\.lambda_[qk][12]$", "differential attention"),
    (r"\.attn\.(gate|wq)\.", "gated or grouped-query attention"),
    (r"^embeds\.", "patches of images of any aspect in one batch (NaFlex)"),
)
"""Weights by which a ViT is known that no ViTConfig can say, and what it has."""

_FAMILIES = (
    (r"_reg\d+_dinov2", "DINOv2 with registers"),
    (r"_dinov2", "DINOv2"),
    (r"_dinov3", "DINOv3"),
    (r"_tipsv2", "TIPSv2"),
    (r"_radio_", "RADIO"),
    (r"_siglip_", "SigLIP"),
    (r"_clip_", "CLIP"),
    (r"_pe_", "Perception Encoder"),
    (r"^deit3_", "DeiT III"),
    (r"_distilled_", "distilled DeiT"),
    (r"^beit3", "BEiT-3"),
    (r"^beit", "BEiT"),
    (r"^eva02", "EVA-02"),
    (r"^eva", "EVA"),
    (r"_rope_", "a ViT with rotary positions"),
    (r"_reg\d+_", "a ViT with registers"),
    (r"_gap_", "a ViT with mean pooling"),
)
"""What people call the architectures of such names."""

_PARTS = {
    "class_token": "a class token",
    "distillation_token": "a distillation token",
    "registers": "{} register tokens",
    "distillation_head": "a distillation head",
    "learned_positions": "learned positions",
    "learned_rotary": "learned rotary positions",
    "relative_positions": "relative positions",
    "pre_norm": "a norm before the blocks",
    "layer_scale": "LayerScale",
    "qk_norm": "norms on queries and keys",
    "attn_norm": "a norm inside attention",
    "mlp_norm": "a norm inside the MLP",
    "gated_mlp": "a gated MLP (SwiGLU)",
    "qkv_bias": "biases of queries, keys and values",
    "final_norm": "a norm after the blocks",
    "fc_norm": "a norm after pooling (fc_norm)",
    "attention_pool": "attention pooling",
}
"""The parts that tell families apart, in words."""

_OF_CLASSES = {"final_norm", "fc_norm", "distillation_head"}
"""Parts in which classes of one family differ: with a head, or a projection, or neither."""

_SIZES = ("embed_dim", "depth", "patch_size", "mlp_dim")


@dataclass(frozen=True)
class Looks:
    """Parts and sizes that weights show; the fields are those of :data:`_PARTS`, then sizes."""

    class_token: bool
    distillation_token: bool
    registers: int
    distillation_head: bool
    learned_positions: bool
    learned_rotary: bool
    relative_positions: bool
    pre_norm: bool
    layer_scale: bool
    qk_norm: bool
    attn_norm: bool
    mlp_norm: bool
    gated_mlp: bool
    qkv_bias: bool
    final_norm: bool
    fc_norm: bool
    attention_pool: bool
    embed_dim: int
    depth: int
    patch_size: int
    mlp_dim: int


def looks_of_weights(weights: Weights) -> Looks:
    """What weights under our names show."""

    def size(name: str, axis: int) -> int:
        tensor = weights.get(name)
        return tensor.shape[axis] if tensor is not None and len(tensor.shape) > axis else 0

    blocks = {int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name))}
    inner = {name.partition(".")[2].partition(".")[2] for name in weights if name.startswith("blocks.")}
    mlp_dim = size("blocks.0.mlp.fc2.weight", 1)
    return Looks(
        class_token="cls_token" in weights,
        distillation_token="dist_token" in weights,
        registers=size("reg_token", 1),
        distillation_head="head_dist.weight" in weights,
        learned_positions="pos_embed" in weights,
        learned_rotary="rope.freqs" in weights,
        relative_positions=any(name.endswith("relative_position_bias_table") for name in weights),
        pre_norm="norm_pre.weight" in weights,
        layer_scale="ls1.gamma" in inner,
        qk_norm="attn.q_norm.weight" in inner,
        attn_norm="attn.norm.weight" in inner,
        mlp_norm="mlp.norm.weight" in inner,
        gated_mlp=bool(mlp_dim) and size("blocks.0.mlp.fc1.weight", 0) == 2 * mlp_dim,
        qkv_bias="attn.qkv.bias" in inner,
        final_norm="norm.weight" in weights,
        fc_norm="fc_norm.weight" in weights,
        attention_pool="attn_pool.latent" in weights,
        embed_dim=size("patch_embed.proj.weight", 0),
        depth=len(blocks),
        patch_size=size("patch_embed.proj.weight", 2),
        mlp_dim=mlp_dim,
    )


def looks_of_config(config: ViTConfig) -> Looks:
    """What the weights of a config show."""
    return Looks(
        class_token=config.class_token,
        distillation_token=config.distillation_token,
        registers=config.num_registers,
        distillation_head=config.distillation_head,
        learned_positions=config.positions == "learned",
        learned_rotary=config.rotary is not None and config.rotary.learned,
        relative_positions=config.relative_positions != "none",
        pre_norm=config.pre_norm,
        layer_scale=config.layer_scale,
        qk_norm=config.qk_norm,
        attn_norm=config.attn_norm,
        mlp_norm=config.mlp_norm,
        gated_mlp=config.gated_mlp,
        qkv_bias=config.qkv_bias,
        final_norm=config.final_norm,
        fc_norm=config.fc_norm,
        attention_pool=config.pool == "map",
        embed_dim=config.embed_dim,
        depth=config.depth,
        patch_size=config.patch_size,
        mlp_dim=config.mlp_dim,
    )


def require_vit(weights: Weights) -> None:
    """Refuse weights, under their own names, of a network that is no ViT of ours.

    Raises:
        ImportFailed: with what it has, and one of its weights.
    """
    for pattern, part in _STRANGERS:
        for name in weights:
            if re.search(pattern, name):
                raise ImportFailed(
                    f"the checkpoint has {part}: weight {name!r}",
                    expected="a Vision Transformer of pre-norm blocks, LayerNorm and full attention",
                    next_command=AS_MODULE,
                )


def require_family(weights: Weights, config: ViTConfig) -> None:
    """Refuse weights, under our names, whose parts are not those of the config.

    Sizes alone are left to the check of shapes, unless another architecture has exactly these.

    Raises:
        ImportFailed: with the parts that differ, and the architectures that have them.
    """
    if not weights.get("patch_embed.proj.weight"):
        return
    found, expected = looks_of_weights(weights), looks_of_config(config)
    parts = [name for name in _PARTS if getattr(found, name) != getattr(expected, name)]
    names = [] if found == expected else _alike(found, weights)
    if not parts and not names:
        return
    kin = _family(names[0]) if names else _kin(found)
    told = _difference(parts, found, expected) + (f"; it looks like {kin}" if kin else "")
    raise ImportFailed(
        f"the checkpoint is not of the architecture that was named: {told}",
        expected="the parts of the architecture, and no others",
        next_command=f"try --arch {' or '.join(names[:3])}" if names else "vit-deploy models",
    )


def difference(weights: Weights, config: ViTConfig) -> str:
    """What weights under our names have and lack beside a config's parts, in words, and what they look like.

    Empty where the parts agree, whatever the sizes and the class of the family.
    """
    found, expected = looks_of_weights(weights), looks_of_config(config)
    kept = [name for name in _PARTS if name not in _OF_CLASSES]
    parts = [name for name in kept if getattr(found, name) != getattr(expected, name)]
    kin = _kin(found)
    return _difference(parts, found, expected) + (f"; it looks like {kin}" if kin else "") if parts else ""


def _difference(parts: list[str], found: Looks, expected: Looks) -> str:
    """What the checkpoint has and what it lacks, in words."""
    has = [_worded(name, found) for name in parts if getattr(found, name)]
    lacks = [_missing(name) for name in parts if not getattr(found, name)]
    has += [
        f"{name}={getattr(found, name)}" for name in _SIZES if getattr(found, name) != getattr(expected, name)
    ]
    told = [f"it has {_listed(has)}"] if has else []
    return ", and ".join(told + ([f"it has no {_listed(lacks)}"] if lacks else []))


def _worded(name: str, looks: Looks) -> str:
    value = getattr(looks, name)
    words = _PARTS[name].format(value)
    return words.removesuffix("s") if name == "registers" and value == 1 else words


def _missing(name: str) -> str:
    """A part that is not there: without its article, and however many there should be."""
    return _PARTS[name].removeprefix("a ").removeprefix("{} ")


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def _alike(looks: Looks, weights: Weights) -> list[str]:
    """The architectures that show just these parts and sizes: first those of as many positions, then timm's."""
    alike = [name for name, config in NAMED_CONFIGS.items() if looks_of_config(config) == looks]
    positions = weights.get("pos_embed")

    def order(name: str) -> tuple[bool, bool, int, str]:
        config = NAMED_CONFIGS[name]
        count = config.num_position_prefix + config.num_patches
        other_size = positions is not None and positions.shape[1:2] != (count,)
        return other_size, not is_timms(name), len(name), name

    return sorted(alike, key=order)


def _kin(looks: Looks) -> str:
    """The family that has these parts, whatever its sizes; empty where more than one has, or none."""
    parts = [getattr(looks, name) for name in _PARTS]
    alike = [
        name
        for name, config in NAMED_CONFIGS.items()
        if [getattr(looks_of_config(config), part) for part in _PARTS] == parts
    ]
    families = {_called(name) for name in alike}
    return f"{families.pop()}, of another size" if len(families) == 1 and "" not in families else ""


def _called(name: str) -> str:
    return next((family for pattern, family in _FAMILIES if re.search(pattern, name)), "")


def _family(name: str) -> str:
    known = _called(name)
    return f"{known} ({name})" if known else name
