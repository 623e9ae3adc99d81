"""From a Vision Transformer's checkpoint to an artefact that is fast and proven equal to eager PyTorch.

Names are imported on first use, so that ``import vit_deploy`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_deploy.bundle import Bundle
    from vit_deploy.errors import VitDeployError
    from vit_deploy.model.config import ViTConfig
    from vit_deploy.model.layout import EINOPS, RESHAPE
    from vit_deploy.model.patches import PatchEmbedding
    from vit_deploy.model.vit import ViT
    from vit_deploy.weights import load_model
    from vit_deploy.weights.imported import Model

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "vit_deploy.bundle",
    "EINOPS": "vit_deploy.model.layout",
    "Model": "vit_deploy.weights.imported",
    "PatchEmbedding": "vit_deploy.model.patches",
    "RESHAPE": "vit_deploy.model.layout",
    "ViT": "vit_deploy.model.vit",
    "ViTConfig": "vit_deploy.model.config",
    "VitDeployError": "vit_deploy.errors",
    "load_model": "vit_deploy.weights",
}

__all__ = [
    "EINOPS",
    "RESHAPE",
    "Bundle",
    "Model",
    "PatchEmbedding",
    "ViT",
    "ViTConfig",
    "VitDeployError",
    "load_model",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vit_deploy' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
