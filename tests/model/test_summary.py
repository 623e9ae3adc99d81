from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.model.parts import PARTS
from vit_deploy.errors import UsageFailed
from vit_deploy.model.architectures import named_config
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.counts import count_macs, count_parameters
from vit_deploy.model.layout import EINOPS, RESHAPE
from vit_deploy.model.summary import LayerRow, Totals, layer_table, totals
from vit_deploy.model.vit import ViT


def build(config: ViTConfig, **options: object) -> ViT:
    with torch.device("meta"):
        return ViT(config, **options)  # type: ignore[arg-type]


def by_name(rows: list[LayerRow]) -> dict[str, LayerRow]:
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def test_vit_b_16_by_hand():
    config = ViTConfig()
    found = totals(layer_table(build(config), config))
    patches = 196 * (3 * 16 * 16) * 768
    qkv, projection, mlp = 197 * 768 * 2304, 197 * 768 * 768, 2 * 197 * 768 * 3072
    attention = 2 * 12 * 197 * 197 * 64  # two products, 12 heads of 64
    head = 768 * 1000
    assert found.macs == patches + 12 * (qkv + projection + mlp + attention) + head == 17_563_828_224
    assert found.parameters == 86_567_656
    assert found.gmacs == pytest.approx(17.56, abs=0.005)
    assert found.flops == 2 * 17_563_828_224


def test_vit_g_costs_no_memory():
    config = named_config("vit_giant_patch14_224")
    found = totals(layer_table(build(config), config, batch_size=64))
    assert found == Totals(1_012_611_432, 64 * count_macs(config))


@pytest.mark.parametrize("changes", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("form", ["conv", "linear"])
@pytest.mark.parametrize("layout", [EINOPS, RESHAPE], ids=lambda layout: layout.name)
def test_totals_of_any_config_form_and_layout(small_config: ViTConfig, changes, form, layout):
    config = replace(small_config, **changes)
    rows = layer_table(build(config, layout=layout, patch_form=form), config, batch_size=3)
    # The query of attention pooling is projected once, however many images there are.
    once = 2 * config.embed_dim**2 if config.pool == "map" else 0
    assert totals(rows) == Totals(count_parameters(config), 3 * count_macs(config) - once)


@pytest.mark.parametrize("form", ["conv", "linear"])
def test_rows_add_up_level_by_level(small_config: ViTConfig, form):
    config = replace(small_config, distillation_token=True, distillation_head=True)
    rows = layer_table(build(config, patch_form=form), config)
    for position, row in enumerate(rows):
        inside = []
        for later in rows[position + 1 :]:
            if later.level <= row.level:
                break
            inside.append(later)
        direct = [later for later in inside if later.level == row.level + 1]
        if direct:
            assert row.parameters == sum(later.parameters for later in direct), row.name
            assert row.macs >= sum(later.macs for later in direct), row.name


def test_both_layouts_give_one_table(small_config: ViTConfig):
    tables = [layer_table(build(small_config, layout=layout), small_config, 2) for layout in (EINOPS, RESHAPE)]
    assert tables[0] == tables[1]


def test_rows_say_shapes_parameters_and_macs(small_config: ViTConfig):
    rows = by_name(layer_table(build(small_config), small_config, batch_size=2))
    assert rows[""] == LayerRow(
        "", "ViT", 0, (2, 3, 32, 48), (2, 7), count_parameters(small_config), 2 * count_macs(small_config)
    )
    assert rows["pos_embed"] == LayerRow("pos_embed", "Parameter", 1, (), (1, 25, 60), 25 * 60, 0)
    assert rows["patch_embed.proj"] == LayerRow(
        "patch_embed.proj", "Conv2d", 2, (2, 3, 32, 48), (2, 60, 4, 6), 60 * 192 + 60, 2 * 24 * 192 * 60
    )
    assert rows["blocks.2.attn.qkv"] == LayerRow(
        "blocks.2.attn.qkv", "Linear", 3, (2, 25, 60), (2, 25, 180), 61 * 180, 2 * 25 * 60 * 180
    )
    attention = rows["blocks.2.attn"]
    products = attention.macs - rows["blocks.2.attn.qkv"].macs - rows["blocks.2.attn.proj"].macs
    assert products == 2 * (2 * 25 * 25 * 60)  # the batch of 2, and the two products
    assert rows["head"] == LayerRow("head", "Linear", 1, (2, 60), (2, 7), 61 * 7, 2 * 60 * 7)


def test_the_linear_patch_form_counts_at_the_embedding(small_config: ViTConfig):
    conv, linear = (
        by_name(layer_table(build(small_config, patch_form=form), small_config)) for form in ("conv", "linear")
    )
    assert linear["patch_embed"] == conv["patch_embed"]
    assert linear["patch_embed.proj"].macs == 0
    assert linear["patch_embed.proj"].parameters == conv["patch_embed.proj"].parameters


def test_a_layer_the_outputs_do_not_need_costs_nothing(small_config: ViTConfig):
    rows = layer_table(build(small_config, outputs=("tokens",)), small_config)
    head = by_name(rows)["head"]
    assert (head.input_shape, head.output_shape, head.macs, head.parameters) == ((), (), 0, 61 * 7)
    assert totals(rows).macs == count_macs(small_config) - 60 * 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_real_model_is_left_as_it_was(small_config: ViTConfig, dtype: torch.dtype):
    model = ViT(small_config).to(dtype).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    assert totals(layer_table(model, small_config)).parameters == count_parameters(small_config)
    assert {module.training for module in model.modules()} == {True}
    for name, value in model.named_parameters():
        assert isinstance(value, nn.Parameter)
        assert value.requires_grad
        assert torch.equal(value, before[name])
    assert not [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]


def test_a_batch_of_none_is_refused(small_config: ViTConfig):
    with pytest.raises(UsageFailed, match="batch size is 0"):
        layer_table(build(small_config), small_config, batch_size=0)
