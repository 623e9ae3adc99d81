"""The arguments that timm gives its classes for each architecture, and those a checkpoint adds.

The table, ``arguments.json``, is written by ``scripts/timm_architectures.py``: the class of each
architecture that a ViTConfig can say, and what its function passes to the constructor.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.architectures import NAMED_CONFIGS, named_config, what_is_missing
from vit_deploy.model.fields import Fields, shown
from vit_deploy.weights.strangers import AS_MODULE
from vit_deploy.weights.timm.constructors import CONSTRUCTORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vit_deploy.model.config import ViTConfig

ARGUMENTS_FILE = Path(__file__).with_name("arguments.json")

_SHARED = (
    "img_size patch_size in_chans num_classes global_pool embed_dim depth num_heads mlp_ratio qkv_bias"
    " init_values"
)
_VIT = (
    "qk_norm scale_attn_norm scale_mlp_norm proj_bias class_token pos_embed no_embed_class reg_tokens pre_norm"
    " final_norm fc_norm pool_include_prefix dynamic_img_size dynamic_img_pad embed_norm_layer norm_layer"
    " act_layer block_fn mlp_layer attn_layer"
)
_EVA = (
    "num_kv_heads qk_norm swiglu_mlp swiglu_align_to scale_mlp scale_attn_inner attn_type attn_only_layer_scale"
    " class_token num_reg_tokens no_embed_class use_abs_pos_emb use_rot_pos_emb rope_type rope_grid_offset"
    " rope_grid_indexing rope_temperature rope_rotate_half use_post_norm use_pre_transformer_norm"
    " use_post_transformer_norm use_fc_norm attn_pool_num_heads attn_pool_mlp_ratio dynamic_img_size"
    " dynamic_img_pad ref_feat_shape norm_layer"
)
_BEIT = "swiglu_mlp scale_mlp norm_layer use_abs_pos_emb use_rel_pos_bias use_shared_rel_pos_bias use_fc_norm"
SAID: dict[str, frozenset[str]] = {
    name: frozenset(f"{_SHARED} {own}".split())
    for name, own in {
        "VisionTransformer": _VIT,
        "VisionTransformerDistilled": _VIT,
        "Eva": _EVA,
        "Beit": _BEIT,
    }.items()
}
"""The arguments of each class that decide what the model is."""

_INERT = (
    "drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_path_rate drop_block_rate"
    " weight_init fix_init head_init_scale qkv_fused rope_shift_coords rope_jitter_coords rope_rescale_coords"
    " scriptable exportable no_jit pretrained_strict out_indices"
)
INERT = frozenset(_INERT.split())
"""Arguments without effect on a trained model at inference; ``qkv_fused`` shows in the weights."""


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(ARGUMENTS_FILE.read_text(encoding="utf-8"))
    return table


def timm_class(arch: str) -> str:
    """The name of the class that timm makes an architecture of; empty where it is none of timm's."""
    entry = _table()["architectures"].get(_plain(arch))
    return str(entry[0]) if entry else ""


def named_arguments(arch: str) -> dict[str, Any]:
    """What timm's function of an architecture passes to its class."""
    entry = _table()["architectures"].get(_plain(arch))
    return dict(entry[1]) if entry else {}


def _plain(arch: str) -> str:
    name = arch.partition(".")[0]
    return str(_table()["aliases"].get(name, name))


def named_architecture(arch: str) -> ViTConfig:
    """The config of an architecture that a checkpoint names, by a name of today or a former one.

    Raises:
        ImportFailed: when it is none that can be said here, with what is missing or the nearest names.
    """
    try:
        return named_config(_plain(arch))
    except UsageFailed as error:
        raise ImportFailed(
            f"the checkpoint is a {arch!r}: {error.found}",
            expected=error.expected or f"one of {', '.join(NAMED_CONFIGS)}",
            next_command=f"{error.next_command} --weights FILE"
            if what_is_missing(arch)
            else error.next_command,
        ) from error


def config_from_arguments(arch: str, args: Mapping[str, Any], where: str = "model_args") -> ViTConfig:
    """What timm makes of an architecture with these arguments.

    Args:
        arch: a named architecture.
        args: as ``timm.create_model`` takes them; what is ``None`` has not been said.
        where: where the arguments stand, for messages.

    Raises:
        ImportFailed: for an unknown architecture, or an argument that no ViTConfig can say.
    """
    base = named_architecture(arch)
    given = {name: value for name, value in args.items() if value is not None}
    kind = timm_class(arch) or "VisionTransformer"
    _require_said(given, kind)
    own = named_arguments(arch) if timm_class(arch) else _plain_arguments(base)
    defaults = {"img_size": base.image_size, "num_classes": base.num_classes, "in_chans": base.in_channels}
    return CONSTRUCTORS[kind](Fields({**defaults, **own, **given}, where))


def _plain_arguments(config: ViTConfig) -> dict[str, Any]:
    """Arguments of an architecture that is none of timm's: sizes of a plain ViT, nothing more.

    Raises:
        ImportFailed: when the config has more.
    """
    arguments = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.in_channels,
        "num_classes": config.num_classes,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": (config.mlp_dim + 0.5) / config.embed_dim,  # timm rounds down
        "qkv_bias": config.qkv_bias,
    }
    if CONSTRUCTORS["VisionTransformer"](Fields(arguments, "the architecture")) != config:
        raise ImportFailed(
            "the architecture is none of timm's, and more than a plain ViT",
            expected="an architecture of timm's in a timm config",
        )
    return arguments


def _require_said(args: Mapping[str, Any], kind: str) -> None:
    for name, value in args.items():
        # An option that is off changes nothing, whatever it is called.
        if value and name not in SAID[kind] and name not in INERT:
            raise ImportFailed(
                f"the checkpoint's model_args say {name}={shown(value)}, which is not supported",
                expected=f"arguments of timm's {kind} that are known here, or no {name}",
                next_command=AS_MODULE,
            )
