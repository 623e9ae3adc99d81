"""A small model of ours beside timm's of the same weights, and specimens as their libraries save them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.specimens import by_id
from tests.specimens.values import randomise
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.weights import load_model
from vit_deploy.weights.imported import Model
from vit_deploy.weights.request import Request
from vit_deploy.weights.source import Source
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import nn

CONFIG = ViTConfig(
    image_size=(32, 32),
    patch_size=8,
    embed_dim=64,
    depth=4,
    num_heads=4,
    mlp_dim=256,
    num_classes=7,
    layer_scale=True,
)


def model_of(config: ViTConfig, state: Mapping[str, torch.Tensor]) -> Model:
    """Our model with weights that have our names."""
    weights = Weights(
        WeightTensor(name, tuple(value.shape), "float32", lambda value=value: value)
        for name, value in state.items()
    )
    source = Source("timm", "tiny", "0" * 64)
    return Model(
        config=config, weights=weights, preprocessing=Preprocessing.default(config), labels=(), source=source
    )


@pytest.fixture(scope="session")
def twin() -> nn.Module:
    """timm's model that :data:`CONFIG` describes; its parameter names are ours."""
    from timm.models.vision_transformer import VisionTransformer

    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4}
    return randomise(VisionTransformer(**sizes, num_classes=7, init_values=0.1), seed=5).double()


@pytest.fixture
def state(twin: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of the twin."""
    return {name: value.clone() for name, value in twin.state_dict().items()}


@pytest.fixture
def specimen(tmp_path) -> Callable[[str], tuple[Request, Model]]:
    """Save a specimen and import it."""

    def make(name: str) -> tuple[Request, Model]:
        arguments = by_id(name).save(tmp_path / name.replace("/", "-"))
        return Request(**arguments), load_model(**arguments)

    return make
