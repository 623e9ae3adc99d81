"""Checkpoints of well-known networks that are no ViT at all, told by their weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed

if TYPE_CHECKING:
    from vit_deploy.weights.tensors import Weights

STRANGERS: tuple[tuple[str, str], ...] = (
    (r"layer1\.0\.(conv1|downsample)\b.*", "a ResNet or a network of its kind"),
    (r"(features\.1\.0|layers\.0\.blocks\.0)\.attn\.relative_position_.*", "a Swin Transformer"),
    (r"encoder\.layers\.0\.blocks\.0\.attention\.self\.relative_position_.*", "a Swin Transformer"),
    (r"(bert\.|roberta\.)?embeddings\.word_embeddings\.weight", "a text encoder of BERT's kind"),
    (r"(transformer\.)?wte\.weight|(model\.)?embed_tokens\.weight", "a language model"),
    (
        r"(stages|downsample_layers)\.0\.(0\.|blocks\.0\.conv_dw\.|downsample\.).*",
        "a ConvNeXt or a network of stages",
    ),
    (r"features\.1\.0\.layer_scale", "a ConvNeXt"),
    (r"features\.1\.0\.block\..*", "an EfficientNet or a MobileNet"),
    (r"conv_stem\.weight|blocks\.0\.0\.(conv_dw|conv_pw)\.weight", "an EfficientNet or a MobileNet"),
    (r"features\.0\.(0\.)?weight", "a convolutional network"),
    (r"(image_encoder\.|vision_encoder\.)?neck\.(0|conv1)\.weight", "the image encoder of SAM"),
    (r"x_embedder\.proj\.weight", "a diffusion transformer"),
    (r"blocks_token_only\.0\..*", "a CaiT, with class attention"),
    (r"cls_attn_blocks\.0\..*", "an XCiT, with attention over channels"),
    (
        r"patch_embed1\.proj\.weight|stages\.0\.blocks\.0\.attn\..*",
        "a pyramid of transformers (PVT and its kind)",
    ),
    (r"(stem/kernel|MixerBlock_0/.*|stem\.proj\.weight|blocks\.0\.mlp_tokens\..*)", "an MLP-Mixer"),
)
"""A weight of each kind of network, by its whole name, and what people call the network."""

_ALL = tuple((re.compile(pattern), called) for pattern, called in STRANGERS)


def refuse(weights: Weights) -> None:
    """Refuse the weights of a well-known network that is no ViT.

    Raises:
        ImportFailed: saying what it looks like.
    """
    for pattern, called in _ALL:
        known = next((name for name in weights if pattern.fullmatch(name)), "")
        if known:
            raise ImportFailed(
                f"the checkpoint looks like {called}: it holds weight {known!r}",
                expected="a Vision Transformer of pre-norm blocks with full attention",
                next_command="vit-deploy models",
            )
