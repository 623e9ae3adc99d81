"""What timm's constructors make of their arguments, as a :class:`ViTConfig`.

One function for each class, as in timm/models/vision_transformer.py, deit.py, eva.py and beit.py of
https://github.com/huggingface/pytorch-image-models: where an argument's default follows from another
(``fc_norm`` from ``global_pool``), it does so here. A test holds every architecture's config, derived
here from its arguments, against what was read off timm's own module.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.weights.timm.parts import (
    activation_of,
    eva_mlp_parts,
    hidden_width,
    made,
    mlp_parts,
    norm_eps,
    pool_parts,
    refusal,
    require,
    rotary_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vit_deploy.model.config import Pool, ViTConfig
    from vit_deploy.model.fields import Fields

_AVERAGES = {"avg", "avgmax", "max"}


def vision_transformer(args: Fields) -> ViTConfig:
    """timm's ``VisionTransformer`` (also DeiT and DeiT III).

    Raises:
        ImportFailed: for an argument that no ViTConfig can say.
    """
    require(args, "block_fn", {"", "Block"}, "pre-norm blocks in a row")
    require(args, "attn_layer", {"", "attn", "Attention"}, "plain softmax attention")
    require(args, "embed_norm_layer", {""}, "no norm in the patch embedding")
    require(args, "pos_embed", {"learn", "", "none"}, "learned positions, or none")
    pool = args.text("global_pool", "token")
    class_token = args.boolean("class_token", True)
    registers = args.integer("reg_tokens", 0)
    over_prefix = args.boolean("pool_include_prefix", False)
    norm = args.boolean("final_norm", True)
    norm_after_pool = args.boolean("fc_norm", pool in _AVERAGES)
    pre_norm = args.boolean("pre_norm", False)
    bias = args.boolean("proj_bias", True)
    activation = activation_of(args)
    learned = args.text("pos_embed", "learn") == "learn"
    mlp = mlp_parts(args, hidden_width(args, "mlp_ratio", 4.0))
    return made(
        args,
        **mlp,
        **pool_parts(args, pool, mlp["mlp_dim"], class_token + registers, over_prefix=over_prefix),
        activation=activation,
        pool_activation=activation if pool == "map" else "gelu",
        patch_bias=not pre_norm,
        proj_bias=bias,
        mlp_bias=bias,
        norm_eps=norm_eps(args),
        class_token=class_token,
        num_registers=registers,
        positions="learned" if learned else "none",
        position_scope="patches" if learned and args.boolean("no_embed_class", False) else "all",
        pre_norm=pre_norm,
        layer_scale=bool(args.number("init_values", 0.0)),
        qk_norm=args.boolean("qk_norm", False),
        attn_norm=args.boolean("scale_attn_norm", False),
        mlp_norm=args.boolean("scale_mlp_norm", False),
        final_norm=norm and not norm_after_pool,
        fc_norm=norm and norm_after_pool,
    )


def distilled(args: Fields) -> ViTConfig:
    """timm's ``VisionTransformerDistilled``: pools both tokens where it has no heads.

    Raises:
        ImportFailed: for an argument that it cannot be given, or that no ViTConfig can say.
    """
    for name, default in (("class_token", True), ("fc_norm", False), ("no_embed_class", False)):
        if args.boolean(name, default) != default:
            raise refusal(args, name, f"{name}={default}, as distilled DeiT has it")
    if args.integer("reg_tokens", 0):
        raise refusal(args, "reg_tokens", "a distillation token, and no register tokens")
    if args.text("global_pool", "token") != "token":
        raise refusal(args, "global_pool", "'token', which is all that distilled DeiT can")
    plain = vision_transformer(args)
    heads = plain.num_classes > 0
    pool: Pool = "token" if heads else "prefix_avg"
    return replace(plain, pool=pool, distillation_token=True, distillation_head=heads)


def eva(args: Fields) -> ViTConfig:
    """timm's ``Eva``: EVA, EVA-02, DINOv3, Perception Encoder, ViTs with RoPE.

    Raises:
        ImportFailed: for an argument that no ViTConfig can say.
    """
    if args.boolean("use_post_norm", False):
        raise refusal(args, "use_post_norm", "pre-norm blocks")
    if args.boolean("attn_only_layer_scale", False):
        raise refusal(args, "attn_only_layer_scale", "LayerScale on attention and MLP, or on neither")
    require(args, "attn_type", {"eva", "rope"}, "'eva' or 'rope'")
    if "num_kv_heads" in args and args.data["num_kv_heads"] != args.integer("num_heads", 12):
        raise refusal(args, "num_kv_heads", "as many keys and values as queries (no grouped-query attention)")
    pool = args.text("global_pool", "avg")
    class_token = args.boolean("class_token", True)
    registers = args.integer("num_reg_tokens", 0)
    norm_after_pool = args.boolean("use_fc_norm", pool == "avg")
    pre_norm = args.boolean("use_pre_transformer_norm", False)
    learned = args.boolean("use_abs_pos_emb", True)
    mlp = eva_mlp_parts(args)
    return made(
        args,
        **mlp,
        **pool_parts(args, pool, mlp["mlp_dim"], class_token + registers, over_prefix=pool == "map"),
        patch_bias=not pre_norm,
        norm_eps=norm_eps(args),
        class_token=class_token,
        num_registers=registers,
        positions="learned" if learned else "none",
        position_scope="patches" if learned and args.boolean("no_embed_class", False) else "all",
        rotary=rotary_of(args) if args.boolean("use_rot_pos_emb", False) else None,
        pre_norm=pre_norm,
        layer_scale="init_values" in args,
        qk_norm=args.boolean("qk_norm", False),
        attn_norm=args.boolean("scale_attn_inner", False),
        mlp_norm=args.boolean("scale_mlp", False),
        final_norm=args.boolean("use_post_transformer_norm", not norm_after_pool),
        fc_norm=norm_after_pool,
    )


def beit(args: Fields) -> ViTConfig:
    """timm's ``Beit``.

    Raises:
        ImportFailed: for an argument that no ViTConfig can say.
    """
    pool = args.text("global_pool", "avg")
    if pool not in {"avg", "token"}:
        raise refusal(args, "global_pool", "'avg' or 'token'")
    block, shared = (args.boolean(name, False) for name in ("use_rel_pos_bias", "use_shared_rel_pos_bias"))
    if block and shared:
        raise refusal(args, "use_shared_rel_pos_bias", "relative positions by block or shared, not both")
    norm_after_pool = args.boolean("use_fc_norm", pool == "avg")
    gated = args.boolean("swiglu_mlp", False)
    return made(
        args,
        pool=pool,
        mlp_dim=hidden_width(args, "mlp_ratio", 4.0),
        gated_mlp=gated,
        activation="silu" if gated else "gelu",
        norm_eps=norm_eps(args),
        positions="learned" if args.boolean("use_abs_pos_emb", True) else "none",
        relative_positions="block" if block else "shared" if shared else "none",
        layer_scale=bool(args.number("init_values", 0.0)),
        mlp_norm=args.boolean("scale_mlp", False),
        final_norm=not norm_after_pool,
        fc_norm=norm_after_pool,
    )


CONSTRUCTORS: dict[str, Callable[[Fields], ViTConfig]] = {
    "VisionTransformer": vision_transformer,
    "VisionTransformerDistilled": distilled,
    "Eva": eva,
    "Beit": beit,
}
"""By the name of timm's class."""
