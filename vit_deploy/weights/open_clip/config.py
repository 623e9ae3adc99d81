"""OpenCLIP's ``model_cfg`` and ``preprocess_cfg`` as our config and preprocessing.

The fields and their defaults are those of ``CLIPVisionCfg`` in open_clip/model.py and of
``PreprocessCfg`` in open_clip/transform.py (https://github.com/mlfoundations/open_clip).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed
from vit_deploy.model.architectures import what_is_missing
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.fields import Fields, shown
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.model.preprocess_checks import per_channel, unsupported
from vit_deploy.weights.strangers import AS_MODULE
from vit_deploy.weights.timm.arguments import config_from_arguments, timm_class

if TYPE_CHECKING:
    from vit_deploy.model.config import Activation

NORM_EPS = 1e-5
"""torch's own, where ``norm_kwargs`` say nothing."""

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's, which OpenCLIP takes where a checkpoint says nothing."""

_MISSING = {
    "attentional_pool": "CoCa's attentional pooler",
    "scaled_cosine_attn": "scaled cosine attention",
    "scale_heads": "a scale on each head",
    "scale_attn": "a norm after attention",
}
"""Fields that are off in a tower that can be said, and what each has."""

_FIELDS = (
    "layers width head_width mlp_ratio patch_size image_size ls_init_value no_ln_pre final_ln_after_pool"
    " pool_type act_kwargs norm_kwargs block_type qk_norm scale_attn_inner scale_fc"
    " timm_model_name timm_pool timm_proj timm_proj_bias"
)
_INERT_FIELDS = (
    "patch_dropout pos_embed_type output_tokens attn_pooler_queries attn_pooler_heads"
    " timm_model_pretrained timm_drop timm_drop_path"
)
"""Fields without effect on a trained tower: the positions, learned or not, are in the weights."""


def tower_config(described: Fields) -> ViTConfig:
    """The image tower of a ``model_cfg``.

    Raises:
        ImportFailed: for a tower that is no supported ViT, with what is missing.
    """
    tower = described.fields("vision_cfg")
    for name, value in tower.data.items():
        if value and name not in f"{_FIELDS} {_INERT_FIELDS}".split():
            raise _refusal(f"has {_MISSING[name]}" if name in _MISSING else f"has {name}={shown(value)}")
    if "timm_model_name" in tower:
        return _timm_tower(tower)
    if isinstance(tower.data.get("layers"), (list, tuple)):
        raise _refusal("is a ResNet, with convolutional stages and attention pooling")
    return _own_tower(tower, described)


def _refusal(what: str) -> ImportFailed:
    return ImportFailed(
        f"the image tower {what}, which is not supported",
        expected="a Vision Transformer that pools its tokens",
        next_command=AS_MODULE,
    )


def _own_tower(tower: Fields, described: Fields) -> ViTConfig:
    patch = tower.pair("patch_size", (16, 16))
    if patch[0] != patch[1]:
        raise _refusal(f"cuts patches of {patch[0]}x{patch[1]}")
    pools = {"tok": "token", "avg": "avg"}
    pool = tower.text("pool_type", "tok")
    if pool not in pools:
        raise _refusal(f"gives all its tokens (pool_type={pool!r}) and no one vector")
    width, head_width = tower.integer("width", 768), tower.integer("head_width", 64)
    if head_width < 1 or width < head_width:
        raise ImportFailed(
            f"vision_cfg says width={shown(width)} and head_width={shown(head_width)}", expected="whole heads"
        )
    size = tower.pair("image_size", (224, 224))
    # Of the two kinds of block, only the one that open_clip calls custom looks at these.
    custom = tower.text("block_type", "custom") != "default"
    after_pool = tower.boolean("final_ln_after_pool", False)
    return ViTConfig(
        image_size=size,
        patch_size=patch[0],
        drop_remainder=patch[0] > 0 and bool(size[0] % patch[0] or size[1] % patch[0]),
        embed_dim=width,
        depth=tower.integer("layers", 12),
        num_heads=width // head_width,
        mlp_dim=_mlp_dim(width, tower.number("mlp_ratio", 4.0)),
        num_classes=0,
        patch_bias=False,
        norm_eps=_norm_eps(tower),
        pre_norm=not tower.boolean("no_ln_pre", False),
        layer_scale="ls_init_value" in tower,
        qk_norm=custom and tower.boolean("qk_norm", False),
        attn_norm=custom and tower.boolean("scale_attn_inner", False),
        mlp_norm=custom and tower.boolean("scale_fc", False),
        activation=_activation(tower, quick=described.boolean("quick_gelu", False)),
        pool=pools[pool],  # type: ignore[arg-type]
        final_norm=not after_pool,
        fc_norm=after_pool,
        projection_dim=described.integer("embed_dim"),
    )


def _mlp_dim(width: int, ratio: float) -> int:
    try:
        return int(width * ratio)
    except OverflowError as error:
        raise ImportFailed(
            f"vision_cfg says width={shown(width)} and mlp_ratio={ratio}",
            expected="an MLP that fits into memory",
        ) from error


def _norm_eps(tower: Fields) -> float:
    given = tower.fields("norm_kwargs", {})
    if set(given.data) - {"eps"}:
        raise _refusal(f"has norm_kwargs={shown(given.data)}")
    return given.number("eps", NORM_EPS)


def _activation(tower: Fields, *, quick: bool) -> Activation:
    given = tower.fields("act_kwargs", {})
    form = given.text("approximate", "none")
    if set(given.data) - {"approximate"} or form not in {"none", "tanh"} or (quick and given.data):
        raise _refusal(f"has act_kwargs={shown(given.data)}")
    return "quick_gelu" if quick else "gelu_tanh" if form == "tanh" else "gelu"


def _timm_tower(tower: Fields) -> ViTConfig:
    """As ``TimmModel`` of open_clip/timm_model.py makes it; the projection is left to the weights."""
    arch, pool, projection = (
        tower.text("timm_model_name"),
        tower.text("timm_pool", "avg"),
        tower.text("timm_proj", ""),
    )
    missing = {
        "abs_attn": "attention pooling over a feature map",
        "rot_attn": "attention pooling over a feature map",
    }
    if pool in missing:
        raise _refusal(f"has {missing[pool]} (timm_pool={pool!r})")
    if projection not in {"", "linear", "none"}:
        raise _refusal(f"has an MLP as projection (timm_proj={projection!r})")
    if not pool and projection != "linear":
        raise _refusal("gives all its tokens (timm_pool='') and no one vector")
    if not timm_class(arch):
        stages = "convolutional stages" if arch.startswith(("convnext", "fastvit", "resnet")) else ""
        has = what_is_missing(arch) or stages
        raise _refusal(f"is timm's {arch!r}, " + (f"which has {has}" if has else "and no ViT that is known"))
    args: dict[str, Any] = {"num_classes": 0}
    if projection == "linear":
        # Made as timm makes it, and its pooling changed then: the norms stay where they were.
        made = config_from_arguments(arch, {}, "vision_cfg")
        name = "fc_norm" if timm_class(arch).startswith("VisionTransformer") else "use_fc_norm"
        args |= {"global_pool": pool, name: made.fc_norm} if pool else {}
    else:
        args["global_pool"] = pool
    return config_from_arguments(arch, args, "vision_cfg")


def preprocessing_of(settings: Fields, config: ViTConfig) -> Preprocessing:
    """What OpenCLIP's evaluation transform does with these settings.

    Raises:
        ImportFailed: for a setting that has no like here, such as ``resize_mode: longest``, which pads.
    """
    mode = settings.text("resize_mode", "shortest")
    if mode not in {"shortest", "squash"}:
        raise unsupported("resize_mode", mode, "shortest or squash")
    interpolation = settings.text("interpolation", "bicubic")
    if interpolation not in {"bicubic", "bilinear", "random"}:
        raise unsupported("interpolation", interpolation, "bicubic or bilinear")
    square = config.image_size[0] == config.image_size[1]
    resize = "exact" if mode == "squash" else "shortest_edge" if square else "cover"
    # A picture that is not square is resized by a transform which is not told of the filter.
    bilinear = interpolation == "bilinear" and resize != "cover"
    return Preprocessing(
        image_size=config.image_size,
        resize=resize,  # type: ignore[arg-type]
        resize_size=config.image_size,
        interpolation="bilinear" if bilinear else "bicubic",
        mean=per_channel("mean", settings.numbers("mean", IMAGE_MEAN), config.in_channels),
        std=per_channel("std", settings.numbers("std", IMAGE_STD), config.in_channels),
    )
