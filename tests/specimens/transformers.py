"""Checkpoints that transformers saves with ``save_pretrained``, made small."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.specimens.specimen import Specimen, Stranger
from tests.specimens.values import randomise

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "transformers"

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 7,
}
"""Of every vision config, unless it says otherwise."""

_BY_RATIO = {name: value for name, value in SIZES.items() if name != "intermediate_size"}
_TOWER = {name: value for name, value in SIZES.items() if name != "num_labels"}
_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_NO_HEAD = {"num_labels": 2}
"""transformers' own default, for classes that have no use of it."""


def save(
    folder: Path, seed: int, *, model: str, config: str, options: dict[str, Any], sizes: dict[str, Any]
) -> dict[str, str]:
    """A small model of a class, written by its ``save_pretrained``."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    described = getattr(transformers, config)(**sizes)
    module = randomise(getattr(transformers, model)(described, **options), seed)
    module.save_pretrained(folder)
    return {"reference": str(folder)}


def _writer(model: str, config: str, sizes: dict[str, Any], options: dict[str, Any]) -> Any:
    return partial(save, model=model, config=config, sizes=sizes, options=options)


def _specimen(
    family: str,
    model: str,
    config: str,
    suffix: str = "",
    *,
    base: dict[str, Any] = SIZES,
    options: dict[str, Any] | None = None,
    **sizes: Any,
) -> Specimen:
    write = _writer(model, config, {**base, **sizes}, options or {})
    return Specimen(family, SOURCE, model + suffix, write)


def _stranger(family: str, model: str, config: str, says: str, **sizes: Any) -> Stranger:
    return Stranger(family, SOURCE, model, _writer(model, config, sizes, {}), says=says)


_SWIGLU = {"use_swiglu_ffn": True}
_RELATIVE = {"use_relative_position_bias": True}
_CLIP = {"text_config": _TEXT, "vision_config": _TOWER, "projection_dim": 24}
_SIGLIP = {"text_config": _TEXT, "vision_config": _TOWER}
_DINOV3 = {"num_register_tokens": 4, "layer_norm_eps": 1e-5}

SPECIMENS: tuple[Specimen, ...] = (
    _specimen("ViT (AugReg)", "ViTForImageClassification", "ViTConfig"),
    _specimen("ViT (AugReg)", "ViTModel", "ViTConfig"),
    _specimen("DeiT", "DeiTForImageClassification", "DeiTConfig"),
    _specimen("DeiT distilled", "DeiTForImageClassificationWithTeacher", "DeiTConfig"),
    _specimen("DeiT distilled", "DeiTModel", "DeiTConfig"),
    _specimen("DINO", "ViTModel", "ViTConfig", ", no pooler", options={"add_pooling_layer": False}),
    _specimen("MAE", "ViTMAEModel", "ViTMAEConfig", mask_ratio=0.0),
    _specimen(
        "MAE",
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=48,
    ),
    _specimen("I-JEPA", "IJepaModel", "IJepaConfig"),
    _specimen("I-JEPA", "IJepaForImageClassification", "IJepaConfig"),
    _specimen("MSN", "ViTMSNModel", "ViTMSNConfig"),
    _specimen("DINOv2", "Dinov2Model", "Dinov2Config", base=_BY_RATIO),
    _specimen("DINOv2", "Dinov2ForImageClassification", "Dinov2Config", base=_BY_RATIO),
    _specimen("DINOv2", "Dinov2Model", "Dinov2Config", ", SwiGLU", base=_BY_RATIO, **_SWIGLU),
    _specimen("DINOv2 with registers", "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", base=_BY_RATIO),
    _specimen(
        "DINOv2 with registers",
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        ", SwiGLU",
        base=_BY_RATIO,
        **_SWIGLU,
    ),
    _specimen("DINOv3", "DINOv3ViTModel", "DINOv3ViTConfig", **_DINOV3),
    _specimen(
        "DINOv3",
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        ", SwiGLU",
        use_gated_mlp=True,
        hidden_act="silu",
        **_DINOV3,
    ),
    _specimen("CLIP", "CLIPVisionModel", "CLIPVisionConfig", base=_TOWER),
    _specimen("CLIP", "CLIPVisionModelWithProjection", "CLIPVisionConfig", base=_TOWER, projection_dim=24),
    _specimen("CLIP", "CLIPModel", "CLIPConfig", base=_CLIP),
    _specimen("CLIP", "CLIPForImageClassification", "CLIPConfig", base=_CLIP, num_labels=7),
    _specimen(
        "OpenCLIP",
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        ", GELU",
        base=_TOWER,
        projection_dim=24,
        hidden_act="gelu",
    ),
    _specimen("SigLIP", "SiglipVisionModel", "SiglipVisionConfig", base=_TOWER),
    _specimen("SigLIP", "SiglipModel", "SiglipConfig", base=_SIGLIP),
    _specimen("SigLIP", "SiglipForImageClassification", "SiglipConfig", base=_SIGLIP, num_labels=7),
    _specimen(
        "SigLIP 2", "SiglipVisionModel", "SiglipVisionConfig", ", 3 blocks", base=_TOWER, num_hidden_layers=3
    ),
    _specimen("BEiT", "BeitForImageClassification", "BeitConfig", **_RELATIVE),
    _specimen("BEiT", "BeitModel", "BeitConfig", ", shared table", use_shared_relative_position_bias=True),
    _specimen(
        "BEiT", "BeitForMaskedImageModeling", "BeitConfig", use_mask_token=True, vocab_size=20, **_RELATIVE
    ),
    _specimen("Data2Vec", "Data2VecVisionModel", "Data2VecVisionConfig", **_RELATIVE),
)

STRANGERS: tuple[Stranger, ...] = (
    _stranger(
        "Swin",
        "SwinForImageClassification",
        "SwinConfig",
        "swin",
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 4],
        window_size=4,
    ),
    _stranger(
        "ConvNeXt",
        "ConvNextForImageClassification",
        "ConvNextConfig",
        "convnext",
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
    ),
    _stranger(
        "SAM's windowed ViT",
        "SamVisionModel",
        "SamVisionConfig",
        "sam",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=64,
        global_attn_indexes=[1],
        window_size=2,
        output_channels=16,
        mlp_dim=96,
    ),
    _stranger(
        "SigLIP 2 (NaFlex)",
        "Siglip2VisionModel",
        "Siglip2VisionConfig",
        "siglip2|naflex",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=160,
        patch_size=8,
        num_patches=16,
    ),
    _stranger(
        "AIMv2",
        "Aimv2VisionModel",
        "Aimv2VisionConfig",
        "aimv2",
        **_TOWER,
    ),
    _stranger(
        "Hiera",
        "HieraModel",
        "HieraConfig",
        "hiera",
        embed_dim=16,
        image_size=[64, 64],
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
    ),
    _stranger("VideoMAE", "VideoMAEModel", "VideoMAEConfig", "videomae", **SIZES),
    _stranger("YOLOS", "YolosModel", "YolosConfig", "yolos", **{**SIZES, "image_size": [32, 32]}),
    _stranger(
        "BERT",
        "BertModel",
        "BertConfig",
        "bert",
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=99,
    ),
)
