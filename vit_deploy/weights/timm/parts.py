"""What the arguments that timm's classes share mean: sizes, norms, MLPs, pooling, rotary positions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from vit_deploy.errors import ImportFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.fields import shown
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.weights.strangers import AS_MODULE

if TYPE_CHECKING:
    from vit_deploy.model.config import Activation
    from vit_deploy.model.fields import Fields

NORM_EPS = 1e-6
"""timm's LayerNorm, where nothing else is said."""

ACTIVATIONS: dict[str, Activation] = {
    "": "gelu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
"""Ours, by timm's name for ``act_layer``."""

_LAYER_NORM = re.compile(r"layernorm(?:\(eps=(\d+(?:\.\d+)?(?:e-?\d+)?)\))?")
"""``norm_layer``; the epsilon stands only in the table of architectures."""


def refusal(args: Fields, name: str, expected: str) -> ImportFailed:
    """The error for an argument that has no like in a ViTConfig."""
    return ImportFailed(
        f"the checkpoint's model_args say {name}={shown(args.data.get(name))}, which is not supported",
        expected=expected,
        next_command=AS_MODULE,
    )


def made(args: Fields, **parts: Any) -> ViTConfig:
    """The config of the parts, and of the arguments that all classes share."""
    patch = args.pair("patch_size", (16, 16))
    if patch[0] != patch[1]:
        raise refusal(args, "patch_size", "square patches")
    size = args.pair("img_size", (224, 224))
    free = args.boolean("dynamic_img_size", False)
    rest = patch[0] > 0 and bool(size[0] % patch[0] or size[1] % patch[0])
    if rest and args.boolean("dynamic_img_pad", False):
        raise refusal(args, "dynamic_img_pad", f"an image that patches of {patch[0]} divide, without padding")
    return ViTConfig(
        image_size=size,
        patch_size=patch[0],
        # A strict PatchEmbed takes any size it was made for, and its convolution leaves out the rest.
        drop_remainder=rest and not free,
        in_channels=args.integer("in_chans", 3),
        embed_dim=args.integer("embed_dim", 768),
        depth=args.integer("depth", 12),
        num_heads=args.integer("num_heads", 12),
        num_classes=args.integer("num_classes", 1000),
        qkv_bias=args.boolean("qkv_bias", True),
        **parts,
    )


def require(args: Fields, name: str, values: set[str], expected: str) -> None:
    """Refuse an argument that is given and is none of ``values``."""
    if name in args and args.text(name) not in values:
        raise refusal(args, name, expected)


def norm_eps(args: Fields) -> float:
    """The epsilon of ``norm_layer``, which must be a LayerNorm."""
    found = _LAYER_NORM.fullmatch(args.text("norm_layer", "layernorm").lower())
    if found is None:
        raise refusal(args, "norm_layer", "LayerNorm")
    return float(found[1]) if found[1] else NORM_EPS


def activation_of(args: Fields) -> Activation:
    """Our name of ``act_layer``."""
    found = ACTIVATIONS.get(args.text("act_layer", "gelu").lower())
    if found is None:
        raise refusal(args, "act_layer", f"one of {', '.join(filter(None, ACTIVATIONS))}")
    return found


def hidden_width(args: Fields, ratio: str, default: float) -> int:
    """timm's own rounding of an MLP's width."""
    factor = args.number(ratio, default)
    try:
        return int(args.integer("embed_dim", 768) * factor)
    except OverflowError as error:  # a product, or a width, beyond the largest float
        raise ImportFailed(
            f"the checkpoint's model_args say embed_dim={shown(args.data.get('embed_dim'))}, {ratio}={factor}",
            expected="an MLP that fits into memory",
        ) from error


def mlp_parts(args: Fields, hidden: int) -> dict[str, Any]:
    """Of ``VisionTransformer``; a packed SwiGLU counts gate and value together."""
    kind = args.text("mlp_layer", "Mlp")
    if kind not in {"Mlp", "SwiGLU", "SwiGLUPacked"} or (kind == "SwiGLUPacked" and hidden % 2):
        raise refusal(args, "mlp_layer", "Mlp, SwiGLU, or SwiGLUPacked of an even width")
    return {"mlp_dim": hidden // 2 if kind == "SwiGLUPacked" else hidden, "gated_mlp": kind != "Mlp"}


def eva_mlp_parts(args: Fields) -> dict[str, Any]:
    """Of ``Eva``; ``swiglu_align_to`` rounds the width up."""
    hidden = hidden_width(args, "mlp_ratio", 4.0)
    if not args.boolean("swiglu_mlp", False):
        return {"mlp_dim": hidden, "gated_mlp": False, "activation": "gelu"}
    align = args.integer("swiglu_align_to", 0)
    if align < 0:
        raise refusal(args, "swiglu_align_to", "0 or more")
    return {"mlp_dim": hidden + (-hidden % align if align else 0), "gated_mlp": True, "activation": "silu"}


def pool_parts(
    args: Fields, kind: str, mlp_dim: int, prefix_tokens: int, *, over_prefix: bool
) -> dict[str, Any]:
    """The pooling of ``global_pool``.

    Args:
        args: heads and MLP of attention pooling are looked up there.
        kind: the value of ``global_pool``.
        mlp_dim: of the blocks.
        prefix_tokens: how many tokens stand before the patches.
        over_prefix: whether they are pooled too.
    """
    names = {"token": "token", "avg": "avg_all" if over_prefix else "avg", "max": "max", "avgmax": "avgmax"}
    if kind == "map":
        heads = args.integer("attn_pool_num_heads", 0)
        own_ratio = bool(args.data.get("attn_pool_mlp_ratio"))
        wide = hidden_width(args, "attn_pool_mlp_ratio" if own_ratio else "mlp_ratio", 4.0)
        return {
            "pool": "map",
            "pool_prefix": over_prefix or not prefix_tokens,
            "pool_heads": 0 if heads == args.integer("num_heads", 12) else heads,
            "pool_mlp_dim": 0 if wide == mlp_dim else wide,
        }
    if kind not in names:
        raise refusal(args, "global_pool", "'token', 'avg', 'max', 'avgmax' or 'map'")
    if kind in {"max", "avgmax"} and over_prefix and prefix_tokens:
        raise refusal(args, "pool_include_prefix", f"{kind} pooling over the patches alone")
    return {"pool": names[kind]}


def rotary_of(args: Fields) -> RotaryConfig:
    """The rotary positions of ``Eva``."""
    require(args, "rope_type", {"cat", "dinov3", "mixed"}, "rope_type 'cat', 'dinov3' or 'mixed'")
    kind = args.text("rope_type", "cat")
    axes = {"ij": "yx", "xy": "xy"}.get(args.text("rope_grid_indexing", "ij"))
    if axes is None:
        raise refusal(args, "rope_grid_indexing", "'ij' or 'xy'")
    if kind == "mixed":
        if args.boolean("rope_rotate_half", False):
            raise refusal(args, "rope_rotate_half", "False, which is all that mixed RoPE can")
        return RotaryConfig(axes=cast("Any", axes), learned=True)
    return RotaryConfig(
        coordinates="centred" if kind == "dinov3" else "index",
        theta=args.number("rope_temperature", 10_000.0),
        offset=args.number("rope_grid_offset", 0.0),
        reference_grid=args.pair("ref_feat_shape") if kind == "cat" and "ref_feat_shape" in args else None,
        axes=cast("Any", axes),
        pairing="halves" if args.boolean("rope_rotate_half", False) else "interleaved",
    )
