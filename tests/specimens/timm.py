"""Checkpoints that timm saves, of its own architectures, made small."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.specimens.specimen import Specimen, Stranger
from tests.specimens.values import randomise

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "timm"

SIZES = {"embed_dim": 64, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8, "num_classes": 7}
"""Of every one, unless it says otherwise."""


def save(folder: Path, seed: int, *, architecture: str, sizes: dict[str, Any]) -> dict[str, str]:
    """A small model of a named architecture, written by ``timm.models.save_for_hf``."""
    import timm

    module = randomise(timm.create_model(architecture, **sizes), seed)
    timm.models.save_for_hf(module, folder, safe_serialization=True)
    return {"reference": str(folder)}


def _specimen(family: str, architecture: str, suffix: str = "", **sizes: Any) -> Specimen:
    write = partial(save, architecture=architecture, sizes={**SIZES, **sizes})
    return Specimen(family, SOURCE, architecture + suffix, write)


def _stranger(family: str, architecture: str, says: str, **sizes: Any) -> Stranger:
    return Stranger(
        family, SOURCE, architecture, partial(save, architecture=architecture, sizes=sizes), says=says
    )


SPECIMENS: tuple[Specimen, ...] = (
    _specimen("ViT (AugReg)", "vit_tiny_patch16_224"),
    _specimen("ViT (AugReg)", "vit_small_patch32_224", ", no head", num_classes=0),
    _specimen("ViT (AugReg)", "vit_base_patch16_224", ", oblong", img_size=(32, 48), in_chans=1),
    _specimen("ViT (AugReg)", "vit_base_patch16_224_miil"),
    _specimen("ViT, mean pooling", "vit_medium_patch16_gap_256"),
    _specimen("ViT, mean pooling", "vit_base_patch16_gap_224"),
    _specimen("FlexiViT", "flexivit_small"),
    _specimen("DeiT", "deit_tiny_patch16_224"),
    _specimen("DeiT distilled", "deit_small_distilled_patch16_224"),
    _specimen("DeiT III", "deit3_small_patch16_224"),
    _specimen("DeiT III", "deit3_medium_patch16_224", ", oblong", img_size=(48, 32)),
    _specimen("MAE", "vit_base_patch16_224.mae", num_classes=0),
    _specimen("MAE, fine-tuned", "vit_large_patch16_224.mae", global_pool="avg"),
    _specimen("I-JEPA", "vit_huge_patch14_gap_224"),
    _specimen("DINO", "vit_small_patch16_224.dino", num_classes=0),
    _specimen("DINOv2", "vit_small_patch14_dinov2", img_size=48, num_classes=0),
    _specimen("DINOv2", "vit_giant_patch14_dinov2", ", SwiGLU", embed_dim=96, num_classes=0),
    _specimen("DINOv2 with registers", "vit_base_patch14_reg4_dinov2", img_size=48, num_classes=0),
    _specimen("DINOv3", "vit_small_patch16_dinov3", num_classes=0),
    _specimen("DINOv3", "vit_base_patch16_dinov3_qkvb", num_classes=0),
    _specimen("DINOv3", "vit_huge_plus_patch16_dinov3", ", SwiGLU", num_classes=0),
    _specimen("CLIP", "vit_base_patch32_clip_224", num_classes=24),
    _specimen("CLIP", "vit_base_patch16_clip_quickgelu_224", num_classes=24),
    _specimen("SigLIP", "vit_base_patch16_siglip_224", num_classes=0),
    _specimen("SigLIP", "vit_base_patch16_siglip_gap_224", num_classes=0),
    _specimen("SigLIP 2", "vit_so400m_patch16_siglip_256", num_classes=0),
    _specimen("Perception Encoder", "vit_pe_core_tiny_patch16_384"),
    _specimen("Perception Encoder", "vit_pe_spatial_tiny_patch16_512", num_classes=0),
    _specimen("Perception Encoder", "vit_pe_lang_large_patch14_448", num_classes=0),
    _specimen("RADIO", "vit_base_patch16_radio_v3"),
    _specimen("EVA", "eva_large_patch14_196"),
    _specimen("EVA", "eva_giant_patch14_224"),
    _specimen("EVA-02", "eva02_tiny_patch14_224"),
    _specimen("EVA-02", "eva02_base_patch14_448", img_size=48),
    _specimen("EVA-02 CLIP", "eva02_base_patch16_clip_224", num_classes=24),
    _specimen("BEiT", "beit_base_patch16_224"),
    _specimen("BEiT v2", "beitv2_base_patch16_224"),
    _specimen("RoPE-ViT (axial)", "vit_small_patch16_rope_224"),
    _specimen("RoPE-ViT (axial)", "vit_base_patch16_rope_ape_224"),
    _specimen("RoPE-ViT (mixed)", "vit_small_patch16_rope_mixed_224"),
    _specimen("RoPE-ViT (mixed)", "vit_base_patch16_rope_mixed_ape_224"),
    _specimen("ViT with RoPE and registers", "vit_medium_patch16_rope_reg1_gap_256"),
    _specimen("ViT with registers", "vit_base_patch16_reg4_gap_256"),
    _specimen("ViT with registers", "vit_so150m_patch16_reg4_map_256"),
    _specimen("ViT with registers", "vit_mediumd_patch16_reg4_gap_256", img_size=48),
)

STRANGERS: tuple[Stranger, ...] = (
    _stranger(
        "Swin",
        "swin_tiny_patch4_window7_224",
        "swin",
        img_size=32,
        patch_size=2,
        window_size=4,
        embed_dim=32,
        depths=(1, 1),
        num_heads=(2, 4),
    ),
    _stranger(
        "Hybrid ResNet-ViT",
        "vit_tiny_r_s16_p8_224",
        "hybrid|vit_tiny_r_s16",
        **{"img_size": 32, "embed_dim": 64, "depth": 1, "num_heads": 4},
    ),
    _stranger(
        "SAM's windowed ViT",
        "samvit_base_patch16",
        "window|sam",
        **{"img_size": 64, "embed_dim": 64, "depth": 2, "num_heads": 4, "global_attn_indexes": (1,)},
    ),
    _stranger("ConvNeXt", "convnext_atto", "convnext", depths=(1, 1, 1, 1), dims=(16, 16, 32, 32)),
    _stranger("NaFlexViT", "naflexvit_base_patch16_gap", "naflex", embed_dim=64, depth=1, num_heads=4),
    _stranger("EVA with post-norm", "eva02_enormous_patch14_clip_224", "post", **SIZES),
    _stranger("Parallel blocks", "vit_small_patch16_18x2_224", "parallel|18x2", **SIZES),
    _stranger("Residual post-norm", "vit_base_patch16_rpn_224", "post|rpn", **SIZES),
    _stranger("AIMv2", "aimv2_large_patch14_224", "RMS|aimv2", **SIZES),
    _stranger("Relative positions by an MLP", "vit_relpos_small_patch16_224", "relpos|relative", **SIZES),
    _stranger("CaiT", "cait_xxs24_224", "cait", embed_dim=64, depth=1, num_heads=4, img_size=32),
    _stranger("XCiT", "xcit_nano_12_p8_224", "xcit", embed_dim=64, depth=1, num_heads=4, img_size=32),
)
