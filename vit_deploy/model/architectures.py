"""The table of named architectures.

Sizes follow Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929, table 1), Zhai et al.
2022 for g (https://arxiv.org/abs/2106.04560, table 2) and Touvron et al. 2021 for DeiT
(https://arxiv.org/abs/2012.12877); names are those that timm made the field's standard.
"""

from __future__ import annotations

from dataclasses import replace

from vit_deploy.errors import unknown_name
from vit_deploy.model.config import ViTConfig


def _size(embed_dim: int, depth: int, num_heads: int, mlp_dim: int = 0) -> ViTConfig:
    return ViTConfig(embed_dim=embed_dim, depth=depth, num_heads=num_heads, mlp_dim=mlp_dim or 4 * embed_dim)


_SIZES = {
    "tiny": _size(192, 12, 3),
    "small": _size(384, 12, 6),
    "base": _size(768, 12, 12),
    "large": _size(1024, 24, 16),
    "huge": _size(1280, 32, 16),
    "giant": _size(1408, 40, 16, 6144),
}

_VARIANTS = (
    ("tiny", 16, (224, 384)),
    ("small", 8, (224,)),
    ("small", 16, (224, 384)),
    ("small", 32, (224, 384)),
    ("base", 8, (224,)),
    ("base", 16, (224, 384)),
    ("base", 32, (224, 384)),
    ("large", 14, (224,)),
    ("large", 16, (224, 384)),
    ("large", 32, (224, 384)),
    ("huge", 14, (224,)),
    ("giant", 14, (224,)),
)

DEFAULT_ARCH = "vit_base_patch16_224"


def _named_configs() -> dict[str, ViTConfig]:
    table = {
        f"vit_{size}_patch{patch}_{pixels}": replace(
            _SIZES[size], patch_size=patch, image_size=(pixels, pixels)
        )
        for size, patch, resolutions in _VARIANTS
        for pixels in resolutions
    }
    for size, resolutions in (("tiny", (224,)), ("small", (224,)), ("base", (224, 384))):
        for pixels in resolutions:
            plain = replace(_SIZES[size], image_size=(pixels, pixels))
            table[f"deit_{size}_patch16_{pixels}"] = plain
            table[f"deit_{size}_distilled_patch16_{pixels}"] = replace(
                plain, distillation_token=True, distillation_head=True
            )
    return table


NAMED_CONFIGS: dict[str, ViTConfig] = _named_configs()
"""Every named architecture, by its timm name."""


def named_config(name: str) -> ViTConfig:
    """The config of a named architecture; a pretrained tag (``.augreg_in21k``) is allowed and ignored.

    Raises:
        UsageFailed: for an unknown name, with the nearest ones.
    """
    config = NAMED_CONFIGS.get(name.partition(".")[0])
    if config is None:
        raise unknown_name("architecture", name, NAMED_CONFIGS, "vit-deploy models")
    return config
