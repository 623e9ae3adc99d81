"""Set-up shared by all tests."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
import torch

from vit_deploy.model.config import ViTConfig


def _mend_torchvision() -> None:
    """Declare the two operators that torchvision's Python code expects of its compiled part.

    A CPU build of torch cannot load a CUDA build's compiled operators, and without the two schemas
    `import torchvision`, and so `import timm`, fails.
    """
    if torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_TORCHVISION_SCHEMAS"] = library  # the schemas live as long as this object


_mend_torchvision()


@pytest.fixture
def small_config() -> ViTConfig:
    """A ViT that runs in milliseconds, with every dimension different from every other."""
    return ViTConfig(
        image_size=(32, 48),
        patch_size=8,
        embed_dim=60,
        depth=3,
        num_heads=5,
        mlp_dim=150,
        num_classes=7,
    )
