from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.model.parts import PARTS
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.counts import count_macs, count_parameters
from vit_deploy.model.vit import ViT

# Blocks are alike, so two tell of any number; what then is the same config under several names is run once.
TWO_BLOCKS = {replace(config, depth=2): name for name, config in NAMED_CONFIGS.items()}


@pytest.mark.parametrize("config", TWO_BLOCKS, ids=TWO_BLOCKS.values())
def test_parameters_of_every_named_size(config: ViTConfig):
    with torch.device("meta"):
        model = ViT(config)
    assert count_parameters(config) == sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize("changes", PARTS.values(), ids=PARTS)
def test_the_closed_forms_are_the_model(small_config: ViTConfig, changes: dict[str, Any]):
    config = replace(small_config, **changes)
    with torch.device("meta"):
        model = ViT(config)
        pixels = torch.empty(1, config.in_channels, *config.image_size)
        with FlopCounterMode(display=False) as counter:
            model(pixels)
    assert count_parameters(config) == sum(value.numel() for value in model.parameters())
    # PyTorch's own counter gives two operations for each multiply-accumulate.
    assert 2 * count_macs(config) == counter.get_total_flops()
