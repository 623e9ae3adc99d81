"""Small configs of the families whose image size can be free."""

from __future__ import annotations

from dataclasses import replace

from vit_deploy.model.config import ViTConfig
from vit_deploy.model.rotary_config import RotaryConfig

SMALL = ViTConfig(
    image_size=(32, 48), patch_size=8, embed_dim=64, depth=1, num_heads=4, mlp_dim=96, num_classes=7
)
HEADLESS = replace(SMALL, num_classes=0)

FAMILIES: dict[str, ViTConfig] = {
    "learned": SMALL,
    "distilled": replace(SMALL, distillation_token=True, distillation_head=True),
    "registers without positions": replace(
        HEADLESS, layer_scale=True, num_registers=4, position_scope="class", position_resampling="bicubic"
    ),
    "centred rotary": replace(
        HEADLESS,
        layer_scale=True,
        num_registers=4,
        positions="none",
        rotary=RotaryConfig(coordinates="centred", theta=100.0, pairing="halves"),
    ),
    "rotary with a reference grid": replace(
        SMALL,
        rotary=RotaryConfig(reference_grid=(4, 4)),
        gated_mlp=True,
        activation="silu",
        mlp_norm=True,
        attn_norm=True,
        pool="avg",
        fc_norm=True,
        final_norm=False,
    ),
    "mixed learned rotary": replace(SMALL, rotary=RotaryConfig(learned=True, theta=10.0)),
    "attention pooling": replace(
        HEADLESS,
        class_token=False,
        pool="map",
        activation="gelu_tanh",
        position_resampling="bilinear_antialias",
    ),
    "projection": replace(
        HEADLESS,
        pre_norm=True,
        activation="quick_gelu",
        projection_dim=20,
        position_resampling="bicubic_aligned",
    ),
    "positions of patches": replace(
        SMALL, num_registers=1, position_scope="patches", pool="avg_all", position_resampling="bilinear"
    ),
    "pixels left over": replace(SMALL, image_size=(35, 53), drop_remainder=True),
    "no positions": replace(SMALL, positions="none", pool="max"),
}

SIZES = [(32, 48), (16, 24), (64, 96), (24, 72)]
"""The model's own, the least and the largest of the default range, and another aspect."""
