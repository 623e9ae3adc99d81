"""State dicts of torchvision's ``VisionTransformer``, made small; a file and the name of its builder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.specimens.specimen import Specimen, Stranger
from tests.specimens.values import randomise

if TYPE_CHECKING:
    from pathlib import Path

    import torch

SOURCE = "torchvision"

SIZES = {"image_size": 32, "patch_size": 8, "num_layers": 2, "mlp_dim": 160, "num_classes": 7}
"""Of every one, unless it says otherwise; heads and their number are the builder's."""


def save(folder: Path, seed: int, *, builder: str, sizes: dict[str, Any]) -> dict[str, str]:
    """The state dict of a small ``VisionTransformer``, written by ``torch.save``."""
    from torchvision.models import VisionTransformer

    return _save_state(folder, VisionTransformer(**sizes), seed, builder)


def _save_state(folder: Path, module: torch.nn.Module, seed: int, builder: str) -> dict[str, str]:
    import torch

    path = folder / f"{builder}.pth"
    torch.save(randomise(module, seed).state_dict(), path)
    return {"reference": str(path), "arch": builder}


def _save_swin(folder: Path, seed: int) -> dict[str, str]:
    from torchvision.models import SwinTransformer

    module = SwinTransformer([4, 4], 16, [1, 1], [2, 4], [4, 4], num_classes=7)
    return _save_state(folder, module, seed, "swin_t")


def _save_network(folder: Path, seed: int, *, builder: str) -> dict[str, str]:
    from torchvision import models

    return _save_state(folder, getattr(models, builder)(num_classes=7), seed, builder)


def _save_convolutional_stem(folder: Path, seed: int) -> dict[str, str]:
    from torchvision.models.vision_transformer import ConvStemConfig

    stem = [ConvStemConfig(out_channels=8, kernel_size=3, stride=2) for _ in range(3)]
    sizes = {**SIZES, "num_heads": 12, "hidden_dim": 96, "conv_stem_configs": stem}
    return save(folder, seed, builder="vit_b_16", sizes=sizes)


def _specimen(builder: str, heads: int, width: int, suffix: str = "", **sizes: Any) -> Specimen:
    sizes = {**SIZES, "num_heads": heads, "hidden_dim": width, **sizes}
    return Specimen("ViT", SOURCE, builder + suffix, partial(save, builder=builder, sizes=sizes))


SPECIMENS: tuple[Specimen, ...] = (
    _specimen("vit_b_16", 12, 96),
    _specimen("vit_b_32", 12, 96, patch_size=16, image_size=64),
    _specimen("vit_l_16", 16, 64, num_layers=3),
    _specimen("vit_l_32", 16, 64, num_classes=5),
    _specimen("vit_h_14", 16, 64, image_size=48),
    _specimen("vit_b_16", 12, 96, ", pre-logits", representation_size=40),
)

STRANGERS: tuple[Stranger, ...] = (
    Stranger("Swin", SOURCE, "swin_t", _save_swin, says="swin"),
    Stranger(
        "ConvNet",
        SOURCE,
        "shufflenet_v2_x0_5",
        partial(_save_network, builder="shufflenet_v2_x0_5"),
        says="shufflenet",
    ),
    Stranger(
        "ViT with a convolutional stem",
        SOURCE,
        "vit_b_16, stem",
        _save_convolutional_stem,
        says="conv|stem|hybrid",
    ),
)
