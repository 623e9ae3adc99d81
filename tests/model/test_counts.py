from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tests.model.parts import PARTS
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.counts import count_macs, count_moved_elements, count_parameters, gemm_shapes
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


def _flops_of_the_model(
    config: ViTConfig, batch_size: int, outputs: tuple[str, ...], size: tuple[int, int]
) -> int:
    with torch.device("meta"):
        model = ViT(config, outputs=outputs, dynamic_size=size != config.image_size)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(batch_size, config.in_channels, *size))
    return int(counter.get_total_flops())


@st.composite
def configs(draw: st.DrawFn) -> ViTConfig:
    part = draw(st.sampled_from(sorted(PARTS)))
    if PARTS[part].get("rotary") or "relative" in part:
        heads, head_dim = 4, 16
    else:
        heads, head_dim = draw(st.sampled_from([(2, 8), (3, 16), (6, 4)]))
    plain = ViTConfig(
        image_size=(draw(st.integers(2, 4)) * 8, draw(st.integers(2, 4)) * 8),
        patch_size=8,
        embed_dim=heads * head_dim,
        num_heads=heads,
        depth=draw(st.integers(1, 4)),
        mlp_dim=draw(st.integers(1, 90)),
        num_classes=draw(st.integers(1, 12)),
    )
    changes = {name: value for name, value in PARTS[part].items() if name != "pool_heads"}
    return replace(plain, **changes)


@settings(deadline=None, max_examples=60)
@given(config=configs(), batch_size=st.integers(1, 5), data=st.data())
def test_the_products_are_those_of_the_model_at_any_batch_and_for_any_outputs(config, batch_size, data):
    names = data.draw(st.lists(st.sampled_from(config.output_names), min_size=1, unique=True))
    found = gemm_shapes(config, batch_size, outputs=names)
    total = sum(2 * gemm.m * gemm.k * gemm.n * gemm.count for gemm in found)
    assert total == 2 * count_macs(config, batch_size=batch_size, outputs=names)
    assert total == _flops_of_the_model(config, batch_size, tuple(names), config.image_size)


def test_the_products_at_another_image_size_are_those_of_the_model_there(small_config: ViTConfig):
    # Positions that are resampled with each batch cost products of their own, which are not the network's.
    config = replace(small_config, positions="none")
    size = (config.image_size[0] + 2 * config.patch_size, config.image_size[1])
    told = count_macs(config, batch_size=3, image_size=size, outputs=("tokens",))
    assert 2 * told == _flops_of_the_model(config, 3, ("tokens",), size)
    assert told > count_macs(config, batch_size=3, outputs=("tokens",))


def test_weights_of_the_products_are_the_matrices_of_the_model(small_config: ViTConfig):
    config = replace(small_config, pool="map", num_classes=5)
    with torch.device("meta"):
        matrices = [value for name, value in ViT(config).named_parameters() if name.endswith(".weight")]
    wanted = sorted(value.numel() for value in matrices if value.ndim > 1)
    found = [gemm.k * gemm.n for gemm in gemm_shapes(config, 2) if gemm.weights for _ in range(gemm.times)]
    assert sorted(found) == wanted


def test_what_an_inference_moves_is_counted_by_hand(small_config: ViTConfig):
    config = replace(small_config, depth=1, num_classes=0)
    tokens, dim, mlp, patches = config.num_tokens, config.embed_dim, config.mlp_dim, config.num_patches
    pixels = patches * config.in_channels * config.patch_size**2
    projections = pixels + patches * dim  # in and out of the patch projection
    attention = tokens * (dim + 3 * dim) + tokens * (3 * dim + dim) + tokens * (dim + dim)
    layers = tokens * (dim + mlp) + tokens * (mlp + dim)
    wanted = count_parameters(config) + 2 * (projections + attention + layers)
    assert count_moved_elements(config, gemm_shapes(config, 2, outputs=("tokens",))) == wanted
