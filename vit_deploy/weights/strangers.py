"""Checkpoints of well-known networks that are no ViT at all, told by their weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vit_deploy.errors import ImportFailed

if TYPE_CHECKING:
    from vit_deploy.weights.tensors import Weights

STRANGERS: tuple[tuple[str, str], ...] = (
    (
        r"layer1\.0\.(conv1|downsample)\b.*",
        "a ResNet or a network of its kind, which has stages of convolutions",
    ),
    (
        r"(features\.1\.0|layers\.0\.blocks\.0)\.attn\.relative_position_.*",
        "a Swin Transformer, which has shifted windows and merged patches",
    ),
    (
        r"encoder\.layers\.0\.blocks\.0\.attention\.self\.relative_position_.*",
        "a Swin Transformer, which has shifted windows and merged patches",
    ),
    (
        r"(bert\.|roberta\.)?embeddings\.word_embeddings\.weight",
        "a text encoder of BERT's kind, which reads words",
    ),
    (r"(transformer\.)?wte\.weight|(model\.)?embed_tokens\.weight", "a language model, which reads words"),
    (
        r"(stages|downsample_layers)\.0\.(0\.|blocks\.0\.conv_dw\.|downsample\.).*",
        "a ConvNeXt or a network of stages, which has stages of convolutions",
    ),
    (r"features\.1\.0\.layer_scale", "a ConvNeXt, which has stages of convolutions"),
    (r"features\.1\.0\.block\..*", "an EfficientNet or a MobileNet, which has stages of convolutions"),
    (
        r"conv_stem\.weight|blocks\.0\.0\.(conv_dw|conv_pw)\.weight",
        "an EfficientNet or a MobileNet, which has stages of convolutions",
    ),
    (r"stage2\.0\.branch[12]\.0\.weight", "a ShuffleNet, which has stages of convolutions"),
    (r"features\.0\.(0\.)?weight", "a convolutional network"),
    (
        r"(image_encoder\.|vision_encoder\.)?neck\.(0|conv1)\.weight",
        "the image encoder of SAM, which has windowed attention with decomposed relative positions",
    ),
    (
        r"x_embedder\.proj\.weight",
        "a diffusion transformer, which is told the time and conditions of a picture to draw",
    ),
    (r"blocks_token_only\.0\..*", "a CaiT, with class attention"),
    (r"cls_attn_blocks\.0\..*", "an XCiT, with attention over channels"),
    (
        r"patch_embed1\.proj\.weight|stages\.0\.blocks\.0\.attn\..*",
        "a pyramid of transformers (PVT and its kind), which has stages of different widths",
    ),
    (
        r"(stem/kernel|MixerBlock_0/.*|stem\.proj\.weight|blocks\.0\.mlp_tokens\..*)",
        "an MLP-Mixer, which has MLPs across patches in place of attention",
    ),
)
"""A weight of each kind of network, by its whole name, and what people call the network, with what it has."""

AS_MODULE = "export it as a module of your own: -m py:package.module:factory --weights FILE"
"""The way for weights that are not read here."""

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
                next_command=AS_MODULE,
            )
