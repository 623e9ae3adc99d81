"""timm's names of a plain ViT's weights into transformers', for the three model types that are compared.

Read off ``modeling_vit.py``, ``modeling_dinov2.py`` and ``modeling_clip.py`` of transformers 4.57.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.peers.models import IMAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.peers.recipe import Job


@dataclass(frozen=True)
class Dialect:
    """A model type: its class, its settings, and what its weights are called.

    Attributes:
        architecture: the class in transformers.
        block: the prefix of a block, with its number to be filled in.
        settings: of its config, over what the weights tell.
        names: outside the blocks, timm's to transformers'.
        inside: inside a block; ``{}`` in ``qkv`` is filled with each of ``parts``.
        parts: what query, key and value are called.
        qkv: where they are.
    """

    architecture: str
    block: str
    settings: dict[str, Any]
    names: dict[str, str]
    inside: dict[str, str]
    qkv: str
    parts: tuple[str, str, str] = ("query", "key", "value")


DIALECTS = {
    "vit": Dialect(
        "ViTForImageClassification",
        "vit.encoder.layer.{}.",
        {"layer_norm_eps": 1e-6},
        {
            "cls_token": "vit.embeddings.cls_token",
            "pos_embed": "vit.embeddings.position_embeddings",
            "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
            "norm": "vit.layernorm",
            "head": "classifier",
        },
        {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
        },
        "attention.attention.{}",
    ),
    "dinov2": Dialect(
        "Dinov2Model",
        "encoder.layer.{}.",
        {"layer_norm_eps": 1e-6},
        {
            "cls_token": "embeddings.cls_token",
            "pos_embed": "embeddings.position_embeddings",
            "patch_embed.proj": "embeddings.patch_embeddings.projection",
            "norm": "layernorm",
        },
        {
            "norm1": "norm1",
            "norm2": "norm2",
            "ls1.gamma": "layer_scale1.lambda1",
            "ls2.gamma": "layer_scale2.lambda1",
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        },
        "attention.attention.{}",
    ),
    "clip_vision_model": Dialect(
        "CLIPVisionModel",
        "vision_model.encoder.layers.{}.",
        {"layer_norm_eps": 1e-5, "hidden_act": "gelu"},
        {
            "cls_token": "vision_model.embeddings.class_embedding",
            "pos_embed": "vision_model.embeddings.position_embedding.weight",
            "patch_embed.proj": "vision_model.embeddings.patch_embedding",
            "norm_pre": "vision_model.pre_layrnorm",
            "norm": "vision_model.post_layernorm",
        },
        {
            "norm1": "layer_norm1",
            "norm2": "layer_norm2",
            "attn.proj": "self_attn.out_proj",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        },
        "self_attn.{}_proj",
        ("q", "k", "v"),
    ),
}
_CROP = {"crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}, "size": {"shortest_edge": IMAGE_SIZE}}
_PREPROCESSING: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}},
    "dinov2": {"image_processor_type": "BitImageProcessor", **_CROP},
    "clip_vision_model": {"image_processor_type": "CLIPImageProcessor", **_CROP},
}
"""A checkpoint's other file; of a DINOv2 the exporter reads the image size from it."""
_WHOLE = ("cls_token", "pos_embed", "ls1.gamma", "ls2.gamma")
"""Names that are a tensor's, not a layer's with weight and bias."""


def write_transformers(job: Job, folder: Path) -> None:
    """Write a job's checkpoint as a folder in transformers' layout."""
    from safetensors.torch import load_file, save_file

    kind = job.model.transformers
    weights = load_file(job.checkpoint / "model.safetensors")
    renamed = {name: tensor.contiguous().clone() for name, tensor in translate(weights, DIALECTS[kind])}
    if kind == "clip_vision_model":
        cls = "vision_model.embeddings.class_embedding"
        positions = "vision_model.embeddings.position_embedding.weight"
        renamed[cls], renamed[positions] = renamed[cls].flatten(), renamed[positions][0]
    if kind == "dinov2":
        # Of masked pretraining; no inference uses it, but the class has it.
        renamed["embeddings.mask_token"] = renamed["embeddings.cls_token"].flatten()[None] * 0
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSING[kind]) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config(weights, kind), indent=1) + "\n", encoding="utf-8")


def config(weights: dict[str, Any], kind: str) -> dict[str, Any]:
    """``config.json``, read off the weights: every one of these models has heads of 64."""
    width, hidden = weights["cls_token"].shape[-1], weights["blocks.0.mlp.fc1.weight"].shape[0]
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 64,
        "intermediate_size": hidden,
        "mlp_ratio": hidden // width,
        "image_size": IMAGE_SIZE,
        "patch_size": weights["patch_embed.proj.weight"].shape[-1],
    }
    classes = weights["head.bias"].shape[0] if "head.bias" in weights else 0
    labels: dict[str, Any] = {"id2label": {str(index): f"LABEL_{index}" for index in range(classes)}}
    told = {"architectures": [DIALECTS[kind].architecture], "model_type": kind, "dtype": "float32"}
    return {**told, **sizes, **(labels if classes else {}), **DIALECTS[kind].settings}


def translate(weights: dict[str, Any], dialect: Dialect) -> Iterator[tuple[str, Any]]:
    """Each weight under its name in a dialect; query, key and value are stacked in timm's.

    Raises:
        KeyError: for a weight that the dialect has no name for.
    """
    for name, tensor in weights.items():
        prefix, inner, names = "", name, dialect.names
        if name.startswith("blocks."):
            _, number, inner = name.split(".", 2)
            prefix, names = dialect.block.format(number), dialect.inside
        if inner in _WHOLE:
            yield prefix + names[inner], tensor
            continue
        layer, _, kind = inner.rpartition(".")
        if layer == "attn.qkv":
            for part, piece in zip(dialect.parts, tensor.chunk(3), strict=True):
                yield f"{prefix}{dialect.qkv.format(part)}.{kind}", piece
        else:
            yield f"{prefix}{names[layer]}.{kind}", tensor
