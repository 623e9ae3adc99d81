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


@pytest.mark.parametrize("name", NAMED_CONFIGS)
def test_parameters_of_every_named_size(name: str):
    with torch.device("meta"):
        model = ViT(NAMED_CONFIGS[name])
    assert count_parameters(NAMED_CONFIGS[name]) == sum(value.numel() for value in model.parameters())


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
