"""OpenCLIP checkpoints (https://github.com/mlfoundations/open_clip): the image tower of a CLIP.

Read are directories with ``open_clip_config.json`` as ``push_to_hf_hub`` writes them, and bare state
dicts, of OpenCLIP's own ``VisionTransformer`` and of towers that it takes from timm. ``image_embeds`` is
what ``encode_image(normalize=False)`` gives. The text tower is left out. OpenCLIP is not needed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed
from vit_deploy.weights.bare import Bare, fitted, size_of
from vit_deploy.weights.files import CONFIG_NAME, OPEN_CLIP_CONFIG, read_directory_weights, read_json
from vit_deploy.weights.imported import Model
from vit_deploy.weights.open_clip.config import (
    IMAGE_MEAN,
    IMAGE_STD,
    NORM_EPS,
    preprocessing_of,
    tower_config,
)
from vit_deploy.weights.source import Source
from vit_deploy.weights.strangers import AS_MODULE
from vit_deploy.weights.tensors import Weights, WeightTensor
from vit_deploy.weights.timm import translate as translate_timm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.preprocess import Preprocessing
    from vit_deploy.weights.request import Request

OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
_OTHER_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""As ``_find_checkpoint_in_dir`` of open_clip/factory.py prefers them."""

_TEXT = re.compile(
    r"(?:logit_scale|logit_bias|text_projection|positional_embedding|attn_mask|cls_emb|input_resolution"
    r"|context_length|vocab_size)|(?:transformer|token_embedding|ln_final|text|text_decoder)\..*"
)
"""What stands beside the image tower in a CLIP."""

_NAMES = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"conv1\.weight", "patch_embed.proj.weight"),
        (r"ln_pre\.(weight|bias)", r"norm_pre.\1"),
        (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(weight|bias)", r"blocks.\1.norm\2.\3"),
        (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
        (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
        (r"transformer\.resblocks\.(\d+)\.attn\.ln_([qk])\.(weight|bias)", r"blocks.\1.attn.\2_norm.\3"),
        (r"transformer\.resblocks\.(\d+)\.attn\.ln_inner\.(weight|bias)", r"blocks.\1.attn.norm.\2"),
        (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
        (r"transformer\.resblocks\.(\d+)\.mlp\.ln\.(weight|bias)", r"blocks.\1.mlp.norm.\2"),
        (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
        (r"transformer\.resblocks\.(\d+)\.ls_([12])\.gamma", r"blocks.\1.ls\2.gamma"),
    )
)
"""Our names of the weights of OpenCLIP's own tower that keep their shapes."""

_MISSING = (
    (r"attn_pool(_contrastive)?\..*", "CoCa's attentional pooler"),
    (r"layer1\..*|attnpool\..*", "the stages of a ResNet"),
    (r"transformer\.resblocks\.\d+\.attn\.logit_scale", "scaled cosine attention"),
    (r"transformer\.resblocks\.\d+\.attn\.head_scale", "a scale on each head"),
    (r"transformer\.resblocks\.\d+\.ln_attn\..*", "a norm after attention"),
    (r"head\.mlp\..*", "an MLP as projection (timm_proj='mlp')"),
    (r"head\.pool\..*", "attention pooling over a feature map"),
    (r"trunk\.(stages|stem|layers)\..*", "the stages of a ConvNeXt, ViTamin or Swin"),
)
"""Weights of an image tower by which a part is known that no ViTConfig can say."""


def detects(request: Request) -> bool:
    """Whether the reference is a directory with OpenCLIP's config, and weights that belong to it.

    A directory may hold a transformers checkpoint of the same model besides, with a config of its own.
    """
    if not (request.path / OPEN_CLIP_CONFIG).is_file():
        return False
    if not (request.path / CONFIG_NAME).is_file():
        return True
    own, other = (
        any((request.path / name).is_file() for name in names) for names in (OPEN_CLIP_WEIGHTS, _OTHER_WEIGHTS)
    )
    return own and not other


def load(request: Request) -> Model:
    """The image tower of a directory that OpenCLIP's ``save_for_hf`` or the hub wrote.

    Raises:
        ImportFailed: for a tower that is no supported ViT, with what is missing, and for broken configs.
        HostileInput: for weights that are truncated or hold code.
    """
    entries = read_json(request.path / OPEN_CLIP_CONFIG)
    described = entries.fields("model_cfg")
    tower = described.fields("vision_cfg")
    config = tower_config(described)
    raw, sha256 = read_directory_weights(
        request.path, (*OPEN_CLIP_WEIGHTS, *_OTHER_WEIGHTS), use_ema=request.use_ema
    )
    weights = translate(raw, config)
    if "timm_model_name" in tower:
        config = _with_projection(config, weights)
    name = tower.text("timm_model_name", "") or f"ViT, {config.depth} blocks of {config.embed_dim}"
    return Model(
        config=config,
        weights=weights,
        preprocessing=preprocessing_of(entries.fields("preprocess_cfg", {}), config),
        labels=(),
        source=Source("open_clip", request.name or name, sha256),
        notes=raw.notes,
    )


def speaks(weights: Weights) -> bool:
    """Whether the weights have OpenCLIP's names: of a whole CLIP, or of its image tower."""
    return any(name.startswith("visual.") for name in weights) or {"class_embedding", "conv1.weight"} <= set(
        weights
    )


def read(weights: Weights, base: ViTConfig, arch: str, num_classes: int | None) -> Bare:  # noqa: ARG001
    """A bare state dict of OpenCLIP's names.

    Raises:
        ImportFailed: for a tower that is no supported ViT, or of another architecture.
    """
    translated = translate(weights, base)
    notes: tuple[str, ...] = ()
    if any(name.startswith("visual.trunk.") for name in weights):
        config, notes = fitted(base, translated, arch, num_classes=0)
        config = _with_projection(config, translated)
    else:
        # OpenCLIP's LayerNorm has torch's own epsilon; timm's table has it for timm's CLIPs too.
        config, notes = fitted(
            base,
            translated,
            arch,
            num_classes=0,
            patch_bias=False,
            norm_eps=NORM_EPS,
            position_resampling="bicubic_antialias",
            projection_dim=size_of(translated, "projection.weight", 0, base.projection_dim),
            projection_bias=False,
        )
    return Bare(config, translated, _default_preprocessing(config), notes)


def _default_preprocessing(config: ViTConfig) -> Preprocessing:
    from vit_deploy.model.fields import Fields

    known = {"mean": list(IMAGE_MEAN), "std": list(IMAGE_STD)}
    return replace(preprocessing_of(Fields(known, "preprocess_cfg"), config), origin="default")


def translate(weights: Weights, config: ViTConfig) -> Weights:
    """The image tower's weights under our names, still unread and as float32.

    Raises:
        ImportFailed: for a part that no ViTConfig can say.
    """
    full = any(name.startswith("visual.") for name in weights)
    tower = Weights(
        tensor.renamed(name.removeprefix("visual."))
        for name, tensor in weights.items()
        if name.startswith("visual.") or not (full and _TEXT.fullmatch(name))
    ).as_float32()
    _require_vit(tower)
    if any(name.startswith("trunk.") for name in tower):
        return Weights(_from_timm(tower))
    return Weights(_from_own(tower, after_pool=config.fc_norm and not config.final_norm))


def _require_vit(tower: Weights) -> None:
    for pattern, part in _MISSING:
        for name in tower:
            if re.fullmatch(pattern, name):
                raise ImportFailed(
                    f"the image tower has {part} (weight {name!r}), which is not supported",
                    expected="a Vision Transformer that pools its tokens",
                    next_command=AS_MODULE,
                )


def _from_own(tower: Weights, *, after_pool: bool) -> Iterator[WeightTensor]:
    for name, tensor in tower.items():
        shape = tensor.shape
        if name == "class_embedding" and len(shape) == 1:
            yield tensor.rearranged("cls_token", (1, 1, *shape), lambda token: token[None, None])
        elif name == "positional_embedding" and len(shape) == 2:
            yield tensor.rearranged("pos_embed", (1, *shape), lambda positions: positions[None])
        elif name == "proj" and len(shape) == 2:
            yield tensor.rearranged("projection.weight", shape[::-1], lambda matrix: matrix.T)
        elif name in {"ln_post.weight", "ln_post.bias"}:
            yield tensor.renamed(name.replace("ln_post", "fc_norm" if after_pool else "norm"))
        else:
            yield tensor.renamed(_our_name(name))


def _our_name(name: str) -> str:
    for pattern, ours in _NAMES:
        found = pattern.fullmatch(name)
        if found:
            return found.expand(ours)
    return name


def _from_timm(tower: Weights) -> Iterator[WeightTensor]:
    """A tower of timm's: its head, where it has one, is the projection."""
    trunk = translate_timm(
        Weights(tower[name].renamed(name.removeprefix("trunk.")) for name in tower if name.startswith("trunk."))
    )
    for name, tensor in trunk.items():
        yield tensor.renamed(re.sub(r"^head\.", "projection.", name))
    for name, tensor in tower.items():
        if not name.startswith("trunk."):
            yield tensor.renamed(re.sub(r"^head\.proj\.", "projection.", name))


def _with_projection(config: ViTConfig, weights: Weights) -> ViTConfig:
    """Whether there is a projection, how wide, and with a bias, is the weights' to say."""
    width = size_of(weights, "projection.weight", 0, 0)
    return replace(config, projection_dim=width, projection_bias="projection.bias" in weights)
