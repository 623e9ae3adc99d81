from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.parts import PARTS, shrunk
from vit_deploy.model.architectures import NAMED_CONFIGS
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.layout import EINOPS, RESHAPE, Layout
from vit_deploy.model.patches import PatchEmbedding
from vit_deploy.model.vit import ViT
from vit_deploy.weights.random import random_model

ALL_OUTPUTS = ("logits", "embedding", "tokens")

# Every combination of parts that a named architecture has, at a size that runs in milliseconds.
COMBINATIONS = {shrunk(config): name for name, config in NAMED_CONFIGS.items()}

# Of the classic sizes, one block each at full width.
ONE_BLOCK = {
    replace(config, depth=1): name
    for name, config in NAMED_CONFIGS.items()
    if re.fullmatch(r"(vit|deit)_(tiny|small|base|large)(_distilled)?_patch\d+_(224|384)", name)
}

side = st.integers(1, 4)


def pictures(config: ViTConfig, batch_size: int = 2) -> torch.Tensor:
    return torch.randn(batch_size, config.in_channels, *config.image_size)


@torch.inference_mode()
def assert_twins_agree(config: ViTConfig) -> None:
    """Both layouts, with random weights and all outputs that the config has."""
    model = random_model(config, "twins").eager(outputs=config.output_names)
    twin = model.for_export()
    pixels = pictures(config, 2)
    for written, exported in zip(model(pixels), twin(pixels), strict=True):
        assert torch.equal(written, exported)
        assert written.isfinite().all()
        assert written.std() > 0


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("config", ONE_BLOCK, ids=ONE_BLOCK.values())
def test_twins_are_bit_identical_on_classic_sizes(config: ViTConfig):
    assert_twins_agree(config)


@pytest.mark.parametrize("config", COMBINATIONS, ids=COMBINATIONS.values())
def test_twins_are_bit_identical_on_every_named_combination_of_parts(config: ViTConfig):
    assert_twins_agree(config)


@pytest.mark.parametrize("changes", PARTS.values(), ids=PARTS)
def test_twins_are_bit_identical_with_every_part(small_config: ViTConfig, changes: dict[str, Any]):
    assert_twins_agree(replace(small_config, **changes))


@pytest.mark.parametrize("config", COMBINATIONS, ids=COMBINATIONS.values())
def test_twins_have_the_same_state_dict_on_every_named_combination_of_parts(config: ViTConfig):
    with torch.device("meta"):
        states = [ViT(config, layout=layout).state_dict() for layout in (EINOPS, RESHAPE)]
    written, exported = ([(key, value.shape) for key, value in state.items()] for state in states)
    assert written == exported


@st.composite
def small_configs(draw: st.DrawFn) -> ViTConfig:
    patch_size, num_heads = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    num_classes = draw(st.integers(1, 5))
    distillation_token = draw(st.booleans())
    return ViTConfig(
        image_size=(patch_size * draw(side), patch_size * draw(side)),
        patch_size=patch_size,
        in_channels=draw(side),
        embed_dim=num_heads * draw(st.integers(1, 9)),
        depth=draw(st.integers(1, 2)),
        num_heads=num_heads,
        mlp_dim=draw(st.integers(1, 20)),
        num_classes=num_classes,
        qkv_bias=draw(st.booleans()),
        distillation_token=distillation_token,
        distillation_head=distillation_token and draw(st.booleans()),
        representation_size=draw(st.sampled_from((0, 5))),
    )


@settings(deadline=None, max_examples=30)
@given(config=small_configs(), batch_size=side, form=st.sampled_from(("conv", "linear")))
@torch.inference_mode()
def test_any_config_has_bit_identical_twins_of_the_announced_shapes(config, batch_size, form):
    model = ViT(config, layout=EINOPS, patch_form=form, outputs=ALL_OUTPUTS)
    twin = model.for_export()
    pixels = pictures(config, batch_size)
    announced = config.io_spec(ALL_OUTPUTS).outputs
    for written, exported, spec in zip(model(pixels), twin(pixels), announced, strict=True):
        assert torch.equal(written, exported)
        assert tuple(written.shape) == spec.at_batch(batch_size)


@settings(deadline=None, max_examples=20)
@given(config=small_configs(), batch_size=st.integers(2, 5), data=st.data())
@torch.inference_mode()
def test_an_image_does_not_see_its_neighbours_in_the_batch(config, batch_size, data):
    model = ViT(config, layout=RESHAPE, outputs=ALL_OUTPUTS).double()
    torch.nn.init.normal_(model.cls_token)
    pixels = pictures(config, batch_size).double()
    slot = data.draw(st.integers(0, batch_size - 1))
    for together, alone in zip(model(pixels), model(pixels[slot : slot + 1]), strict=True):
        torch.testing.assert_close(together[slot], alone[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", [EINOPS, RESHAPE], ids=lambda layout: layout.name)
class TestEachPiece:
    """Each module against the einops expression in its docstring, with every dimension different."""

    def test_patchify(self, layout: Layout):
        images = torch.randn(2, 3, 4 * 5, 6 * 5)
        expected = rearrange(images, "b c (h s1) (w s2) -> b (h w) (s1 s2 c)", s1=5, s2=5)
        assert torch.equal(layout.patchify(5)(images), expected)

    def test_flatten_kernel(self, layout: Layout):
        kernel = torch.randn(7, 3, 4, 5)
        assert torch.equal(layout.flatten_kernel()(kernel), rearrange(kernel, "d c s1 s2 -> d (s1 s2 c)"))

    def test_grid_to_tokens(self, layout: Layout):
        grid = torch.randn(2, 7, 4, 5)
        assert torch.equal(layout.grid_to_tokens()(grid), rearrange(grid, "b d h w -> b (h w) d"))

    def test_heads(self, layout: Layout):
        qkv = torch.randn(2, 5, 3 * 4 * 6)
        expected = rearrange(qkv, "b n (three k dh) -> three b k n dh", three=3, k=4)
        for part, want in zip(layout.split_heads(4)(qkv), expected, strict=True):
            assert torch.equal(part, want)
        merged = layout.merge_heads()(expected[0])
        assert torch.equal(merged, rearrange(expected[0], "b k n dh -> b n (k dh)"))

    def test_it_has_no_parameters(self, layout: Layout):
        pieces = [layout.patchify(2), layout.flatten_kernel(), layout.grid_to_tokens(), layout.split_heads(2)]
        assert not [name for piece in (*pieces, layout.merge_heads()) for name in piece.state_dict()]

    def test_patch_forms_are_one_function(self, layout: Layout):
        conv = PatchEmbedding(5, 3, 37, form="conv", layout=layout).double()
        linear = PatchEmbedding(5, 3, 37, form="linear", layout=layout).double()
        linear.load_state_dict(conv.state_dict())
        images = torch.randn(2, 3, 4 * 5, 6 * 5, dtype=torch.float64)
        written = rearrange(images, "b c (h s1) (w s2) -> b (h w) (s1 s2 c)", s1=5, s2=5)
        matrix = rearrange(conv.proj.weight, "d c s1 s2 -> d (s1 s2 c)")
        explicit = written @ matrix.T + conv.proj.bias
        for found in (conv(images), linear(images)):
            assert (found - explicit).norm() / explicit.norm() <= 1e-12
