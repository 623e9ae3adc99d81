"""torchvision's ViTs: bare state dicts of its ``VisionTransformer``.

Names, epsilon and resampling are those of torchvision/models/vision_transformer.py, the preprocessing
that of the weights which the architecture and the resolution point to
(https://docs.pytorch.org/vision/stable/models/vision_transformer.html). torchvision is not needed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights.bare import Bare, fitted
from vit_deploy.weights.strangers import AS_MODULE
from vit_deploy.weights.tensors import Weights

if TYPE_CHECKING:
    from vit_deploy.model.config import ViTConfig

NORM_EPS = 1e-6

_NAMES = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"class_token", "cls_token"),
        (r"conv_proj\.(weight|bias)", r"patch_embed.proj.\1"),
        (r"encoder\.pos_embedding", "pos_embed"),
        (r"encoder\.ln\.(weight|bias)", r"norm.\1"),
        (r"heads\.head\.(weight|bias)", r"head.\1"),
        (r"heads\.pre_logits\.(weight|bias)", r"pre_logits.\1"),
    )
)
_BLOCK = re.compile(r"encoder\.layers\.encoder_layer_(\d+)\.(.+)")
_INNER = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"ln_([12])\.(weight|bias)", r"norm\1.\2"),
        (r"self_attention\.in_proj_(weight|bias)", r"attn.qkv.\1"),
        (r"self_attention\.out_proj\.(weight|bias)", r"attn.proj.\1"),
        # MLPBlock was written out until torchvision 0.13, and is a Sequential since.
        (r"mlp\.(?:0|linear_1)\.(weight|bias)", r"mlp.fc1.\1"),
        (r"mlp\.(?:3|linear_2)\.(weight|bias)", r"mlp.fc2.\1"),
    )
)

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_RESIZED = {
    ("vit_b_16", 224): (256, "bilinear"),
    ("vit_b_32", 224): (256, "bilinear"),
    ("vit_l_16", 224): (242, "bilinear"),
    ("vit_l_32", 224): (256, "bilinear"),
    # Of these sizes there are SWAG weights alone, which resize to what they crop.
    ("vit_b_16", 384): (384, "bicubic"),
    ("vit_l_16", 512): (512, "bicubic"),
    ("vit_h_14", 518): (518, "bicubic"),
    ("vit_h_14", 224): (224, "bicubic"),
}
"""Length of the shorter side before the crop, and the filter, by architecture and resolution: those of
``IMAGENET1K_V1`` where there are such weights."""

_LINEAR_TAG = "imagenet1k_swag_linear_v1"


def speaks(weights: Weights) -> bool:
    """Whether the weights have torchvision's names."""
    return any(name.startswith("conv_proj.") for name in weights)


def read(weights: Weights, base: ViTConfig, arch: str, num_classes: int | None) -> Bare:
    """A state dict of torchvision's ``VisionTransformer``.

    Args:
        weights: under torchvision's names.
        base: the architecture that was named; its heads are taken, for they do not show.
        arch: its name; a tag chooses the preprocessing (``vit_b_16.IMAGENET1K_SWAG_LINEAR_V1``).
        num_classes: 0 to take a file without a head.

    Raises:
        ImportFailed: for a convolutional stem, weights of another architecture, or a missing head.
    """
    stem = next((name for name in weights if re.match(r"conv_proj\.\D+\d*\.\d", name)), "")
    if stem:
        raise ImportFailed(
            f"the checkpoint has a convolutional stem before the patches (weight {stem!r})",
            expected="patches that are cut and projected in one step (conv_proj.weight)",
            next_command=AS_MODULE,
        )
    translated = Weights(tensor.renamed(our_name(name)) for name, tensor in weights.items()).as_float32()
    classes = {"num_classes": 0} if num_classes == 0 else {}
    config, notes = fitted(
        base, translated, arch, norm_eps=NORM_EPS, position_resampling="bicubic_aligned", **classes
    )
    return Bare(config, translated, preprocessing_of(arch, config), notes)


def our_name(name: str) -> str:
    """Our name of one of torchvision's weights; a name that is not known stays."""
    block = _BLOCK.fullmatch(name)
    tail, table = (block[2], _INNER) if block else (name, _NAMES)
    for pattern, ours in table:
        found = pattern.fullmatch(tail)
        if found:
            return (f"blocks.{block[1]}." if block else "") + found.expand(ours)
    return name


def preprocessing_of(arch: str, config: ViTConfig) -> Preprocessing:
    """What torchvision's ``weights.transforms()`` does, for the weights of this architecture and size."""
    name, _, tag = arch.partition(".")
    side = config.image_size[0]
    resized = _RESIZED.get((name, side))
    if tag.lower() == _LINEAR_TAG:
        resized = side, "bicubic"
    edge, interpolation = resized or (round(side * 256 / 224), "bilinear")
    grey = config.in_channels != len(_IMAGENET_MEAN)
    recipe = Preprocessing(
        image_size=config.image_size,
        resize="shortest_edge",
        resize_size=(edge, edge),
        interpolation=interpolation,
        mean=(0.5,) * config.in_channels if grey else _IMAGENET_MEAN,
        std=(0.5,) * config.in_channels if grey else _IMAGENET_STD,
        origin="default",
    )
    return replace(recipe, origin="checkpoint") if resized and not grey else recipe
