"""timm checkpoints (https://github.com/huggingface/pytorch-image-models): plain ViT and DeiT.

The model's own parameter names are timm's, so nothing is renamed. The work is in refusing: timm's
``VisionTransformer`` has many options (LayerScale, registers, average pooling, …) of which a plain
ViT has none, and a checkpoint that uses one is never imported as if it did not.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.architectures import NAMED_CONFIGS, named_config
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.fields import shown
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights.files import CONFIG_NAME, read_directory_weights, read_json
from vit_deploy.weights.imported import Model, Source

if TYPE_CHECKING:
    from vit_deploy.model.fields import Fields
    from vit_deploy.weights.request import Request
    from vit_deploy.weights.tensors import Weights

_SIZE_ARGS = {
    "img_size",
    "patch_size",
    "in_chans",
    "num_classes",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "qkv_bias",
}
"""Arguments of timm's VisionTransformer that a ViTConfig can say."""

_INERT_ARGS = {
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
}
"""Arguments without effect on a trained model at inference."""

_PLAIN_ARGS: dict[str, tuple[Any, ...]] = {
    "global_pool": ("token",),
    "class_token": (True,),
    "proj_bias": (True,),
    "final_norm": (True,),
    "pos_embed": ("learn",),
    "fc_norm": (None, False),
    "act_layer": (None, "gelu"),
}
"""Arguments that must have one of these values; any other argument must be absent, null, false or 0."""

_NOT_PLAIN = (
    (r"\.ls[12]\.gamma$|\.gamma_[12]$", "LayerScale"),
    (r"^reg_token$", "register tokens"),
    (r"^norm_pre\.", "a norm before the blocks"),
    (r"^fc_norm\.", "average pooling with a norm after it (fc_norm)"),
    (r"^attn_pool\.", "attention pooling"),
    (r"\.attn\.[qk]_norm\.", "norms on queries and keys"),
    (r"\.(attn|mlp)\.norm\.", "norms inside attention or MLP"),
    (r"\.mlp\.(w12|w3|fc1_[gx])\.", "a gated MLP (SwiGLU)"),
    (r"rel_pos|relative_position", "relative positions"),
    (r"rope", "rotary positions"),
    (r"^patch_embed\.(backbone|norm)\.", "a hybrid or normalised patch embedding"),
)
"""Weights by which something other than a plain ViT is known, and its name."""


def detects(request: Request) -> bool:
    """Whether the reference is a directory with timm's ``config.json``."""
    path = request.path / CONFIG_NAME
    return path.is_file() and "architecture" in read_json(path)


def load(request: Request) -> Model:
    """The model of a directory that ``timm.models.save_for_hf`` or the hub wrote.

    Raises:
        ImportFailed: for an architecture that is not a plain ViT, and for configs that are broken.
        HostileInput: for weights that are truncated or hold code.
    """
    entries = read_json(request.path / CONFIG_NAME)
    arch = entries.text("architecture")
    # Before timm 0.9 the config was the pretrained_cfg itself.
    pretrained = entries.fields("pretrained_cfg") if "pretrained_cfg" in entries else entries
    args = entries.fields("model_args", {})
    require_plain_args(entries, args)
    config = _config(named_architecture(arch), entries, args, pretrained)
    weights, sha256 = read_directory_weights(request.path)
    require_plain_weights(weights)
    return Model(
        config=config,
        weights=weights,
        preprocessing=Preprocessing.from_timm(pretrained.data, config),
        labels=_labels(entries, pretrained, config.num_classes),
        source=Source("timm", request.name or arch, sha256),
    )


def config_of(weights: Weights, base: ViTConfig, num_classes: int | None) -> ViTConfig:
    """The config of a bare file of timm's names, from its architecture and what its shapes say.

    The number of classes and of input channels is read off the weights; all else is the
    architecture's and must fit.

    Raises:
        ImportFailed: when the weights are not those of a plain ViT.
    """
    require_plain_weights(weights)
    changes: dict[str, Any] = {}
    if "head.weight" in weights:
        changes["num_classes"] = weights["head.weight"].shape[0]
    elif num_classes == 0:
        changes["num_classes"] = 0
    kernel = weights.get("patch_embed.proj.weight")
    if kernel is not None and len(kernel.shape) == 4:
        changes["in_channels"] = kernel.shape[1]
    return _with_heads(base, changes)


def named_architecture(name: str) -> ViTConfig:
    """The config of an architecture that a checkpoint names.

    Raises:
        ImportFailed: when it is not one of the plain ViTs, with the nearest of them.
    """
    try:
        return named_config(name)
    except UsageFailed as error:
        raise ImportFailed(
            f"the checkpoint is a {name!r}, which is not a plain ViT or DeiT that is known here",
            expected=error.expected or f"one of {', '.join(NAMED_CONFIGS)}",
            next_command="vit-deploy models",
        ) from error


def require_plain_args(entries: Fields, args: Fields) -> None:
    """Refuse a config that asks for more than a plain ViT.

    Raises:
        ImportFailed: naming the argument.
    """
    for name, value in args.data.items():
        if name in _SIZE_ARGS | _INERT_ARGS:
            continue
        if value in _PLAIN_ARGS[name] if name in _PLAIN_ARGS else not value:
            continue
        raise ImportFailed(
            f"the checkpoint's model_args say {name}={value!r}, which a plain ViT has not",
            expected=_expected_arg(name),
            next_command="vit-deploy models",
        )
    pool = entries.text("global_pool", "token")
    if pool != "token":
        raise ImportFailed(
            f"the checkpoint pools by global_pool={pool!r}, which a plain ViT does not",
            expected="global_pool='token', the class token",
        )


def _expected_arg(name: str) -> str:
    values = _PLAIN_ARGS.get(name)
    return f"{name}={' or '.join(map(repr, values))}" if values else f"no {name}"


def require_plain_weights(weights: Weights) -> None:
    """Refuse weights that only a ViT with more than the plain parts has.

    Raises:
        ImportFailed: naming the part and one of its weights.
    """
    for pattern, part in _NOT_PLAIN:
        for name in weights:
            if re.search(pattern, name):
                raise ImportFailed(
                    f"the checkpoint has {part} (weight {name!r}), which a plain ViT has not",
                    expected="a plain ViT or DeiT",
                    next_command="vit-deploy models",
                )
    if "cls_token" not in weights and "patch_embed.proj.weight" in weights:
        raise ImportFailed(
            "the checkpoint has no class token (weight 'cls_token')",
            expected="a plain ViT, which classifies by its class token",
        )


def _config(base: ViTConfig, entries: Fields, args: Fields, pretrained: Fields) -> ViTConfig:
    channels, *size = _input_size(base, pretrained)
    patch = args.pair("patch_size", (base.patch_size, base.patch_size))
    if patch[0] != patch[1]:
        raise ImportFailed(f"the checkpoint's patches are {patch[0]}x{patch[1]}", expected="square patches")
    embed_dim = args.integer("embed_dim", base.embed_dim)
    # timm's own rounding; the base's width stands unless something is said of it.
    ratio = args.number("mlp_ratio", base.mlp_dim / base.embed_dim)
    widened = "mlp_ratio" in args or "embed_dim" in args
    classes = args.integer("num_classes", pretrained.integer("num_classes", base.num_classes))
    changes = {
        "image_size": args.pair("img_size", (size[0], size[1])),
        "patch_size": patch[0],
        "in_channels": args.integer("in_chans", channels),
        "embed_dim": embed_dim,
        "depth": args.integer("depth", base.depth),
        "num_heads": args.integer("num_heads", base.num_heads),
        "mlp_dim": _mlp_dim(embed_dim, ratio) if widened else base.mlp_dim,
        "qkv_bias": args.boolean("qkv_bias", base.qkv_bias),
        "num_classes": entries.integer("num_classes", classes),
    }
    return _with_heads(base, changes)


def _mlp_dim(embed_dim: int, ratio: float) -> int:
    try:
        return int(embed_dim * ratio)
    except OverflowError as error:  # a product, or a width, beyond the largest float
        raise ImportFailed(
            f"the checkpoint's model_args say embed_dim={shown(embed_dim)} and mlp_ratio={ratio}",
            expected="an MLP that fits into memory",
        ) from error


def _with_heads(base: ViTConfig, changes: dict[str, Any]) -> ViTConfig:
    if base.distillation_token and changes.get("num_classes") == 0:
        raise ImportFailed(
            "the checkpoint is a distilled DeiT without heads: timm pools it as the mean of two tokens",
            expected="a distilled DeiT with both heads, or a ViT without distillation",
        )
    return replace(base, **changes)


def _input_size(base: ViTConfig, pretrained: Fields) -> tuple[int, int, int]:
    size = pretrained.numbers("input_size", (base.in_channels, *base.image_size))
    if len(size) != 3 or any(side != int(side) for side in size):
        raise ImportFailed(f"pretrained_cfg says input_size={size}", expected="channels, height and width")
    return int(size[0]), int(size[1]), int(size[2])


def _labels(entries: Fields, pretrained: Fields, num_classes: int) -> tuple[str, ...]:
    """The description of each class where there is one, otherwise its name."""
    place = entries if "label_names" in entries else pretrained
    if "label_names" not in place:
        return ()
    names = place.data["label_names"]
    if isinstance(names, dict):
        # Ids may have gaps; a class without a name is called by its number.
        table = place.fields("label_names")
        names = [table.text(str(index), str(index)) for index in range(num_classes)]
    else:
        names = place.texts("label_names")
    described = entries if "label_descriptions" in entries else pretrained
    descriptions = described.fields("label_descriptions", {})
    return tuple(descriptions.text(name, name) for name in names)
