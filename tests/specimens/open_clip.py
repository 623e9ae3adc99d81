"""Checkpoints of OpenCLIP, of its own model configs, made small: both towers, and its config file.

A tower that OpenCLIP takes from timm has timm's size: its config says a name and nothing of widths.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.specimens.specimen import Specimen, Stranger
from tests.specimens.values import randomise

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "open_clip"

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16}
TEXT = {"context_length": 8, "vocab_size": 99, "width": 32, "heads": 2, "layers": 1}
TIMM = {"image_size": 64}


def save(folder: Path, seed: int, *, config: str, vision: dict[str, Any]) -> dict[str, str]:
    """A small model of a named config, written by OpenCLIP's own ``save_for_hf``."""
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf
    from open_clip.transform import PreprocessCfg

    described = open_clip.get_model_config(config)
    described["embed_dim"] = 24
    described["vision_cfg"].update(vision)
    described["text_cfg"].update(TEXT)
    if "multimodal_cfg" in described:
        described["multimodal_cfg"].update({**TEXT, "attn_pooler_heads": 2})
    for name in ("hf_tokenizer_name", "hf_model_name"):
        described["text_cfg"].pop(name, None)
    module = randomise(_build(described), seed)
    open_clip.model.set_model_preprocess_cfg(module, asdict(PreprocessCfg(size=module.visual.image_size)))
    tokenizer = SimpleNamespace(save_pretrained=lambda folder: None)  # of no use here, and not offline
    save_for_hf(module, tokenizer, described, str(folder), safe_serialization=True)
    return {"reference": str(folder)}


def _build(described: dict[str, Any]) -> Any:
    """As ``open_clip.create_model`` chooses the class."""
    import open_clip

    options = {name: value for name, value in described.items() if name != "custom_text"}
    if "multimodal_cfg" in described:
        return open_clip.CoCa(**options)
    chosen = open_clip.CustomTextCLIP if described.get("custom_text") else open_clip.CLIP
    return chosen(**options)


def _specimen(family: str, config: str, vision: dict[str, Any] = VISION, **more: Any) -> Specimen:
    return Specimen(family, SOURCE, config, partial(save, config=config, vision={**vision, **more}))


def _stranger(family: str, config: str, says: str, vision: dict[str, Any]) -> Stranger:
    return Stranger(family, SOURCE, config, partial(save, config=config, vision=vision), says=says)


SPECIMENS: tuple[Specimen, ...] = (
    _specimen("CLIP", "ViT-B-32-quickgelu"),
    _specimen("OpenCLIP", "ViT-B-32"),
    _specimen("OpenCLIP", "ViT-H-14", layers=3),
    _specimen("OpenCLIP", "ViT-B-16-plus-240", image_size=48),
    _specimen("OpenCLIP with LayerScale", "ViT-S-16-alt"),
    _specimen("CLIPA", "ViT-L-14-CLIPA"),
    _specimen("CLIPA", "ViT-bigG-14-CLIPA", mlp_ratio=2.5),
    _specimen("Perception Encoder", "PE-Core-T-16-384", TIMM),
)

STRANGERS: tuple[Stranger, ...] = (
    _stranger("CoCa", "coca_ViT-B-32", "coca|attentional|attn_pool", {**VISION, "attn_pooler_heads": 2}),
    _stranger("CLIP ResNet", "RN50", "RN50|ResNet", {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}),
)
