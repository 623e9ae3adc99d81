"""What a config asks for, told from one block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vit_deploy.errors import HostileInput
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.model.vit import ViT
from vit_deploy.weights.checks import check_finite, expected_shapes
from vit_deploy.weights.random import random_model

SMALL = ViTConfig(image_size=(32, 32), patch_size=8, embed_dim=32, depth=3, num_heads=4, mlp_dim=64)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, depth=1, layer_scale=True, pool="map"),
        replace(SMALL, rotary=RotaryConfig(learned=True), num_registers=2, depth=12),
        replace(SMALL, rotary=RotaryConfig(), gated_mlp=True, mlp_norm=True, num_classes=0, projection_dim=5),
        replace(SMALL, relative_positions="block", positions="none"),
        replace(SMALL, relative_positions="shared", positions="none", qkv_bias=False),
        NAMED_CONFIGS["deit_tiny_distilled_patch16_224"],
    ],
)
def test_expected_shapes_are_the_models_own(config):
    with torch.device("meta"):
        made = {name: tuple(value.shape) for name, value in ViT(config).state_dict().items()}
    assert list(expected_shapes(config).items()) == list(made.items())


def test_of_several_weights_that_are_not_finite_the_first_is_named():
    model = random_model(SMALL, "small")
    state = model.weights.state_dict()
    state["blocks.2.mlp.fc2.bias"][0] = float("nan")
    state["blocks.0.norm1.weight"][:2] = float("inf")
    weights = type(model.weights)(
        replace(tensor, reader=lambda name=name: state[name]) for name, tensor in model.weights.items()
    )
    with pytest.raises(HostileInput, match=r"'blocks\.0\.norm1\.weight' holds 2 NaN or Inf of 32"):
        check_finite(weights)
