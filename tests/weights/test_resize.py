"""A model at another image size is what the library of its checkpoint makes of it there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from tests.specimens.timm import SPECIMENS as TIMM
from tests.specimens.transformers import SPECIMENS as TRANSFORMERS
from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.model.config import ViTConfig
from vit_deploy.model.preprocess import Preprocessing
from vit_deploy.model.rotary_config import RotaryConfig
from vit_deploy.weights import load_model
from vit_deploy.weights.random import random_model
from vit_deploy.weights.resize import geometric_matrix, resized
from vit_deploy.weights.tensors import Weights, WeightTensor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.specimens.specimen import Specimen

BASE = ViTConfig(
    image_size=(32, 48), patch_size=8, embed_dim=64, depth=2, num_heads=4, mlp_dim=96, num_classes=7
)
BEIT = replace(BASE, image_size=(32, 32), positions="none", relative_positions="block")

TIMM_NAMES = (
    "vit_tiny_patch16_224",
    "vit_base_patch16_224, oblong",
    "deit_small_distilled_patch16_224",
    "vit_base_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_siglip_224",
    "vit_pe_core_tiny_patch16_384",
    "eva02_base_patch14_448",
    "beitv2_base_patch16_224",
    "vit_base_patch16_rope_mixed_ape_224",
)
ROUNDED = ("dinov3", "eva02", "rope", "pe_core")
"""timm keeps angles in float32. (BEiT's tables are summed up in another order there.)"""

HF_NAMES = (
    "ViTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "Dinov2Model",
    "Dinov2WithRegistersModel",
    "CLIPVisionModelWithProjection",
    "SiglipVisionModel",
    "IJepaModel",
    "BeitForImageClassification",
    "Data2VecVisionModel",
)


def specimen(specimens: tuple[Specimen, ...], name: str) -> Specimen:
    return next(entry for entry in specimens if entry.name == name)


def pixels(channels: int, size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, channels, *size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("change", [(2, 3), (-1, 0)])
@pytest.mark.parametrize("name", TIMM_NAMES)
@pytest.mark.filterwarnings("ignore")
def test_timm(name: str, change: tuple[int, int], tmp_path: Path) -> None:
    import timm

    arguments = specimen(TIMM, name).save(tmp_path)
    native = load_model(**arguments).vit_config
    size = tuple((side + more) * native.patch_size for side, more in zip(native.grid_size, change, strict=True))
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    theirs.set_input_size(img_size=size)
    model = load_model(**arguments, image_size=size)
    if "pos_embed" in model.weights:
        expected = theirs.pos_embed.detach()
        found = model.weights["pos_embed"].read()
        assert torch.equal(found, expected.reshape(found.shape))
    images = pixels(native.in_channels, size)
    output = "logits" if native.num_classes else "embedding"
    with torch.inference_mode():
        expected = theirs.double().eval()(images)
        found = model.eager(dtype=torch.float64, outputs=(output,))(images)
    bound = 2e-7 if any(word in name for word in ROUNDED) else 1e-8 if "beit" in name else 1e-14
    assert (found - expected).norm() <= bound * expected.norm()


@pytest.mark.parametrize("name", HF_NAMES)
@pytest.mark.filterwarnings("ignore")
def test_transformers(name: str, tmp_path: Path) -> None:
    import transformers

    chosen = specimen(TRANSFORMERS, name)
    arguments = chosen.save(tmp_path)
    theirs = getattr(transformers, chosen.write.keywords["model"]).from_pretrained(tmp_path).double().eval()
    size = (48, 56)
    # transformers resamples in the dtype it runs in, but for DINOv2, which does it in float32.
    exact = "Dinov2" not in name
    model = resized(load_model(**arguments), size, exact=exact)
    images = pixels(3, size)
    extra = {} if "Dinov2" in name else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        answer = theirs(pixel_values=images, **extra)
        fields = {"logits": "logits", "tokens": "last_hidden_state", "image_embeds": "image_embeds"}
        given = {ours: answer[field] for ours, field in fields.items() if field in answer}
        found = model.eager(dtype=torch.float64, outputs=tuple(given))(images)
    compared = found if isinstance(found, tuple) else (found,)
    assert given
    for ours, expected in zip(compared, given.values(), strict=True):
        assert (ours - expected).norm() <= 1e-12 * expected.norm()
    if exact and "pos_embed" in model.weights:
        rounded = load_model(**arguments, image_size=size).weights["pos_embed"].read()
        torch.testing.assert_close(rounded.double(), model.weights["pos_embed"].read(), rtol=0, atol=1e-6)


def test_the_position_encodings_of_transformers_to_the_bit(tmp_path: Path) -> None:
    import transformers

    arguments = specimen(TRANSFORMERS, "ViTForImageClassification").save(tmp_path)
    theirs = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    embeddings = theirs.vit.embeddings
    with torch.inference_mode():
        tokens = torch.zeros(1, 1 + 6 * 7, embeddings.position_embeddings.shape[-1])
        expected = embeddings.interpolate_pos_encoding(tokens, 48, 56)
    found = load_model(**arguments, image_size=(48, 56)).weights["pos_embed"].read()
    assert torch.equal(found, expected)


def test_resampling_waits_until_it_is_asked_for() -> None:
    def refuse() -> torch.Tensor:
        raise AssertionError("the weights were read")

    model = random_model(BASE, "small")
    unread = Weights(
        WeightTensor(name, tensor.shape, tensor.dtype, refuse) for name, tensor in model.weights.items()
    )
    found = resized(replace(model, weights=unread), (64, 24))
    assert found.weights["pos_embed"].shape == (1, 1 + 8 * 3, 64)
    assert found.vit_config.resampled_from == (32, 48)
    with pytest.raises(AssertionError, match="were read"):
        found.weights["pos_embed"].read()


def test_prefix_positions_stay_as_they_are() -> None:
    config = replace(BASE, num_registers=3, position_scope="all", distillation_token=True)
    model = random_model(config, "small", 2)
    before, after = (m.weights["pos_embed"].read() for m in (model, resized(model, (40, 40))))
    assert torch.equal(before[:, :5], after[:, :5])
    assert after.shape == (1, 5 + 25, 64)


def test_without_learned_positions_nothing_is_resampled() -> None:
    config = replace(BASE, positions="none", rotary=RotaryConfig(coordinates="centred"))
    model = random_model(config, "small", 2)
    once = resized(model, (64, 64))
    assert once.weights is model.weights
    assert once.vit_config.resampled_from is None
    assert resized(once, (32, 48)).vit_config == model.vit_config


def test_the_same_size_is_the_same_model() -> None:
    model = random_model(BASE, "small")
    assert resized(model, (32, 48)) is model


def test_a_size_that_patches_do_not_divide_names_the_nearest() -> None:
    model = random_model(BASE, "small")
    with pytest.raises(UsageFailed) as refused:
        resized(model, (50, 64))
    assert "50x64" in refused.value.found
    assert refused.value.next_command == "--image-size 48x64 or --image-size 56x64"
    with pytest.raises(UsageFailed) as refused:
        resized(model, (3, 3))
    assert refused.value.next_command == "--image-size 8x8"


def test_pixels_left_over_go_with_a_model_that_leaves_them_out() -> None:
    model = random_model(replace(BASE, image_size=(35, 53), drop_remainder=True), "small")
    assert resized(model, (50, 65)).vit_config.grid_size == (6, 8)
    assert resized(model, (39, 50)).weights is model.weights  # as many patches as before


def test_positions_are_not_resampled_twice() -> None:
    once = resized(random_model(BASE, "small"), (64, 64))
    with pytest.raises(UsageFailed, match="learned at 32x48 pixels and have been resampled to 64x64"):
        resized(once, (32, 32))


def test_positions_of_another_shape_are_told() -> None:
    model = random_model(BASE, "small")
    wrong = WeightTensor("pos_embed", (1, 20, 64), "float32", lambda: torch.zeros(1, 20, 64))
    weights = Weights(wrong if name == "pos_embed" else tensor for name, tensor in model.weights.items())
    with pytest.raises(ImportFailed, match="'pos_embed' has shape"):
        resized(replace(model, weights=weights), (64, 64))


@pytest.mark.parametrize("size", [(64, 64), (16, 24), (40, 32)])
@pytest.mark.filterwarnings("ignore")
def test_relative_tables_as_timm_resamples_them(size: tuple[int, int]) -> None:
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

    model = random_model(BEIT, "beit", 3)
    found = resized(model, size)
    name = "blocks.1.attn.rel_pos.relative_position_bias_table"
    table = found.weights[name]
    expected = resize_rel_pos_bias_table(
        model.weights[name].read(), found.vit_config.grid_size, tuple(table.shape)
    )
    torch.testing.assert_close(table.read(), expected, rtol=0, atol=1e-6)


def test_relative_tables_that_the_source_would_not_resample() -> None:
    oblong = random_model(replace(BEIT, image_size=(32, 48)), "beit")
    with pytest.raises(UsageFailed, match="those of a square only"):
        resized(oblong, (64, 64))
    with pytest.raises(UsageFailed, match="geometric progression"):
        resized(random_model(BEIT, "beit"), (8, 64))


def test_the_rows_of_the_geometric_matrix_add_up_to_one() -> None:
    matrix = geometric_matrix(7, 27, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(27, dtype=torch.float64))
    assert matrix[13].argmax() == 3  # no distance stays no distance


def test_the_eager_model_runs_at_its_new_size() -> None:
    for config in (BASE, BEIT, replace(BASE, rotary=RotaryConfig(reference_grid=(4, 6)))):
        found = resized(random_model(config, "small"), (48, 24))
        with torch.inference_mode():
            assert found.eager()(torch.zeros(1, 3, 48, 24)).shape == (1, 7)


TIMM_RECIPE = {"input_size": [3, 224, 224], "crop_pct": 0.9}


@pytest.mark.parametrize("size", [(384, 384), (224, 448), (97, 97)])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_timm_keeps_the_share_that_is_cropped(mode: str, size: tuple[int, int]) -> None:
    recipe = {**TIMM_RECIPE, "crop_mode": mode}
    native = Preprocessing.from_timm(recipe, ViTConfig())
    expected = Preprocessing.from_timm(recipe, replace(ViTConfig(patch_size=1), image_size=size))
    assert native.at_size(size) == expected
    assert Preprocessing.from_dict(native.at_size(size).to_dict()) == expected


def test_other_crops_keep_their_ratio() -> None:
    recipe = {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}
    native = Preprocessing.from_transformers(
        {**recipe, "image_processor_type": "CLIPImageProcessor"}, ViTConfig()
    )
    assert native.resize == "shortest_edge"
    square, wide = native.at_size((448, 448)), native.at_size((224, 448))
    assert (square.resize, square.resize_size) == ("shortest_edge", (512, 512))
    assert (wide.resize, wide.resize_size) == ("cover", (256, 512))
    exact = Preprocessing.from_transformers({"size": {"height": 224, "width": 224}}, ViTConfig())
    assert exact.at_size((384, 224)).resize_size == (384, 224)


def test_a_processor_of_another_size_is_no_second_resampling(tmp_path: Path) -> None:
    """DINOv2 was trained at one size and its processor gives another: a third is made of the first."""
    import json

    arguments = specimen(TRANSFORMERS, "Dinov2Model").save(tmp_path)
    processor = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 28},
        "crop_size": {"height": 24, "width": 24},
        "do_center_crop": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
    }
    bare = load_model(**arguments)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    given = load_model(**arguments)
    assert (given.config.image_size, given.vit_config.resampled_from) == ((24, 24), bare.config.image_size)
    third = load_model(**arguments, image_size=(48, 48))
    expected = resized(bare, (48, 48)).weights["pos_embed"].read()
    assert torch.equal(third.weights["pos_embed"].read(), expected)
    assert third.preprocessing.resize_size == (56, 56)
    learned = load_model(**arguments, image_size=bare.config.image_size)
    assert learned.vit_config.resampled_from is None
    with pytest.raises(UsageFailed, match="have been resampled"):
        resized(given, (48, 48))
